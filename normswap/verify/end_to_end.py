"""Third witness: the whole model against the original under its stated meaning.

What is allowed is measured: how far the original itself moves when each of its layers is perturbed by as much as
rounding may do, times a margin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from normswap.backends import Backend
from normswap.backends.candidates import Candidate, run_in
from normswap.backends.values import Feed, Run
from normswap.errors import CannotRunError
from normswap.layer import Array
from normswap.norms import NORMS, Blend, Norm
from normswap.norms.rounding import UNIT_ROUNDOFF, Tolerance
from normswap.plan import Plan
from normswap.report import Check, Picture, Progress
from normswap.verify.pictures import pictures_of

__all__ = ["EndToEnd", "end_to_end", "original_elsewhere"]

_INFORMATIVE = 0.1  # a bound above this fraction of the output's spread tells little


@dataclass(frozen=True, eq=False)
class EndToEnd:
    """What the third witness said.

    Attributes:
        checks: One for each output and way of running the converted model.
        source: Where the inputs are from.
        notes: What a reader must know.
        pictures: The outputs that are images.
        arrays: The inputs.
    """

    checks: tuple[Check, ...]
    source: str
    notes: tuple[str, ...]
    pictures: tuple[Picture, ...]
    arrays: Mapping[str, Any]


def end_to_end(
    backend: Backend,
    before: Any,
    candidates: Mapping[str, Candidate],
    plan: Plan,
    feeds: Sequence[Feed],
    tolerance: Tolerance,
    seed: int,
    progress: Progress,
    *,
    tell_apart: bool = False,
) -> EndToEnd:
    """Run the whole model and compare each output.

    Args:
        backend: Of the original.
        before: The original.
        candidates: What is held to it, by how each is run.
        plan: The target and the layers.
        feeds: Inputs to try until one runs.
        tolerance: Margins of the comparison.
        seed: Of the noise.
        progress: Called with (stage, done, total).
        tell_apart: Also say how far off the other meanings of the same layers would be.

    Raises:
        CannotRunError: If the original runs on none of ``feeds``.
    """
    total = 1 + len(candidates) + tolerance.runs
    progress("running the original", 0, total)
    feed, expected = _first_that_runs(backend, before, plan, feeds)
    found: dict[str, Mapping[str, Array]] = {}
    failed: list[Check] = []
    told: list[str] = []
    for how, candidate in candidates.items():
        progress("running the converted model", 1 + len(found), total)
        try:
            ran = candidate.run(feed.arrays)
        except CannotRunError as error:
            failed.append(Check("end to end", how, ok=False, detail=f"the converted model does not run: {error}"))
            continue
        told += ran.notes
        paired = _paired(ran.outputs, expected.outputs, candidate.by_order)
        if isinstance(paired, str):
            failed.append(Check("end to end", how, ok=False, detail=paired))
        else:
            found[how] = paired
    noisy: list[Mapping[str, Array]] = []
    checks: list[Check] = []
    while len(noisy) < tolerance.runs or (
        len(noisy) < tolerance.most_runs
        and not failed
        and not all(check.ok for check in checks)
        and all(check.ok or check.bound is not None for check in checks)  # noise explains no other shape
    ):
        progress("measuring the noise floor", total - tolerance.runs + len(noisy), max(total, len(noisy)))
        draw = seed + 1 + len(noisy)
        noisy.append(backend.run_reference(before, plan, feed.arrays, noise=tolerance.noise, seed=draw).outputs)
        checks = [
            _compare_output(f"{name} ({how})", outputs[name], value, [run[name] for run in noisy], tolerance)
            for how, outputs in found.items()
            for name, value in expected.outputs.items()
        ]
    weak = _weak(expected.outputs, checks)
    notes = [*dict.fromkeys((*expected.notes, *told)), *weak.values()]
    if tolerance.margin != Tolerance.margin:
        said = f"outputs may be off by {tolerance.margin:g} times the noise floor, as asked for"
        notes.append(f"{said}, where {Tolerance.margin:g} is the default")
    if len(noisy) > tolerance.runs:
        notes.append(
            f"the noise floor was measured over {len(noisy)} runs, because {tolerance.runs} did not explain it"
        )
    unseen = [layer.name for layer in plan.layers if expected.calls.get(layer.name, 1) == 0]
    if unseen:
        notes.append(
            f"end to end did not reach {', '.join(unseen)} with these inputs; only structure and probes saw them"
        )
    if tell_apart and checks:
        said_of_others, causes = _other_meanings(backend, before, plan, feed, expected.outputs, found, checks)
        notes += said_of_others
        checks = [check if check.ok else replace(check, cause=_cause_of(check, causes)) for check in checks]
        if all(check.ok for check in checks) and weak.keys() == expected.outputs.keys():
            said = "every output is constant or amplifies rounding, so that nothing is shown; give other inputs"
            failed.append(Check("end to end", "inputs", ok=False, detail=said))
    pictures = pictures_of(expected.outputs, found, checks)
    return EndToEnd((*failed, *checks), feed.source, tuple(notes), tuple(pictures), feed.arrays)


def original_elsewhere(backend: Backend, before: Any, runtimes: Sequence[str], run: EndToEnd) -> list[str]:
    """Say of each runtime in which the conversion failed how far off the original, as it is, is there."""
    said = []
    for how in runtimes:
        failed = {
            check.name.removesuffix(f" ({how})"): check.error
            for check in run.checks
            if not check.ok and check.name.endswith(f" ({how})") and check.error is not None
        }
        if not failed:
            continue
        try:
            here = backend.run(before, run.arrays, how=backend.WAYS[0]).outputs
            there = run_in(backend, before, run.arrays, how).outputs
        except CannotRunError as error:
            said.append(f"{how} does not run the original, as it is, either: {error}")
            continue
        off = _ratio(there, {name: here[name] for name in failed}, dict.fromkeys(failed, 1.0))
        blame = "the conversion need not be to blame" if off > max(failed.values()) / 10 else "it errs in what is new"
        said.append(
            f"the original, as it is, is off by {off:.2g} in {how}, the converted model by {max(failed.values()):.2g}: "
            f"{blame}"
        )
    return said


def _other_meanings(
    backend: Backend,
    before: Any,
    plan: Plan,
    feed: Feed,
    expected: Mapping[str, Array],
    found: Mapping[str, Mapping[str, Array]],
    checks: Sequence[Check],
) -> tuple[list[str], dict[str, str]]:
    """Say of the other targets whether these inputs would have shown them, and by how it was run, which one it is."""
    said: list[str] = []
    causes: dict[str, str] = {}
    bounds = {
        name: max((c.bound for c in checks if c.bound and c.name.startswith(f"{name} (")), default=0.0)
        for name in expected
    }
    for norm in _others(plan.norm):
        layers = tuple(layer for layer in plan.layers if norm.refuse(layer) is None)
        if not layers:
            continue
        try:
            other = backend.run_reference(before, Plan(norm, layers), feed.arrays, noise=0.0, seed=0).outputs
        except CannotRunError:
            continue
        ratio = _ratio(other, expected, bounds)
        causes |= {
            how: f"looks as if {norm.name} were computed instead ({norm.meaning})"
            for how, outputs in found.items()
            if _ratio(outputs, expected, bounds) > 1 >= _ratio(outputs, other, bounds)
        }
        if ratio > 1:
            said.append(f"{norm.name} ({norm.meaning}) would be off by {ratio:.2g} times what is allowed")
        else:
            said.append(
                f"these inputs do not tell {plan.norm.name} from {norm.name} ({norm.meaning}), "
                f"which differs by {ratio:.2g} times what is allowed"
            )
    return said, causes


def _cause_of(check: Check, causes: Mapping[str, str]) -> str:
    return next((cause for how, cause in causes.items() if check.name.endswith(f" ({how})")), "")


def _others(norm: Norm) -> list[Norm]:
    """List what could be taken for a target: the meanings without parameters, and a blend with other statistics."""
    others = [other for other in NORMS.values() if not other.parameters and other.name != norm.name]
    if isinstance(norm, Blend):
        others.append(Blend(norm.prior, "batch" if norm.by_sample else "sample"))
    return others


def _ratio(one: Mapping[str, Array], other: Mapping[str, Array], bounds: Mapping[str, float]) -> float:
    """The largest difference of two sets of outputs, as a multiple of what is allowed."""
    ratios = [0.0]
    for name, value in other.items():
        if value.dtype.kind not in "fV" or not value.size or not bounds[name]:
            continue
        if one[name].shape != value.shape:
            return math.inf
        difference = np.abs(one[name].astype(np.float64) - value.astype(np.float64))
        ratios.append(float(np.max(np.nan_to_num(difference, nan=0.0))) / bounds[name])
    return max(ratios)


def _paired(found: Mapping[str, Array], expected: Mapping[str, Array], by_order: bool) -> Mapping[str, Array] | str:
    """Give outputs the names of the original's, or say why that cannot be."""
    if not by_order:
        return found if found.keys() == expected.keys() else "the outputs have other names"
    if len(found) != len(expected):
        return (
            f"outputs are paired by their order, and there are {len(found)} ({', '.join(found)}) where the original "
            f"has {len(expected)} ({', '.join(expected)})"
        )
    return dict(zip(expected, found.values(), strict=True))


def _first_that_runs(backend: Backend, before: Any, plan: Plan, feeds: Sequence[Feed]) -> tuple[Feed, Run]:
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


def _compare_output(name: str, found: Array, expected: Array, noisy: Sequence[Array], tolerance: Tolerance) -> Check:
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
    if np.isnan(floor):  # the original itself becomes NaN under rounding: nothing can be said
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


def _weak(outputs: Mapping[str, Array], checks: Sequence[Check]) -> dict[str, str]:
    """Say of which outputs the comparison says little or nothing, by their names."""
    said = {}
    for name, value in outputs.items():
        bounds = [check.bound for check in checks if check.bound is not None and check.name.startswith(f"{name} (")]
        if not bounds or value.size < 2:
            continue
        spread = 1.0
        if value.dtype.kind in "fV":
            numbers = value.astype(np.float64)[np.isfinite(value.astype(np.float64))]
            spread = float(np.ptp(numbers)) if numbers.size else 0.0
        if not spread:
            said[name] = f"output {name} is constant or not finite, so that end to end says little of it"
        elif bounds[0] > _INFORMATIVE * spread:
            said[name] = (
                f"output {name} amplifies rounding: the allowed {bounds[0]:.2g} is {bounds[0] / spread:.0%} of its "
                "range, so that end to end says little of it"
            )
    return said
