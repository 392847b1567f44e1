"""Third witness: the whole model against the original under its stated meaning.

What is allowed is measured: how far the original itself moves when each of its layers is perturbed by as much as
rounding may do, times a margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from normswap.backends import Backend, Feed
from normswap.errors import CannotRunError
from normswap.layer import Array
from normswap.plan import Plan
from normswap.report import Check, Progress
from normswap.tolerance import UNIT_ROUNDOFF, Tolerance

__all__ = ["end_to_end"]

_INFORMATIVE = 0.1  # a bound above this fraction of the output's spread tells little


def end_to_end(
    backend: Backend,
    before: Any,
    after: Any,
    plan: Plan,
    feeds: Sequence[Feed],
    tolerance: Tolerance,
    seed: int,
    progress: Progress,
) -> tuple[list[Check], str, list[str]]:
    """Run the whole model and return a check for each output, where the inputs are from, and notes."""
    total = 1 + tolerance.runs + len(backend.WAYS)
    progress("running the original", 0, total)
    feed, expected = _first_that_runs(backend, before, plan, feeds)
    noisy = []
    for index in range(tolerance.runs):
        progress("measuring the noise floor", 1 + index, total)
        noisy.append(backend.run_reference(before, plan, feed.arrays, noise=tolerance.noise, seed=seed + 1 + index))
    checks: list[Check] = []
    notes: list[str] = list(expected.notes)
    for index, how in enumerate(backend.WAYS):
        progress("running the converted model", 1 + tolerance.runs + index, total)
        try:
            found = backend.run(after, feed.arrays, how=how)
        except CannotRunError as error:
            checks.append(Check("end to end", how, ok=False, detail=f"the converted model does not run: {error}"))
            continue
        if found.outputs.keys() != expected.outputs.keys():
            checks.append(Check("end to end", how, ok=False, detail="the outputs have other names"))
            continue
        for name, value in expected.outputs.items():
            spread = [run.outputs[name] for run in noisy]
            check, weak = _compare_output(f"{name} ({how})", found.outputs[name], value, spread, tolerance)
            checks.append(check)
            if weak and weak not in notes:
                notes.append(weak)
    unseen = [layer.name for layer in plan.layers if expected.calls.get(layer.name, 1) == 0]
    if unseen:
        notes.append(
            f"end to end did not reach {', '.join(unseen)} with these inputs; only structure and probes saw them"
        )
    return checks, feed.source, notes


def _first_that_runs(backend: Backend, before: Any, plan: Plan, feeds: Sequence[Feed]) -> tuple[Feed, Any]:
    trouble = "no inputs were given"
    for feed in feeds:
        try:
            return feed, backend.run_reference(before, plan, feed.arrays, noise=0.0, seed=0)
        except CannotRunError as error:
            trouble = str(error)
    raise CannotRunError(
        f"the original does not run, so nothing can be compared end to end: {trouble}; "
        "give inputs with --inputs or --shape, or leave this witness out with --no-end-to-end"
    )


def _compare_output(
    name: str, found: Array, expected: Array, noisy: Sequence[Array], tolerance: Tolerance
) -> tuple[Check, str]:
    """Compare one output of the model; the bound is the noise floor of the original times a margin."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        detail = f"expected {expected.dtype}{expected.shape}, found {found.dtype}{found.shape}"
        return Check("end to end", name, ok=False, detail=detail), ""
    if found.dtype.kind not in "fV":
        return _compare_discrete(name, found, expected, noisy, tolerance)
    one, other = found.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(other)
    if not np.array_equal(np.isnan(one), np.isnan(other)) or not np.array_equal(one[~finite], other[~finite], True):
        wrong = int(np.sum(~((one == other) | (np.isnan(one) & np.isnan(other)) | (finite & np.isfinite(one)))))
        detail = f"{wrong} of {one.size} elements are NaN or infinite on one side only"
        return Check("end to end", name, ok=False, detail=detail), ""
    if not finite.any():
        return Check("end to end", name, True, 0.0, 0.0, None, f"{one.size} elements"), (
            f"output {name} holds no finite number, so that the comparison says nothing"
            if one.size
            else f"output {name} is empty"
        )
    floor = max(
        (float(np.max(np.abs(np.where(finite, n.astype(np.float64) - other, 0.0)))) for n in noisy),
        default=0.0,
    )
    largest = float(np.max(np.abs(other[finite])))
    unit = UNIT_ROUNDOFF.get(expected.dtype.name, UNIT_ROUNDOFF["float32"])
    bound = tolerance.margin * floor + tolerance.last_place * unit * largest
    error = np.where(finite, np.abs(one - np.where(finite, other, 0.0)), 0.0)
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(error)), error.shape))
    wrong = int(np.sum(error > bound))
    detail = f"{wrong or 'all'} of {error.size} elements; noise floor {floor:.2g}, largest output {largest:.2g}"
    weak = ""
    spread = float(np.ptp(other[finite]))
    if spread == 0 and other.size > 1:
        weak = f"output {name} is constant, so that the comparison says little"
    elif bound > _INFORMATIVE * max(spread, np.finfo(np.float64).tiny) and other.size > 1:
        weak = (
            f"output {name} amplifies rounding: the allowed {bound:.2g} is {bound / spread:.0%} of its range, "
            "so that the end-to-end comparison says little; the probes decide"
        )
    return Check("end to end", name, wrong == 0, float(error[index]), bound, index, detail), weak


def _compare_discrete(
    name: str, found: Array, expected: Array, noisy: Sequence[Array], tolerance: Tolerance
) -> tuple[Check, str]:
    """Compare an output of integers, booleans or strings by the share of elements that differ."""
    size = max(expected.size, 1)
    floor = max((float(np.mean(run != expected)) if run.size else 0.0 for run in noisy), default=0.0)
    share = float(np.sum(found != expected)) / size
    bound = tolerance.margin * floor
    weak = f"output {name} is discrete and {floor:.0%} of it flips under rounding" if bound > _INFORMATIVE else ""
    detail = f"share of {expected.size} elements that differ; {floor:.2g} flip under rounding"
    return Check("end to end", name, share <= bound, share, bound, None, detail), weak
