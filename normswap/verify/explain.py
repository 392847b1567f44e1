"""Likely causes: which known mistake what was found fits.

A mistake fits if its own exact result, within the bound of its own rounding error, is all that was found, and explains
at least one element that is wrong. Elements that it leaves open (0 / 0 without eps, for example) may be anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes  # noqa: F401  # gives NumPy bfloat16
import numpy as np

from normswap.layer import Array, Floats, NormLayer
from normswap.norms import Norm
from normswap.norms.mistake import Mistake, with_parameters
from normswap.norms.rounding import LARGEST, UNIT_ROUNDOFF, rounding_bound
from normswap.verify.mistakes import mistakes_of

__all__ = ["Probed", "likely_cause"]

_DETERMINED = 0.1  # relative error of an output, above which it determines nothing
_SMALLEST = 1e-40  # of bounds, so that the sums of their inverse squares stay finite
_SCREENED = 12  # channels on which a mistake is tried before it is tried on all
_FEW = 16  # different values, below which few digits in all of them prove little


@dataclass(frozen=True, eq=False)
class Probed:
    """One probe of a layer: what was expected, and what was found.

    Attributes:
        x: Input, shape (N, C, *spatial), float64 holding values of the layer's dtype.
        expected: What the target computes, float64.
        bound: How far a correct computation may be from it.
        found: What the layer computed, as it gave it.
    """

    x: Floats
    expected: Floats
    bound: Floats
    found: Array


def likely_cause(norm: Norm, layer: NormLayer, seen: Sequence[Probed]) -> str:
    """Say which known mistake all that was found fits.

    Args:
        norm: The target that the layer fails.
        layer: The layer, with its weight and bias known.
        seen: The results of one way of running it, on all finite probes.

    Returns:
        A clause, "looks as if eps was dropped"; empty where no mistake fits.
    """
    with np.errstate(all="ignore"):
        return next((f"looks as if {mistake}" for mistake in _fitting(norm, layer, seen)), "")


def _fitting(norm: Norm, layer: NormLayer, seen: Sequence[Probed]) -> Iterator[str]:
    """Yield what fits, the likeliest first."""
    if not seen:
        return
    few: tuple[NormLayer, Sequence[Probed]] = (layer, seen)
    if not norm.formula.joins_channels:  # most mistakes do not fit there, which saves the others
        few = _worst_channels(layer, seen)
    for what, mistake in mistakes_of(norm).items():
        can_be = all(getattr(layer, name) is not None for name in mistake.needs)
        may_fit = can_be and (mistake.pools or _explains(norm, mistake, *few) is not None)
        if may_fit and _fits(norm, mistake, layer, seen):
            yield what
    for dtype in ("bfloat16", "float16"):  # the fewest digits first
        if UNIT_ROUNDOFF[dtype] > UNIT_ROUNDOFF[layer.dtype] and _has_digits_of(dtype, seen):
            yield f"the result was rounded to {dtype}"
    eps = _eps_that_fits(norm, layer, seen)
    if eps > 0 and _fits(norm, Mistake(), replace(layer, eps=eps), seen):
        yield f"eps was {eps:.3g}, not {layer.eps:.3g}"
    if change := _other_values(norm, layer, seen):
        yield change


def _fits(norm: Norm, mistake: Mistake, layer: NormLayer, seen: Sequence[Probed]) -> bool:
    """Whether all that was found is what the mistake gives, and it explains an element that is wrong."""
    return bool(_explains(norm, mistake, layer, seen))


def _explains(norm: Norm, mistake: Mistake, layer: NormLayer, seen: Sequence[Probed]) -> bool | None:
    """Whether a mistake explains an element that is wrong; None where it gives something else than was found."""
    used, wrong = mistake.of(norm.formula, layer), mistake.with_(layer)
    explains = False
    for probe in seen:
        cancelled, lost = _cancelled(norm, layer, probe.x) if mistake.cancels else (0.0, False)
        y = used.reference(probe.x, wrong)
        allowed = rounding_bound(used, probe.x, wrong, y, cancels=cancelled)
        open_ = lost | ~(np.abs(y) + allowed <= LARGEST[layer.dtype]) | ~(allowed <= _size(y, wrong))
        found = probe.found.astype(np.float64)
        if (~open_ & ~(np.abs(found - y) <= allowed)).any():
            return None
        explains |= bool(((lost | ~open_) & ~(np.abs(found - probe.expected) <= probe.bound)).any())
    return explains


def _worst_channels(layer: NormLayer, seen: Sequence[Probed]) -> tuple[NormLayer, list[Probed]]:
    """Take the channels that are off most out of a layer and out of its results."""
    off = np.zeros(layer.num_features or 0)
    for probe in seen:
        ratio = np.abs(probe.found.astype(np.float64) - probe.expected) / probe.bound
        off = np.maximum(off, np.nan_to_num(ratio, nan=np.inf).max(axis=(0, *range(2, ratio.ndim))))
    chosen = np.argsort(-off)[:_SCREENED]
    parameters = {name: getattr(layer, name) for name in ("weight", "bias", "running_mean", "running_var")}
    taken: dict[str, Any] = {name: None if of is None else of[chosen] for name, of in parameters.items()}
    probes = [
        Probed(*(values[:, chosen] for values in (probe.x, probe.expected, probe.bound, probe.found))) for probe in seen
    ]
    return replace(layer, num_features=len(chosen), **taken), probes


def _size(y: Floats, layer: NormLayer) -> Floats:
    """Return the error from which on no digit of y is left."""
    assert layer.weight is not None and layer.bias is not None, "the caller fills in run-time parameters"
    weight, bias = (np.abs(layer.per_channel(values, y.ndim)) for values in (layer.weight, layer.bias))
    return np.asarray(np.abs(y) + weight + bias, np.float64)


def _cancelled(norm: Norm, layer: NormLayer, x: Floats) -> tuple[Floats, Any]:
    """Return how far E[x^2] - E[x]^2 may be off, and where nothing is left of it, so that it may be negative.

    Three sums of n terms of the size of E[x^2] are each off by n u of that.
    """
    n = norm.count(x.shape)
    u = UNIT_ROUNDOFF["float64" if layer.dtype == "float64" else "float32"]
    error = norm.share(x.shape) * (3 * n + 8) * u * norm.own_moments(np.square(x), layer)[0] * (n > 0)
    return error, (2 * error > norm.moments(x, layer)[1] + layer.eps)


def _has_digits_of(dtype: str, seen: Sequence[Probed]) -> bool:
    """Whether all that was found is of a lower precision, by more than chance."""
    found = np.unique(np.concatenate([probe.found[np.isfinite(probe.found)] for probe in seen]))
    return len(found) >= _FEW and bool((found == found.astype(dtype).astype(found.dtype)).all())


def _eps_that_fits(norm: Norm, layer: NormLayer, seen: Sequence[Probed]) -> float:
    """Estimate eps from (w d / (y - b))^2 - v, each element weighted by how well it determines that."""
    assert layer.weight is not None and layer.bias is not None, "the caller fills in run-time parameters"
    total, weights = 0.0, 0.0
    for probe in seen:
        mean, var = norm.moments(probe.x, layer)
        y = probe.found.astype(np.float64) - layer.per_channel(layer.bias, probe.x.ndim)
        std = (probe.x - mean) * layer.per_channel(layer.weight, probe.x.ndim) / y
        uncertain = 2 * np.square(std) * probe.bound / np.abs(y)
        good = np.isfinite(std) & (uncertain > 0) & (probe.bound < _DETERMINED * np.abs(y))
        weight = np.where(good, 1 / np.square(uncertain), 0.0)
        total += float(np.sum(np.where(good, weight * (np.square(std) - var), 0.0)))
        weights += float(np.sum(weight))
    return total / weights if weights else 0.0


def _other_values(norm: Norm, layer: NormLayer, seen: Sequence[Probed]) -> str:
    """Say in how many channels weight or bias has other values, if that explains everything.

    They are estimated for each channel by least squares of what was found on what is normalized, weighted by the
    bounds, which also give the error of the estimates.
    """
    plain = with_parameters(layer, weight=1.0, bias=0.0)
    sums = np.zeros((5, layer.num_features or 0))
    for probe in seen:
        z, y = norm.reference(probe.x, plain), probe.found.astype(np.float64)
        p = np.where(np.isfinite(y), 1 / np.square(np.maximum(probe.bound, _SMALLEST)), 0.0)
        axes = (0, *range(2, y.ndim))
        sums += [np.sum(np.where(p > 0, p * term, 0.0), axis=axes) for term in (1.0, z, z * z, y, z * y)]
    one, z1, z2, y1, zy = sums
    weight, bias = (one * zy - z1 * y1) / (one * z2 - z1 * z1), (z2 * y1 - z1 * zy) / (one * z2 - z1 * z1)
    other = replace(layer, weight=weight, bias=bias)
    if not np.isfinite(weight + bias).all() or not _fits(norm, Mistake(), other, seen):
        return ""
    errors = np.sqrt(np.stack([one, z2]) / (one * z2 - z1 * z1))  # of weight and bias, if one element were all
    given = np.stack([np.asarray(values).astype(np.float64) for values in (layer.weight, layer.bias)])
    change = np.abs(np.stack([weight, bias]) - given) / errors
    off = change > 1
    if not off.any():
        return ""
    row, channel = (int(i) for i in np.unravel_index(int(np.argmax(change)), change.shape))
    names = ("weight", "bias")
    which = " and ".join(name for name, changed in zip(names, off, strict=True) if changed.any())
    values = f"{(weight, bias)[row][channel]:.6g}, not {given[row][channel]:.6g}"
    channels = off.any(axis=0)
    where = f"{int(channels.sum())} of {channels.size} channels"
    return f"{which} had other values in {where} ({names[row]} of channel {channel}: {values})"
