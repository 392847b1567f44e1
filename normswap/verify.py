"""verify: three witnesses that a conversion computes what its target states, weakest last.

1. Structure: outside the planned layers nothing changed. With that proved, only the layers can differ.
2. Probes: each layer's operators, cut out alone, against float64 arithmetic, within a derived bound.
3. End to end: the whole model against the original under its stated meaning, computed by other kernels,
   within the noise floor of the original itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from normswap.backends import Backend, Feed
from normswap.errors import CannotRunError
from normswap.layer import Array, Floats, NormLayer
from normswap.plan import Plan
from normswap.probes import probes, with_stand_ins
from normswap.report import Check, Report
from normswap.tolerance import UNIT_ROUNDOFF, Tolerance, rounding_bound

__all__ = ["Progress", "verify_conversion"]

Progress: TypeAlias = Callable[[str, int, int], None]

_INFORMATIVE = 0.1  # a bound above this fraction of the output's spread tells little


def verify_conversion(
    backend: Backend,
    before: Any,
    after: Any,
    plan: Plan,
    *,
    feeds: Sequence[Feed] | None,
    tolerance: Tolerance | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Hold a converted model to its plan.

    Args:
        backend: Of both models.
        before: The original.
        after: What is claimed to be its conversion.
        plan: The target and the layers.
        feeds: End-to-end inputs to try until one runs; None leaves the third witness out.
        tolerance: Margins of the end-to-end comparison.
        seed: Of the probes.
        progress: Called with (stage, done, total) as the work goes on.

    Raises:
        CannotRunError: If none of ``feeds`` runs.
    """
    progress = progress or (lambda stage, done, total: None)
    notes = [f"{kept.layer.name}: left as it is ({kept.reason})" for kept in plan.kept]
    notes += [f"{refusal.layer.name}: REFUSED, left as it is ({refusal.reason})" for refusal in plan.refusals]
    notes += backend.notes(before)
    checks = list(backend.compare_structure(before, after, plan))
    probed, probe_notes = probe_layers(backend, before, after, plan, seed, progress)
    checks += probed
    notes += probe_notes
    source = "left out on request"
    if feeds is None:
        notes.append("end to end was left out on request: the model as a whole was not run")
    elif any(not check.ok for check in checks if check.witness == "structure"):
        notes.append("end to end was not run, because the structure differs")
    else:
        run, source, run_notes = end_to_end(
            backend, before, after, plan, feeds, tolerance or Tolerance(), seed, progress
        )
        checks += run
        notes += run_notes
    return Report(
        target=plan.norm.name,
        meaning=plan.norm.meaning,
        planned=tuple(layer.name for layer in plan.layers),
        checks=tuple(checks),
        notes=tuple(notes),
        inputs=source,
    )


def probe_layers(
    backend: Backend, before: Any, after: Any, plan: Plan, seed: int, progress: Progress
) -> tuple[list[Check], list[str]]:
    """Probe every planned layer; return one check each, and what the probes could not do as meant."""
    checks: dict[str, Check] = {}
    guessed: list[str] = []
    for cut in backend.cut_layers(before, after, plan):
        progress("probing layers", len(checks), len(plan.layers))
        if any(getattr(cut.layer, name) is None for name in ("weight", "bias")):
            guessed.append(cut.layer.name)
        checks[cut.layer.name] = _probe(plan, cut, with_stand_ins(cut.layer, seed), seed)
    if plan.norm.name == "population":  # stored statistics of any size, since the layer's own hide a wrong eps
        for cut in backend.cut_layers(before, after, plan, free=("running_mean", "running_var")):
            if checks[cut.layer.name].ok:
                checks[cut.layer.name] = _probe(plan, cut, _with_small_statistics(cut.layer, seed), seed)
    notes = []
    if guessed:
        notes.append(
            f"weight and bias of {', '.join(guessed)} are given at run time; the probes used stand-in values"
        )
    return list(checks.values()), notes


def _with_small_statistics(layer: NormLayer, seed: int) -> NormLayer:
    """Put running statistics about eps and 1 in place of the layer's own."""
    layer = with_stand_ins(layer, seed)
    assert layer.running_mean is not None and layer.running_var is not None, "population refuses others"
    rng = np.random.default_rng(seed)
    eps = layer.eps if layer.eps > 0 else 1e-5
    sizes = np.where(np.arange(layer.running_var.size) % 2, 1.0, eps)
    return replace(
        layer,
        running_mean=rng.uniform(-1, 1, layer.running_mean.shape).astype(layer.running_mean.dtype),
        running_var=(sizes * rng.uniform(0.5, 2, layer.running_var.shape)).astype(layer.running_var.dtype),
    )


def _probe(plan: Plan, cut: Any, layer: NormLayer, seed: int) -> Check:
    """Run one cut-out on all probes and return its worst comparison."""
    if cut.trouble:
        return Check("probes", cut.layer.name, ok=False, detail=f"could not be run alone: {cut.trouble}")
    worst: Check | None = None
    for probe in probes(layer, cut.rank, seed):
        x = probe.x.astype(np.float64)
        expected = plan.norm.reference(probe.x, layer)
        bound = rounding_bound(plan.norm, x, layer, expected)
        try:
            outputs = cut(probe.x, layer)
        except CannotRunError as error:
            return Check("probes", cut.layer.name, ok=False, detail=f"input {probe.name}: {error}")
        for how, found in outputs.items():
            check = _compare(cut.layer.name, found, expected, bound, f"input {probe.name}, {how}", layer.dtype)
            if worst is None or (not check.ok, check.ratio) > (not worst.ok, worst.ratio):
                worst = check
    assert worst is not None, "there are always probes"
    return worst


def _compare(
    name: str, found: Array, expected: Floats, bound: Floats, detail: str, dtype: str
) -> Check:
    """Compare one output of a probe with exact arithmetic, element by element."""
    if found.shape != expected.shape:
        return Check(
            "probes", name, ok=False, detail=f"{detail}: expected shape {expected.shape}, found {found.shape}"
        )
    found64 = found.astype(np.float64)
    defined = ~(np.isnan(expected) & np.isinf(bound))  # 0 / 0, where eps and the variance are both 0
    finite = np.isfinite(expected)
    same = np.where(np.isnan(expected), np.isnan(found64), found64 == expected)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.where(finite, np.abs(found64 - expected), np.where(same | ~defined, 0.0, np.inf))
        overflow = finite & np.isinf(found64) & (np.abs(expected) + bound > _largest(dtype))
        error = np.where(overflow, 0.0, error)
        error = np.where(np.isnan(error), np.inf, error)
        allowed = np.where(finite, bound, 1.0)
        ratio = error / allowed
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(ratio)), ratio.shape))
    wrong = int(np.sum(ratio > 1))
    if wrong:
        detail += f"; {wrong} of {ratio.size} elements"
    return Check("probes", name, wrong == 0, float(error[index]), float(allowed[index]), index, detail)


def _largest(dtype: str) -> float:
    return {"float16": 65504.0, "bfloat16": 3.38e38, "float32": 3.4e38}.get(dtype, 1.79e308)


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
        noisy.append(
            backend.run_reference(before, plan, feed.arrays, noise=tolerance.noise, seed=seed + 1 + index)
        )
    checks: list[Check] = []
    notes: list[str] = list(expected.notes)
    for index, how in enumerate(backend.WAYS):
        progress("running the converted model", 1 + tolerance.runs + index, total)
        try:
            found = backend.run(after, plan, feed.arrays, how=how)
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
        (float(np.max(np.abs(np.where(finite, n.astype(np.float64) - other, 0.0)))) for n in noisy), default=0.0
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

