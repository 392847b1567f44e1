"""Outputs of a whole model: how they are paired and compared within the noise floor, and when that proves little."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from normswap.layer import Array
from normswap.norms.rounding import UNIT_ROUNDOFF
from normswap.options import Tolerance
from normswap.report import Check

__all__ = ["compare_output", "difference", "paired", "uninformative"]

_INFORMATIVE = 0.1  # a bound above this fraction of the output's spread tells little


def paired(found: Mapping[str, Array], expected: Mapping[str, Array], by_order: bool) -> Mapping[str, Array] | str:
    """Give outputs the names of the original's, or say why that cannot be."""
    if not by_order:
        return found if found.keys() == expected.keys() else "the outputs have other names"
    if len(found) != len(expected):
        return (
            f"outputs are paired by their order, and there are {len(found)} ({', '.join(found)}) where the original "
            f"has {len(expected)} ({', '.join(expected)})"
        )
    return dict(zip(expected, found.values(), strict=True))


def difference(one: Mapping[str, Array], other: Mapping[str, Array], bounds: Mapping[str, float]) -> float:
    """Return the largest difference of two sets of outputs, as a multiple of the bounds."""
    ratios = [0.0]
    for name, value in other.items():
        if value.dtype.kind not in "fV" or not value.size or not bounds[name]:
            continue
        if one[name].shape != value.shape:
            return math.inf
        difference = np.abs(one[name].astype(np.float64) - value.astype(np.float64))
        ratios.append(float(np.max(np.nan_to_num(difference, nan=0.0))) / bounds[name])
    return max(ratios)


def compare_output(name: str, found: Array, expected: Array, noisy: Sequence[Array], tolerance: Tolerance) -> Check:
    """Compare one output of the model; the bound is the noise floor of the original times a margin."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        detail = f"expected {expected.dtype}{expected.shape}, found {found.dtype}{found.shape}"
        return Check("end to end", name, ok=False, detail=detail)
    if expected.size == 0:
        return Check("end to end", name, True, 0.0, 0.0, None, "no elements")
    if found.dtype.kind not in "fV":
        return _compare_discrete(name, found, expected, noisy, tolerance)
    one, other = found.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(other)
    same = np.where(np.isnan(other), np.isnan(one), one == other) | (finite & np.isfinite(one))
    if not same.all():
        detail = f"{int(np.sum(~same))} of {one.size} elements are NaN or infinite on one side only"
        return Check("end to end", name, ok=False, detail=detail)
    other = np.where(finite, other, 0.0)
    floor = max(float(np.max(np.abs(np.where(finite, run.astype(np.float64), 0.0) - other))) for run in noisy)
    if np.isnan(floor):  # the original itself becomes NaN under rounding, so that every difference may be rounding
        floor = np.inf
    largest = float(np.max(np.abs(other)))
    unit = UNIT_ROUNDOFF.get(expected.dtype.name, UNIT_ROUNDOFF["float32"])
    bound = tolerance.margin * floor + tolerance.last_place * unit * largest
    error = np.abs(np.where(finite, one, 0.0) - other)
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(error)), error.shape))
    wrong = int(np.sum(error > bound))
    detail = f"noise floor {floor:.2g}, largest output {largest:.2g}"
    return Check("end to end", name, wrong == 0, float(error[index]), bound, index, detail, wrong, error.size)


def _compare_discrete(name: str, found: Array, expected: Array, noisy: Sequence[Array], tolerance: Tolerance) -> Check:
    """Compare an output of integers, booleans or strings by the share of elements that differ."""
    floor = max(float(np.mean(run != expected)) for run in noisy)
    share = float(np.mean(found != expected))
    detail = f"share of {expected.size} elements that differ; {floor:.2g} flip under rounding"
    return Check("end to end", name, share <= tolerance.margin * floor, share, tolerance.margin * floor, None, detail)


def uninformative(outputs: Mapping[str, Array], checks: Sequence[Check]) -> dict[str, str]:
    """Explain, by name, for which outputs the comparison proves little or nothing."""
    notes = {}
    for name, value in outputs.items():
        bounds = [check.bound for check in checks if check.bound is not None and check.name.startswith(f"{name} (")]
        if not bounds or value.size < 2:
            continue
        spread = 1.0
        if value.dtype.kind in "fV":
            numbers = value.astype(np.float64)[np.isfinite(value.astype(np.float64))]
            spread = float(np.ptp(numbers)) if numbers.size else 0.0
        if not spread:
            notes[name] = f"output {name} is constant or not finite, so that end to end proves little for it"
        elif bounds[0] > _INFORMATIVE * spread:
            notes[name] = (
                f"output {name} amplifies rounding: the allowed {bounds[0]:.2g} is {bounds[0] / spread:.0%} of its "
                "range, so that end to end proves little for it"
            )
    return notes
