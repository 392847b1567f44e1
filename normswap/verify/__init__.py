"""verify: three witnesses that a conversion computes what its target states, weakest last.

1. Structure: outside the planned layers nothing changed. With that proved, only the layers can differ.
2. Probes: each layer's operators, cut out alone, against float64 arithmetic, within a derived bound.
3. End to end: the whole model against the original under its stated meaning, computed by other kernels,
   within the noise floor of the original itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from normswap.backends import Backend
from normswap.backends.candidates import Candidate, candidates_of, runtimes_of
from normswap.backends.values import Feed
from normswap.options import Options, Tolerance
from normswap.plan import Plan
from normswap.report import Check, Report
from normswap.verify.end_to_end import end_to_end, original_elsewhere
from normswap.verify.probes import probe_layers
from normswap.words import some

__all__ = ["verify_across", "verify_conversion"]


def _silent(stage: str, done: int, total: int) -> None:
    """Show no progress."""


def verify_conversion(
    backend: Backend,
    before: Any,
    after: Any,
    plan: Plan,
    options: Options = Options(),
    *,
    feeds: Sequence[Feed] | None,
    more: Mapping[str, Candidate] | None = None,
    may_differ: tuple[str, ...] = (),
) -> Report:
    """Hold a converted model to its plan.

    Args:
        backend: Of both models.
        before: The original.
        after: What is claimed to be its conversion.
        plan: The target and the layers.
        options: Their runtimes, tolerance, seed and progress are used.
        feeds: End-to-end inputs to try until one runs; None leaves the third witness out.
        more: What else is held to the original end to end: files that the conversion was exported to.
        may_differ: Names of planned layers whose own checks may fail. The whole model is then held to an original in
            which these are as they were, or not at all if they are not.

    Raises:
        CannotRunError: If none of ``feeds`` runs.
    """
    progress = options.progress or _silent
    notes = list(before.notes)
    checks = list(backend.compare(before, after, plan))
    probed, probe_notes = probe_layers(backend, before, after, plan, options.seed, progress)
    checks += probed
    notes += probe_notes
    failed = {check.name for check in checks if not check.ok}
    differing = tuple(name for name in may_differ if name in failed)
    if idle := [name for name in may_differ if name not in failed]:
        notes.append(f"allowed to differ, but equal: {some(idle)}")
    whole: Plan | str = "end to end was left out on request: the model as a whole was not run"
    if feeds is not None:
        whole = _plan_of_whole(backend, before, after, plan, checks, differing)
    run = None
    if isinstance(whole, str):
        notes.append(whole)
    else:
        if differing:
            notes.append(f"end to end was judged with layers as in the original, as they may be: {some(differing)}")
        elsewhere = runtimes_of(backend, options.runtimes)
        candidates = candidates_of(backend, after, elsewhere) | dict(more or {})
        tolerance = options.tolerance or Tolerance()
        run = end_to_end(backend, before, candidates, whole, feeds or (), tolerance, options.seed, progress)
        checks += run.checks
        notes += [*run.notes, *original_elsewhere(backend, before, elsewhere, run)]
    return Report.for_plan(
        plan,
        checks,
        notes=notes,
        inputs=run.source if run else "none: end to end was not run",
        may_differ=may_differ,
        pictures=run.pictures if run else (),
    )


def _plan_of_whole(
    backend: Backend, before: Any, after: Any, plan: Plan, checks: Sequence[Check], differing: Sequence[str]
) -> Plan | str:
    """Return the plan that the model as a whole can be held to, or say why there is none.

    A layer that differs, as it may, can be left out of the plan if it is as it was in the original.
    """
    if any(not check.ok and check.name not in differing for check in checks if check.witness == "structure"):
        return "end to end was not run, because the structure differs"
    if not differing:
        return plan
    rest = replace(plan, layers=tuple(layer for layer in plan.layers if layer.name not in differing))
    if not rest.layers:
        return "every converted layer differs, as allowed, so that nothing was shown"
    if not all(check.ok for check in backend.compare(before, after, rest)):
        return (
            f"end to end was not judged, because of layers that are neither as before nor as meant: {some(differing)}"
        )
    return rest


def verify_across(
    backend: Backend,
    before: Any,
    after_backend: Backend,
    after: Any,
    plan: Plan,
    options: Options,
    *,
    feeds: Sequence[Feed],
) -> Report:
    """Hold a model of another framework to an original: end to end alone, inputs and outputs paired by their order.

    The two have no names in common, so that nothing else can be compared; the report shows whether the inputs can
    tell the target from the other meanings that the same BatchNorms have.

    Args:
        backend: Of the original.
        before: The original.
        after_backend: Of the other model.
        after: The other model, an export of a conversion, say.
        plan: The target and the layers.
        options: Their runtimes, tolerance, seed and progress are used.
        feeds: Inputs of the original to try until one runs.

    Raises:
        CannotRunError: If the original runs on none of ``feeds``.
    """
    candidates = candidates_of(after_backend, after, options.runtimes, backend.inputs(before).to_arrays)
    run = end_to_end(
        backend,
        before,
        candidates,
        plan,
        feeds,
        options.tolerance or Tolerance(),
        options.seed,
        options.progress or _silent,
        tell_apart=True,
    )
    limit = "the two models are of different frameworks: only outputs were compared, paired by their order"
    return Report.for_plan(
        plan,
        run.checks,
        notes=(limit, *before.notes, *run.notes),
        inputs=run.source,
        needed=("end to end",),
        pictures=run.pictures,
    )
