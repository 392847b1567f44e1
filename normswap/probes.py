"""Crafted inputs that a wrong rewrite of one layer cannot pass.

Each sample and channel of a probe gets one of the conditions below, so that one small array meets them all,
and from probe to probe the conditions move on by one channel and sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from normswap.layer import Array, Floats, NormLayer

__all__ = ["Probe", "probes", "with_stand_ins"]

_SPATIAL = {  # batch size and spatial extents: odd sizes, one-long axes, N 1, 2 and 5
    0: [(2, ()), (5, ()), (7, ()), (1, ())],
    1: [(2, (7,)), (1, (9,)), (5, (3,)), (2, (1,))],
    2: [(2, (5, 3)), (1, (7, 3)), (5, (3, 1)), (2, (1, 1))],
    3: [(2, (3, 3, 2)), (1, (5, 3, 1)), (5, (1, 3, 2)), (2, (1, 1, 1))],
}
_CONDITIONS = 6


@dataclass(frozen=True, eq=False)
class Probe:
    """One crafted input.

    Attributes:
        name: What it is, for reports.
        x: The input, shape (N, C, *spatial), of the layer's dtype.
    """

    name: str
    x: Array


def probes(layer: NormLayer, rank: int, seed: int = 0) -> Iterator[Probe]:
    """Yield the crafted inputs for a layer of known ``num_features``."""
    assert layer.num_features is not None, "the caller fills in run-time parameters"
    rng = np.random.default_rng(seed)
    for index, (batch, spatial) in enumerate(_SPATIAL.get(rank - 2, [(2, (3,) * (rank - 2))])):
        shape = (batch, layer.num_features, *spatial)
        yield Probe(f"{'x'.join(map(str, shape))}", _conditions(rng, shape, layer, index))
    batch, spatial = _SPATIAL.get(rank - 2, [(2, (3,) * (rank - 2))])[0]
    shape = (batch, layer.num_features, *spatial)
    for name, value in (("NaN", np.nan), ("infinity", np.inf)):
        x = _conditions(rng, shape, layer, 0)
        x[0, ::2].reshape(-1, x[0, ::2].size)[0, 0] = value  # one element of one sample: others keep clean
        yield Probe(f"{'x'.join(map(str, shape))} with {name}", x)


def with_stand_ins(layer: NormLayer, seed: int = 0) -> NormLayer:
    """Give values to the parameters that are known at run time only, so that the layer can be probed."""
    channels = layer.num_features if layer.num_features is not None else 3
    rng = np.random.default_rng(seed)
    dtype = layer.dtype

    def stand_in(given: Array | None, low: float, high: float) -> Array:
        return given if given is not None else rng.uniform(low, high, channels).astype(dtype)

    return replace(
        layer,
        num_features=channels,
        weight=stand_in(layer.weight, 0.5, 1.5),
        bias=stand_in(layer.bias, -1, 1),
    )


def _conditions(rng: np.random.Generator, shape: tuple[int, ...], layer: NormLayer, first: int) -> Array:
    batch, channels = shape[:2]
    style = (batch, channels) + (1,) * (len(shape) - 2)
    kind = (np.arange(channels)[None, :] + np.arange(batch)[:, None] // 2 + first).reshape(style) % _CONDITIONS
    noise = rng.standard_normal(shape)
    near_eps = np.sqrt(layer.eps) if np.isfinite(layer.eps) and layer.eps > 0 else 1e-3
    spike = np.zeros(shape)
    spike.reshape(batch, channels, -1)[..., 0] = 100.0
    # Channels differ in kind, samples of a channel only in halves of the batch, in mean and in spread.
    lift = rng.uniform(-1, 1, style)
    spread = rng.uniform(0.5, 2, style)
    choices: list[Floats] = [
        noise * spread + lift,  # ordinary
        noise * near_eps,  # variance about eps: a wrong eps shows
        noise * near_eps * 0.1,  # variance far below eps
        noise * spread + 1e4,  # |mean| / std of 1e4: cancellation shows
        np.broadcast_to(lift, shape) * 1.0,  # constant: nothing but rounding is left
        noise * 0.01 + spike,  # one spike
    ]
    return np.asarray(np.choose(np.broadcast_to(kind, shape), choices)).astype(layer.dtype)
