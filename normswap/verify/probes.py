"""Second witness: each converted layer, alone, on crafted inputs that a wrong rewrite cannot pass.

Each set of channels that shares statistics (as a rule one channel) is in one of the conditions below, so that one small
array meets them all, and from probe to probe the conditions move on by one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import ml_dtypes
import numpy as np

from normswap.backends import Backend
from normswap.backends.values import CutLayer
from normswap.errors import CannotRunError
from normswap.layer import Array, Floats, NormLayer
from normswap.norms.rounding import LARGEST, rounding_bound
from normswap.plan import Plan
from normswap.report import Check, Progress
from normswap.verify.explain import Probed, likely_cause

__all__ = ["Probe", "probe_layers", "probes", "with_stand_ins"]

# Batch size and spatial extents, by the number of spatial axes: odd sizes, one-long axes, N 1, 2 and 5.
_SIZES: dict[int, list[tuple[int, tuple[int, ...]]]] = {
    0: [(7, ()), (2, ()), (5, ()), (1, ())],
    1: [(2, (7,)), (1, (9,)), (5, (3,)), (2, (1,))],
    2: [(2, (5, 3)), (1, (7, 3)), (5, (3, 1)), (2, (1, 1))],
    3: [(2, (3, 3, 2)), (1, (5, 3, 1)), (5, (1, 3, 2)), (2, (1, 1, 1))],
}
_CONDITIONS = 6
# float16 values about 1e4 are multiples of 8, whose squares float32 holds exactly: nothing would cancel.
_LARGE_MEAN = {"float16": 2e3, "bfloat16": 200.0}


@dataclass(frozen=True, eq=False)
class Probe:
    """One crafted input.

    Attributes:
        name: What it is, for reports.
        x: The input, shape (N, C, *spatial), of the layer's dtype.
    """

    name: str
    x: Array


def probes(layer: NormLayer, rank: int, seed: int = 0, *, groups: int | None = None) -> tuple[Probe, ...]:
    """Return the crafted inputs for a layer of known ``num_features``.

    Args:
        layer: The layer, for its channels, its eps and its dtype.
        rank: Of its input.
        seed: Of the random numbers.
        groups: How many sets of neighbouring channels share statistics; as many as channels if None.
    """
    assert layer.num_features is not None, "the caller fills in run-time parameters"
    return _probes(
        layer.num_features, layer.num_features if groups is None else groups, layer.eps, layer.dtype, rank, seed
    )


@lru_cache(maxsize=8)  # most layers of a model share all of these with the layer before
def _probes(channels: int, groups: int, eps: float, dtype: str, rank: int, seed: int) -> tuple[Probe, ...]:
    rng = np.random.default_rng(seed)
    sizes = _SIZES.get(rank - 2, [(2, (3,) * (rank - 2))])
    runs = list(enumerate(sizes))
    if groups < _CONDITIONS:  # too few for each probe to hold all conditions
        runs += [(first, sizes[0]) for first in range(1, _CONDITIONS)]
    made = []
    for first, (batch, spatial) in runs:
        shape = (batch, channels, *spatial)
        made.append(Probe("x".join(map(str, shape)), _conditions(rng, shape, groups, eps, dtype, first)))
    batch, spatial = next((size for size in reversed(sizes) if size[0] > 2), sizes[0])
    shape = (batch, channels, *spatial)
    x = _conditions(rng, shape, groups, eps, dtype, 0)
    # One element of one sample: NaN in every third channel, infinity in the next, the other samples stay clean.
    for first, value in ((0, np.nan), (1, np.inf)):
        x[0][(slice(first, None, 3),) + (0,) * len(spatial)] = value
    made.append(Probe(f"{'x'.join(map(str, shape))} with NaN and infinity", x))
    if groups < 2:
        x = x.copy()
        x[0][(slice(None),) + (0,) * len(spatial)] = np.inf
        made.append(Probe(f"{'x'.join(map(str, shape))} with infinity", x))
    return tuple(made)


def with_stand_ins(layer: NormLayer, seed: int = 0) -> NormLayer:
    """Give values to the parameters that are known at run time only, so that the layer can be probed."""
    channels = layer.num_features if layer.num_features is not None else 3
    rng = np.random.default_rng(seed)

    def stand_in(given: Array | None, low: int, high: int) -> Array:
        # Multiples of 1/64, which every type holds exactly, whatever the parameter's is.
        return given if given is not None else rng.integers(low, high, channels, endpoint=True) / 64

    return replace(
        layer,
        num_features=channels,
        weight=stand_in(layer.weight, 32, 96),
        bias=stand_in(layer.bias, -64, 64),
    )


def _conditions(
    rng: np.random.Generator, shape: tuple[int, ...], groups: int, eps: float, dtype: str, first: int
) -> Array:
    batch, channels = shape[:2]
    style = (batch, channels) + (1,) * (len(shape) - 2)
    group = np.arange(channels) // (channels // groups)
    kind = (group + first).reshape((1, channels) + (1,) * (len(shape) - 2)) % _CONDITIONS
    noise = rng.standard_normal(shape)
    near_eps = np.sqrt(eps) if np.isfinite(eps) and eps > 0 else 1e-3
    spike = np.zeros(shape)
    spike.reshape(batch, channels, -1)[..., 0] = 100.0
    # Groups differ in kind, samples of a channel in mean and in spread.
    lift = rng.uniform(-1, 1, style)
    spread = rng.uniform(0.5, 2, style)
    same = lift[:, group * (channels // groups)]  # in all channels of a group
    choices: list[Floats] = [
        noise * spread + lift,  # ordinary
        noise * near_eps,  # variance about eps: a wrong eps shows
        noise * near_eps * 0.1,  # variance far below eps
        noise * spread + _LARGE_MEAN.get(dtype, 1e4),  # |mean| much larger than the spread: cancellation shows
        np.broadcast_to(same, shape) * 1.0,  # constant: nothing but rounding is left
        noise * 0.01 + spike,  # one spike
    ]
    with np.errstate(over="ignore"):  # an eps beyond what the type holds has inputs to match
        return np.asarray(np.choose(np.broadcast_to(kind, shape), choices)).astype(dtype)


def probe_layers(
    backend: Backend, before: Any, after: Any, plan: Plan, seed: int, progress: Progress
) -> tuple[list[Check], list[str]]:
    """Probe every planned layer; return one check for each, and notes on what could not be probed as planned."""
    checks: list[Check] = []
    guessed: list[str] = []
    raising: list[str] = []
    for cut in backend.cut(before, after, plan):
        progress("probing layers", len(checks), len(plan.layers))
        if any(getattr(cut.layer, name) is None for name in ("weight", "bias")):
            guessed.append(cut.layer.name)
        check, shy = _probe(plan, cut, with_stand_ins(cut.layer, seed), seed)
        checks.append(check)
        if shy:
            raising.append(cut.layer.name)
    if plan.norm.formula.reads_stored:  # with small ones in their place, since the layer's own hide a wrong eps
        cuts = backend.cut(before, after, plan, free=("running_mean", "running_var"))
        for index, cut in enumerate(cuts):
            check, _ = _probe(plan, cut, _with_small_statistics(cut.layer, seed), seed)
            if _says_more(check, checks[index]):
                checks[index] = check
    notes = []
    if guessed:
        notes.append(f"weight and bias of {', '.join(guessed)} are given at run time; the probes used stand-in values")
    if raising:
        notes.append(
            f"{', '.join(raising)}: raises where a statistic is of one element, as train-mode BatchNorm does; "
            "the probes of that were left out"
        )
    return checks, notes


def _with_small_statistics(layer: NormLayer, seed: int) -> NormLayer:
    """Put running statistics about eps and 1 in place of the layer's own."""
    layer = with_stand_ins(layer, seed)
    assert layer.running_mean is not None and layer.running_var is not None, "population refuses others"
    rng = np.random.default_rng(seed)
    eps = layer.eps if layer.eps > 0 else 1e-5
    most = float(ml_dtypes.finfo(layer.running_var.dtype).max)  # type: ignore[no-untyped-call]
    sizes = np.where(np.arange(layer.running_var.size) % 2, 1.0, min(eps, most / 4))
    return replace(
        layer,
        running_mean=rng.uniform(-1, 1, layer.running_mean.shape).astype(layer.running_mean.dtype),
        running_var=(sizes * rng.uniform(0.5, 2, layer.running_var.shape)).astype(layer.running_var.dtype),
    )


def _probe(plan: Plan, cut: CutLayer, layer: NormLayer, seed: int) -> tuple[Check, bool]:
    """Run one cut-out on all probes; return its worst comparison, and whether it raises on single elements."""
    if cut.trouble:
        return Check("probes", cut.layer.name, ok=False, detail=f"could not be run alone: {cut.trouble}"), False
    worst: Check | None = None
    worst_way = ""
    seen: dict[str, list[Probed]] = {}  # by how it was run: a cause is looked for in one way alone
    raises = False
    assert layer.num_features is not None, "it has stand-ins"
    groups = plan.norm.formula.groups_of(layer.num_features)
    for probe in probes(layer, cut.rank, seed, groups=groups):
        x = probe.x.astype(np.float64)
        expected = plan.norm.reference(probe.x, layer)
        bound = rounding_bound(plan.norm, x, layer, expected)
        try:
            outputs = cut(probe.x, layer)
        except CannotRunError as error:
            if plan.norm.count(probe.x.shape) == 1:  # where torch's own train-mode BatchNorm raises too
                raises = True
                continue
            return Check("probes", cut.layer.name, ok=False, detail=f"input {probe.name}: {error}"), False
        for how, found in outputs.items():
            check = _compare(cut.layer.name, found, expected, bound, f"input {probe.name}, {how}", layer.dtype)
            if found.shape == expected.shape and np.isfinite(x).all():
                seen.setdefault(how, []).append(Probed(x, expected, bound, found))
            if worst is None or _says_more(check, worst):
                worst, worst_way = check, how
    assert worst is not None, "there are always probes of more elements"
    if not worst.ok:
        worst = replace(worst, cause=likely_cause(plan.norm, layer, seen.get(worst_way, ())))
    return worst, raises


def _says_more(one: Check, other: Check) -> bool:
    """Whether a check fails where the other holds, or more; a number says more than a NaN in the wrong place."""
    return (not one.ok, math.isfinite(one.ratio), one.ratio) > (not other.ok, math.isfinite(other.ratio), other.ratio)


def _compare(name: str, found: Array, expected: Floats, bound: Floats, detail: str, dtype: str) -> Check:
    """Compare one output of a probe with exact arithmetic, element by element."""
    if found.shape != expected.shape:
        return Check("probes", name, ok=False, detail=f"{detail}: expected shape {expected.shape}, found {found.shape}")
    found64 = found.astype(np.float64)
    finite = np.isfinite(expected)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(found64 - expected)
        if not finite.all():
            defined = ~(np.isnan(expected) & np.isinf(bound))  # 0 / 0, where eps and the variance are both 0
            same = np.where(np.isnan(expected), np.isnan(found64), found64 == expected)
            error = np.where(finite, error, np.where(same | ~defined, 0.0, np.inf))
        if np.isinf(found64).any():
            overflow = finite & np.isinf(found64) & (np.abs(expected) + bound > LARGEST[dtype])
            error = np.where(overflow, 0.0, error)
        error = np.where(np.isnan(error), np.inf, error)
        allowed = np.where(finite, bound, 1.0)
        ratio = error / allowed
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(ratio)), ratio.shape))
    wrong = int(np.sum(ratio > 1))
    return Check(
        "probes", name, wrong == 0, float(error[index]), float(allowed[index]), index, detail, wrong, ratio.size
    )
