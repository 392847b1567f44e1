"""Third witness: the whole model against the original under its stated meaning.

What is allowed is measured: how far the original itself moves when each of its layers is perturbed by as much as
rounding may do, times a margin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from normswap.backends import Backend
from normswap.backends.candidates import Candidate, run_in
from normswap.backends.values import Feed, Run
from normswap.errors import CannotRunError
from normswap.layer import Array
from normswap.norms import NORMS, Norm
from normswap.options import Tolerance
from normswap.plan import Plan
from normswap.report import Check, Picture, Progress
from normswap.verify.outputs import compare_output, difference, paired, uninformative
from normswap.verify.pictures import pictures_of

__all__ = ["EndToEnd", "end_to_end", "original_elsewhere"]


@dataclass(frozen=True, eq=False)
class EndToEnd:
    """What the third witness found.

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
    remarks: list[str] = []
    for how, candidate in candidates.items():
        progress("running the converted model", 1 + len(found), total)
        try:
            ran = candidate.run(feed.arrays)
        except CannotRunError as error:
            failed.append(Check("end to end", how, ok=False, detail=f"the converted model does not run: {error}"))
            continue
        remarks += ran.notes
        outputs = paired(ran.outputs, expected.outputs, candidate.by_order)
        if isinstance(outputs, str):
            failed.append(Check("end to end", how, ok=False, detail=outputs))
        else:
            found[how] = outputs
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
            compare_output(f"{name} ({how})", outputs[name], value, [run[name] for run in noisy], tolerance)
            for how, outputs in found.items()
            for name, value in expected.outputs.items()
        ]
    weak = uninformative(expected.outputs, checks)
    notes = [*dict.fromkeys((*expected.notes, *remarks)), *weak.values()]
    if tolerance.margin != Tolerance.margin:
        notes.append(
            f"outputs may be off by {tolerance.margin:g} times the noise floor, as requested; "
            f"the default is {Tolerance.margin:g}"
        )
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
        remarks, causes = _other_meanings(backend, before, plan, feed, expected.outputs, found, checks)
        notes += remarks
        checks = [check if check.ok else replace(check, cause=_cause_of(check, causes)) for check in checks]
        if all(check.ok for check in checks) and weak.keys() == expected.outputs.keys():
            detail = "every output is constant or amplifies rounding, so that nothing is shown; give other inputs"
            failed.append(Check("end to end", "inputs", ok=False, detail=detail))
    pictures = pictures_of(expected.outputs, found, checks)
    return EndToEnd((*failed, *checks), feed.source, tuple(notes), tuple(pictures), feed.arrays)


def original_elsewhere(backend: Backend, before: Any, runtimes: Sequence[str], run: EndToEnd) -> list[str]:
    """Say of each runtime in which the conversion failed how far off the original, as it is, is there."""
    notes = []
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
            notes.append(f"{how} does not run the original, as it is, either: {error}")
            continue
        off = difference(there, {name: here[name] for name in failed}, dict.fromkeys(failed, 1.0))
        blame = "the conversion need not be to blame" if off > max(failed.values()) / 10 else "it errs in what is new"
        notes.append(
            f"the original, as it is, is off by {off:.2g} in {how}, the converted model by {max(failed.values()):.2g}: "
            f"{blame}"
        )
    return notes


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
    notes: list[str] = []
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
        ratio = difference(other, expected, bounds)
        causes |= {
            how: f"looks as if {norm.name} was computed instead ({norm.meaning})"
            for how, outputs in found.items()
            if difference(outputs, expected, bounds) > 1 >= difference(outputs, other, bounds)
        }
        if ratio > 1:
            notes.append(f"{norm.name} ({norm.meaning}) would be off by {ratio:.2g} times what is allowed")
        else:
            notes.append(
                f"these inputs do not tell {plan.norm.name} from {norm.name} ({norm.meaning}), "
                f"which differs by {ratio:.2g} times what is allowed"
            )
    return notes, causes


def _cause_of(check: Check, causes: Mapping[str, str]) -> str:
    return next((cause for how, cause in causes.items() if check.name.endswith(f" ({how})")), "")


def _others(norm: Norm) -> list[Norm]:
    """List what could be taken for a target: the targets without parameters, and those that the target names."""
    return [other for other in NORMS.values() if not other.takes and other.name != norm.name] + list(norm.lookalikes)


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
