"""The pipeline on one screen: look, plan, convert, verify, save."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from normswap.backends import backend_for, writing_backend
from normswap.backends import save as write
from normswap.backends.candidates import exported_candidates
from normswap.backends.generated import samples_for
from normswap.backends.inputs import feeds_as_declared
from normswap.backends.look import look, source_of
from normswap.backends.protocols import RewritesInPlace, RunsElsewhere
from normswap.backends.values import Feed
from normswap.errors import CannotRunError, SelectionError, UnsupportedModelError
from normswap.layer import NormLayer
from normswap.options import Converting, Planning, Scope, Verifying, takes
from normswap.plan import Plan
from normswap.report import Report
from normswap.runtimes import RUNTIMES, check_runtimes
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
        inputs: Inputs that an nn.Module is run on once, on a copy, to see the shapes of its layers and functional
            calls in it; without them it is not run, and its code is read.

    Raises:
        ModelReadError: If the file cannot be read.
        UnsupportedModelError: If the model as a whole cannot be handled.
        CannotRunError: If ``inputs`` do not fit the model.
    """
    return look(model, Scope(inputs=inputs)).layers


@takes(Planning)
def plan(asked: Planning) -> Plan:
    """Decide what converting the model would change, what not, and why.

    Raises:
        ModelReadError: If the file cannot be read.
        SelectionError: If the target or the runtime is unknown, a parameter of the target is missing or of no use, or
            a glob matches nothing.
    """
    return look(asked.model, asked).plan(asked.norm, asked, asked.for_runtime)


@takes(Converting)
def convert(asked: Converting) -> Conversion:
    """Convert a model and verify the result; look at ``report.ok`` before using it.

    Raises:
        ModelReadError: If the file cannot be read.
        ModelWriteError: If ``output`` exists, is the source, or cannot be written.
        SelectionError: If the target or a runtime is unknown, a parameter of the target is missing or of no use, a glob
            matches nothing, or a runtime takes no such file.
        RefusedLayersError: If selected layers cannot take the target, or have no form that ``for_runtime`` computes
            correctly.
        NothingToConvertError: If no layer would change.
        UnsupportedModelError: If the model as a whole cannot be handled: an opset that cannot be raised, a module
            that cannot be copied, or not converted in place.
        CannotRunError: If the model does not run, or a runtime is not installed, and ``end_to_end`` is wanted.

    Examples:
        >>> import normswap
        >>> conversion = normswap.convert("fixtures/lowlight.onnx", to="instance")
        >>> conversion.report.ok
        True
        >>> normswap.save(conversion.model, "lowlight_instance.onnx")  # doctest: +SKIP
    """
    backend, output = backend_for(asked.model), asked.output
    if asked.for_runtime in RUNTIMES and asked.end_to_end:
        asked = replace(asked, runtimes=(*asked.runtimes, asked.for_runtime))
    elsewhere = isinstance(backend, RunsElsewhere) or (output is not None and Path(output).suffix == ".onnx")
    check_runtimes(asked.runtimes, elsewhere)
    writer = None if output is None else writing_backend(backend)
    source = source_of(asked, asked.seed, asked.runtimes)

    def feeds_of(model: Any) -> list[Feed]:
        return source.feeds(backend, model)

    looked = look(asked.model, asked, feeds_of if asked.end_to_end or asked.inputs is not None else None)
    planned = looked.plan(asked.norm, asked, asked.for_runtime)
    planned.raise_for_trouble(asked.allow_refusals)
    in_place = backend if asked.in_place and isinstance(backend, RewritesInPlace) else None
    if asked.in_place and in_place is None:
        raise UnsupportedModelError("in_place is for an nn.Module; take conversion.model, or give output a file name")
    if in_place is not None:
        in_place.check_in_place(looked.model, planned)
    if writer is not None and output is not None:
        writer.check_target(looked.model, output, force=asked.force)
    before = backend.prepare(looked.model)
    converted = backend.rewrite(before, planned)
    feeds = feeds_of(before) if asked.end_to_end else None
    # The copying of large weights goes on while the result is verified; only what holds is put in place.
    with (
        nullcontext()
        if writer is None or output is None
        else writer.writing(converted, output, force=asked.force, feeds=feeds)
    ) as writing:
        exported = None if writing is None else writing.exported
        more = exported_candidates(backend, before, exported, Path(output or "").name, asked.runtimes)
        report = verify_conversion(backend, before, converted, planned, asked, feeds=feeds, more=more)
        written = writing.commit() if writing is not None and report.ok else None
    if in_place is not None and report.ok:
        in_place.rewrite_in_place(looked.model, planned)
        return Conversion(asked.model, planned, report, written)
    return Conversion(converted.public, planned, report, written)


@takes(Verifying)
def verify(asked: Verifying) -> Report:
    """Hold a converted model to its original under the target's stated meaning.

    The two may be of different frameworks (an nn.Module and the .onnx file that was exported from it). Then only their
    outputs are compared, paired by order, and the report names that limit.

    The report names the layers of ``may_differ`` that differ, its verdict counts them, and everything else has to
    hold. When the whole model is run, such a layer is taken as it was in the original; if it is neither that nor its
    conversion, end to end is not judged, and the report names that too.

    Raises:
        NormswapError: In the kinds of ``convert``.
    """
    backend, after_backend = backend_for(asked.before), backend_for(asked.after)
    check_runtimes(asked.runtimes, isinstance(after_backend, RunsElsewhere))
    if asked.may_differ and backend is not after_backend:
        raise SelectionError(
            "the two models are of different frameworks and are compared end to end only, so that none of their layers "
            "may differ; leave out may_differ (--may-differ)"
        )
    other = after_backend.load(asked.after)
    source = source_of(asked, asked.seed, asked.runtimes)

    def feeds_of(model: Any) -> list[Feed]:
        inputs = after_backend.inputs(other)
        if asked.inputs is None and not asked.shapes and inputs.declared and not backend.inputs(model).declared:
            batch = samples_for(asked.runtimes)
            return feeds_as_declared(backend, model, inputs, seed=asked.seed, batch=batch)
        return source.feeds(backend, model)

    looked = look(asked.before, asked, feeds_of if asked.end_to_end or asked.inputs is not None else None)
    planned = looked.plan(asked.norm, asked)
    planned.raise_for_trouble(asked.allow_refusals)
    allowed = planned.named(asked.may_differ)
    before = backend.prepare(looked.model)
    feeds = feeds_of(before) if asked.end_to_end else None
    if backend is after_backend:
        return verify_conversion(backend, before, other, planned, asked, feeds=feeds, may_differ=allowed)
    if feeds is None:
        raise CannotRunError(
            "the two models are of different frameworks and can only be compared end to end; leave out --no-end-to-end"
        )
    return verify_across(backend, before, after_backend, other, planned, asked, feeds=feeds)


def save(model: Any, path: str | os.PathLike[str], *, force: bool = False) -> None:
    """Write a converted model; the file appears whole or not at all.

    Args:
        model: ``Conversion.model``.
        path: The file to write; external data of ONNX go to ``<path>.data`` in the same folder. For an nn.Module the
            weights are written (.pth, .safetensors).
        force: Replace an existing file.

    Raises:
        ModelWriteError: If the target exists, is the source, or cannot be written.
    """
    backend = backend_for(model)
    write(backend, backend.load(model), path, force=force)
