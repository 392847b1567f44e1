"""The pipeline on one screen: find, plan, convert, verify."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normswap.backends import Backend, Feed, backend_for
from normswap.backends.inputs import BATCH, BATCH_ELSEWHERE
from normswap.errors import CannotRunError, SelectionError
from normswap.layer import NormLayer
from normswap.norms import Norm, make_norm
from normswap.norms.blend import Over
from normswap.norms.rounding import Tolerance
from normswap.plan import Plan, make_plan
from normswap.report import Progress, Report
from normswap.runtimes import OWN, RUNTIMES, check_runtimes
from normswap.runtimes.choice import choose_for
from normswap.verify import verify_across, verify_conversion

__all__ = ["Conversion", "convert", "find", "plan", "save", "verify"]


@dataclass(frozen=True, eq=False)
class Conversion:
    """What ``convert`` returns.

    Attributes:
        model: The converted model, of the original's kind; an ONNX model comes with its file, if it has one.
        plan: What was changed, what not, and why.
        report: How the result was verified.
        written: The file that was written, None where none was asked for or the report is not ok.
    """

    model: Any
    plan: Plan
    report: Report
    written: Path | None = None


def find(model: Any, *, inputs: Any = None) -> tuple[NormLayer, ...]:
    """Return every BatchNorm of a model, whatever its form.

    Args:
        model: Path of an .onnx or .pt2 file, an onnx.ModelProto, an nn.Module or an ExportedProgram.
        inputs: What an nn.Module is run with once, on a copy, to see the shapes of its layers and functional calls
            in it; without them it is not run, and its code is read.

    Raises:
        ModelReadError: If the file cannot be read.
        UnsupportedModelError: If the model as a whole cannot be handled.
        CannotRunError: If ``inputs`` do not fit the model.
    """
    backend = backend_for(model)
    return backend.find(_seen(backend, _loaded(backend, model), inputs))


def plan(
    model: Any,
    to: str,
    *,
    prior: float | None = None,
    over: Over | None = None,
    inputs: Any = None,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    drop_statistics: bool = False,
    for_runtime: str | None = None,
) -> Plan:
    """Say what converting the model would change, what not, and why.

    Args:
        model: Path of an .onnx or .pt2 file, an onnx.ModelProto, an nn.Module or an ExportedProgram.
        to: Name of the target, one of normswap.NORMS.
        prior: Of ``blend``: as how many samples the stored statistics count beside those of the input.
        over: Of ``blend``: whether these are of each ``sample``, as if nothing is given, or of the ``batch``.
        inputs: What an nn.Module is run with once, as in ``find``.
        only: Globs; if any are given, only layers that match one are converted.
        skip: Globs; layers that match one are left as they are.
        drop_statistics: Drop outputs of the model that carry nothing but running statistics of such layers.
        for_runtime: Write each layer of an ONNX model in the form that this runtime computes rightly and fastest.

    Raises:
        ModelReadError: If the file cannot be read.
        SelectionError: If the target or the runtime is unknown, a parameter of the target is missing or of no use, or
            a glob matches nothing.
    """
    norm = make_norm(to, prior=prior, over=over)
    backend = backend_for(model)
    seen = _seen(backend, _loaded(backend, model, drop_statistics), inputs)
    return _plan(backend, seen, norm, only, skip, for_runtime)


def convert(
    model: Any,
    to: str,
    *,
    prior: float | None = None,
    over: Over | None = None,
    inputs: Any = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    allow_refusals: bool = False,
    drop_statistics: bool = False,
    end_to_end: bool = True,
    tolerance: Tolerance | None = None,
    seed: int = 0,
    in_place: bool = False,
    output: str | os.PathLike[str] | None = None,
    force: bool = False,
    for_runtime: str | None = None,
    runtimes: Sequence[str] = (),
    progress: Progress | None = None,
) -> Conversion:
    """Convert a model and verify the result; look at ``report.ok`` before using it.

    Args:
        model: Path of an .onnx or .pt2 file, an onnx.ModelProto, an nn.Module or an ExportedProgram; never changed,
            unless ``in_place`` asks for it.
        to: Name of the target, one of normswap.NORMS.
        prior: Of ``blend``: as how many samples the stored statistics count beside those of the input.
        over: Of ``blend``: whether these are of each ``sample``, as if nothing is given, or of the ``batch``.
        inputs: End-to-end inputs: arrays by name, or an .npz file of them; for a torch model a tensor, a tuple of
            positional arguments, or a mapping of named ones. Generated if not given, which of an nn.Module takes a
            guess at the shape that its first layer wants; the report says what was used.
        shapes: Shapes of generated inputs, by input name.
        only: Globs; if any are given, only layers that match one are converted.
        skip: Globs; layers that match one are left as they are.
        allow_refusals: Leave refused layers as they are instead of raising.
        drop_statistics: Drop outputs of the model that carry nothing but running statistics of such layers.
        end_to_end: Run the whole model too.
        tolerance: Margins of the end-to-end comparison.
        seed: Of generated inputs and probes.
        in_place: Convert the caller's own nn.Module, if the report of the copy is ok: the outer module stays the same
            object, and every weight and bias the same Parameter, as optimizers and tied modules know them.
        output: A file to write the converted model to, if the report is ok. For an nn.Module the suffix says as
            what: weights (.pth, .safetensors), or an export (.onnx, .pt2) that is verified too.
        force: Replace an existing ``output``.
        for_runtime: Write each layer of an ONNX model in the form that this runtime computes rightly and fastest, by
            ``normswap.runtimes.table``, and run the converted model there too if normswap can.
        runtimes: Where else the converted .onnx file is run end to end, keys of ``normswap.runtimes.RUNTIMES``.
        progress: Called with (stage, done, total) as the work goes on.

    Raises:
        ModelReadError: If the file cannot be read.
        ModelWriteError: If ``output`` exists, is the source, or cannot be written.
        SelectionError: If the target or a runtime is unknown, a parameter of the target is missing or of no use, a glob
            matches nothing, or a runtime takes no such file.
        RefusedLayersError: If selected layers cannot take the target, or have no form that ``for_runtime`` computes
            rightly.
        NothingToConvertError: If no layer would change.
        UnsupportedModelError: If the model as a whole cannot be handled: an opset that cannot be raised, a module
            that cannot be copied, or not converted in place.
        CannotRunError: If the model does not run, or a runtime is not installed, and ``end_to_end`` is wanted.

    Example:
        >>> import normswap
        >>> conversion = normswap.convert("fixtures/lowlight.onnx", to="instance")
        >>> conversion.report.ok
        True
        >>> normswap.save(conversion.model, "lowlight_instance.onnx")  # doctest: +SKIP
    """
    norm = make_norm(to, prior=prior, over=over)
    backend = backend_for(model)
    if for_runtime in RUNTIMES and end_to_end:
        runtimes = (*runtimes, for_runtime)
    _check_runtimes(runtimes, backend.RUNS_ELSEWHERE or (output is not None and Path(output).suffix == ".onnx"))
    loaded = _loaded(backend, model, drop_statistics)

    def feeds_of(model: Any) -> list[Feed]:
        return backend.feeds(model, inputs, shapes or {}, seed, _batch(runtimes))

    if end_to_end or inputs is not None:
        loaded = backend.observe(loaded, feeds_of, given=inputs is not None)
    planned = _plan(backend, loaded, norm, only, skip, for_runtime)
    _raise_for_plan(planned, allow_refusals)
    if in_place:
        backend.check_in_place(loaded, planned)
    if output is not None:
        backend.check_target(loaded, output, force=force)
    before = backend.prepare(loaded)
    converted = backend.rewrite(before, planned)
    feeds = feeds_of(before) if end_to_end else None
    # The copying of large weights goes on while the result is verified; only what holds is put in place.
    with (
        nullcontext()
        if output is None
        else backend.Writing(converted, output, force=force, feeds=feeds, runtimes=runtimes)
    ) as writing:
        report = verify_conversion(
            backend,
            before,
            converted,
            planned,
            feeds=feeds,
            more=writing.candidates if writing is not None else {},
            runtimes=runtimes,
            tolerance=tolerance,
            seed=seed,
            progress=progress,
        )
        written = writing.commit() if writing is not None and report.ok else None
    if in_place and report.ok:
        backend.rewrite_in_place(loaded, planned)
        return Conversion(model, planned, report, written)
    return Conversion(backend.public(converted), planned, report, written)


def verify(
    before: Any,
    after: Any,
    to: str,
    *,
    prior: float | None = None,
    over: Over | None = None,
    inputs: Any = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    may_differ: Sequence[str] = (),
    allow_refusals: bool = False,
    drop_statistics: bool = False,
    end_to_end: bool = True,
    tolerance: Tolerance | None = None,
    seed: int = 0,
    runtimes: Sequence[str] = (),
    progress: Progress | None = None,
) -> Report:
    """Hold a converted model to its original under the target's stated meaning.

    The two may be of different frameworks (an nn.Module and the .onnx file that was made of it): then their outputs
    are compared, paired by order, and the report says that this is all that was. Arguments and exceptions are those
    of ``convert``; ``after`` is the converted model.

    ``may_differ`` are globs of converted layers whose own checks may fail: the report names those that differ, its
    verdict says how many, and everything else has to hold. Such a layer is taken as it was in the original when the
    whole model is run; where it is not that either, end to end is not judged, and the report says so.
    """
    norm = make_norm(to, prior=prior, over=over)
    backend, after_backend = backend_for(before), backend_for(after)
    _check_runtimes(runtimes, after_backend.RUNS_ELSEWHERE)
    if may_differ and backend is not after_backend:
        raise SelectionError(
            "the two models are of different frameworks, which are compared end to end alone, so that no layer of them "
            "may differ; leave may_differ (--may-differ) out"
        )
    other = after_backend.load(after)

    def feeds_of(model: Any) -> list[Feed]:
        if inputs is None and not shapes and after_backend.DECLARES_INPUTS and not backend.DECLARES_INPUTS:
            return _feeds_of_other(backend, model, after_backend, other, seed, _batch(runtimes))
        return backend.feeds(model, inputs, shapes or {}, seed, _batch(runtimes))

    original = _loaded(backend, before, drop_statistics)
    if end_to_end or inputs is not None:
        original = backend.observe(original, feeds_of, given=inputs is not None)
    planned = _plan(backend, original, norm, only, skip)
    _raise_for_plan(planned, allow_refusals)
    allowed = planned.named(may_differ)
    prepared = backend.prepare(original)
    feeds = feeds_of(prepared) if end_to_end else None
    if backend is after_backend:
        return verify_conversion(
            backend,
            prepared,
            other,
            planned,
            feeds=feeds,
            runtimes=runtimes,
            may_differ=allowed,
            tolerance=tolerance,
            seed=seed,
            progress=progress,
        )
    if feeds is None:
        raise CannotRunError(
            "the two models are of different frameworks, which can only be compared end to end; "
            "leave out --no-end-to-end"
        )
    return verify_across(
        backend,
        prepared,
        after_backend,
        other,
        planned,
        feeds=feeds,
        runtimes=runtimes,
        tolerance=tolerance,
        seed=seed,
        progress=progress,
    )


def save(model: Any, path: str | os.PathLike[str], *, force: bool = False) -> None:
    """Write a converted model; the file appears whole or not at all.

    Args:
        model: ``Conversion.model``.
        path: The file to write; external data of ONNX go to ``<path>.data`` beside it, of an nn.Module the weights
            are written (.pth, .safetensors).
        force: Replace an existing file.

    Raises:
        ModelWriteError: If the target exists, is the source, or cannot be written.
    """
    backend = backend_for(model)
    backend.save(backend.load(model), path, force=force)


def _loaded(backend: Backend, model: Any, drop_statistics: bool = False) -> Any:
    loaded = backend.load(model)
    return backend.without_statistics(loaded) if drop_statistics else loaded


def _seen(backend: Backend, model: Any, inputs: Any) -> Any:
    """With inputs, see what only a run of a model tells."""
    if inputs is None:
        return model
    return backend.observe(model, lambda loaded: backend.feeds(loaded, inputs, {}, 0), given=True)


def _feeds_of_other(
    backend: Backend, model: Any, other_backend: Backend, other: Any, seed: int, batch: int
) -> list[Feed]:
    """Make inputs by what another model declares to take, as inputs of one that declares nothing."""
    feeds = []
    for feed in other_backend.feeds(other, None, {}, seed, batch):
        with suppress(CannotRunError):
            arrays = backend.fit(model, other_backend.plain(other, feed.arrays))
            feeds.append(Feed(arrays, f"{feed.source}, as the converted model declares them"))
    return feeds or backend.feeds(model, None, {}, seed, batch)


def _plan(
    backend: Backend, model: Any, norm: Norm, only: Sequence[str], skip: Sequence[str], for_runtime: str | None = None
) -> Plan:
    choose = choose_for(norm, for_runtime, model.opset if backend.RUNS_ELSEWHERE else None)
    return make_plan(norm, backend.find(model), only=only, skip=skip, choose=choose)


def _batch(runtimes: Sequence[str]) -> int:
    return BATCH_ELSEWHERE if set(runtimes) - set(OWN) else BATCH


def _check_runtimes(names: Sequence[str], taken: bool) -> None:
    check_runtimes(names)
    if names and not taken:
        raise SelectionError(f"{names[0]} runs .onnx files, and none comes of this; leave the runtime out")


def _raise_for_plan(planned: Plan, allow_refusals: bool) -> None:
    if not allow_refusals:
        planned.raise_for_refusals()
    planned.raise_for_nothing()
