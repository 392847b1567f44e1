"""How far a correct computation may be from exact arithmetic: bounds that are derived, not guessed.

With unit roundoff u, n summands in any order and |fl(sum) - sum| <= n u sum|x| (Higham 2002, section 4.2),
for one statistic over n elements with mean m, variance v, s = sqrt(v + eps) and d = x - m:

    the mean is off by          e  <= (n + 1) u mean|x|
    the centred value by        dd <= e + u (|d| + e)
    the variance by             dv <= e^2 + (n + 4) u (v + e^2)      (the shift e enters only squared)
    1 / sqrt(v + eps) by        relative r <= dv / (2 (v + eps)) (1 + dv / (v + eps)) + 4 u
    y = w d / s + b by          |w| / s (dd + |d| r) + 8 u (|w| (|x| + |m|) / s + |b| + |y|)

The last term covers kernels that compute y = x k + (b - m k) with k = w / s, as most do; it grows with
|m| / s, the conditioning of the problem. A kernel that forms E[x^2] - E[x]^2 loses n u m^2 of the variance
and is not covered, on purpose.

Where statistics a, v_a of x over n elements have the weight t and stored ones r, v_r have the rest,

    m = t a + (1 - t) r,    v = t v_a + (1 - t) v_r

e and dv enter m and v by the factor t. Each weight is three operations (a constant is rounded, a sum, a quotient),
each mixture a product and a sum more; eps may be mixed with the variance:

    the mean is off by          t e + 6 u (t |a| + (1 - t) |r|)
    1 / sqrt(v + eps) by        relative r <= ... + 4 u         (6 u (v + eps), a half of it for the root, and one)

and y may be (x - a) k + ((a - m) k + b), where a itself cancels: |a| joins |x| + |m| in the last term.

Where the output has fewer digits than the arithmetic, rounding it adds
u_out |y|; below the smallest normal number rounding is absolute, which adds one subnormal.
"""

from __future__ import annotations

import numpy as np

from normswap.layer import Floats, NormLayer
from normswap.norms.formula import Statistics

__all__ = ["LARGEST", "UNIT_ROUNDOFF", "rounding_bound"]

UNIT_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
LARGEST = {"float64": 1.79e308, "float32": 3.4e38, "float16": 65504.0, "bfloat16": 3.38e38}
_SMALLEST = {"float64": 2.0**-1074, "float32": 2.0**-149, "float16": 2.0**-24, "bfloat16": 2.0**-133}


def rounding_bound(
    norm: Statistics,
    x: Floats,
    layer: NormLayer,
    y: Floats,
    *,
    unit: float | None = None,
    cancels: Floats | float = 0.0,
) -> Floats:
    """Bound the error of a correct computation of ``y = norm(x)``, element by element, in units of y.

    Args:
        norm: What is computed.
        x: Layer input, shape (N, C, *spatial), float64 holding values of the layer's dtype.
        layer: The layer, with its weight and bias known.
        y: Exact output, as ``norm.reference`` gives it.
        unit: Unit roundoff of the arithmetic; that of float32, for a float64 layer float64, if None.
        cancels: How far the variance may be off besides, in units of x squared, where it is not computed by two passes.

    Returns:
        The bound, shape of x; NaN where y is not finite.
    """
    assert layer.weight is not None and layer.bias is not None, "the caller fills in run-time parameters"
    u = UNIT_ROUNDOFF["float64" if layer.dtype == "float64" else "float32"] if unit is None else unit
    weight = np.abs(layer.per_channel(layer.weight, x.ndim))
    bias = np.abs(layer.per_channel(layer.bias, x.ndim))
    n = norm.count(x.shape)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        mean, var = norm.moments(x, layer)
        scale = var + layer.eps
        mixing_error = 0.0
        summands = np.abs(x) + np.abs(mean)
        if n:
            share = norm.share(x.shape)
            own_mean, own_var = norm.own_moments(x, layer)
            mean_error = (n + 1) * u * norm.own_moments(np.abs(x), layer)[0]
            var_error = share * (mean_error**2 + (n + 4) * u * (own_var + mean_error**2))
            mean_error = share * mean_error
            if share < 1:
                assert layer.running_mean is not None, "refused otherwise"
                stored_mean = np.abs(layer.per_channel(layer.running_mean, x.ndim))
                mean_error = mean_error + 6 * u * (share * np.abs(own_mean) + (1 - share) * stored_mean)
                mixing_error = 4 * u
                summands = summands + np.abs(own_mean)
        else:
            mean_error, var_error = np.zeros_like(mean), np.zeros_like(var)
        var_error = var_error + cancels
        centred = np.abs(x - mean)
        centred_error = mean_error + u * (centred + mean_error)
        relative = var_error / (2 * scale) * (1 + var_error / scale) + 4 * u + mixing_error
        gain = weight / np.sqrt(scale)
        bound = gain * (centred_error + centred * relative)
        bound = bound + 8 * u * (gain * summands + bias + np.abs(y))
        out = UNIT_ROUNDOFF[layer.dtype]
        if out > u:
            bound = bound + out * (np.abs(y) + bound)
    return np.asarray(bound + _SMALLEST[layer.dtype], np.float64)
