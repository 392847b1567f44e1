"""The pipeline on one screen: find, plan, convert, verify."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normswap.backends import Backend, backend_for
from normswap.errors import SelectionError
from normswap.layer import Array, NormLayer
from normswap.norms import NORMS
from normswap.plan import Plan, make_plan, nearest
from normswap.report import Progress, Report
from normswap.tolerance import Tolerance
from normswap.verify import verify_conversion

__all__ = ["Conversion", "convert", "find", "plan", "save", "verify"]


@dataclass(frozen=True, eq=False)
class Conversion:
    """What ``convert`` returns.

    Attributes:
        model: The converted model; the original is untouched.
        plan: What was changed, what not, and why.
        report: How the result was verified.
        written: The file that was written, None where none was asked for or the report is not ok.
    """

    model: Any
    plan: Plan
    report: Report
    written: Path | None = None


def find(model: Any) -> tuple[NormLayer, ...]:
    """Return every BatchNorm of a model, whatever its form.

    Args:
        model: Path of an .onnx file, or an onnx.ModelProto.

    Raises:
        ModelReadError: If the file cannot be read.
    """
    backend = backend_for(model)
    return backend.find(backend.load(model))


def plan(
    model: Any, to: str, *, only: Sequence[str] = (), skip: Sequence[str] = (), drop_statistics: bool = False
) -> Plan:
    """Say what converting the model would change, what not, and why.

    Args:
        model: Path of an .onnx file, or an onnx.ModelProto.
        to: Name of the target, one of normswap.NORMS.
        only: Globs; if any are given, only layers that match one are converted.
        skip: Globs; layers that match one are left as they are.
        drop_statistics: Drop outputs of the model that carry nothing but running statistics of such layers.

    Raises:
        ModelReadError: If the file cannot be read.
        SelectionError: If the target is unknown or a glob matches nothing.
    """
    backend = backend_for(model)
    return _plan(backend, _loaded(backend, model, drop_statistics), to, only, skip)


def convert(
    model: Any,
    to: str,
    *,
    inputs: Mapping[str, Array] | str | os.PathLike[str] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    allow_refusals: bool = False,
    drop_statistics: bool = False,
    end_to_end: bool = True,
    tolerance: Tolerance | None = None,
    seed: int = 0,
    output: str | os.PathLike[str] | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Convert a model and verify the result; look at ``report.ok`` before using it.

    Args:
        model: Path of an .onnx file, or an onnx.ModelProto; never changed.
        to: Name of the target, one of normswap.NORMS.
        inputs: End-to-end inputs by name, or an .npz file of them; generated from the signature if not given.
        shapes: Shapes of generated inputs, by input name.
        only: Globs; if any are given, only layers that match one are converted.
        skip: Globs; layers that match one are left as they are.
        allow_refusals: Leave refused layers as they are instead of raising.
        drop_statistics: Drop outputs of the model that carry nothing but running statistics of such layers.
        end_to_end: Run the whole model too.
        tolerance: Margins of the end-to-end comparison.
        seed: Of generated inputs and probes.
        output: A file to write the converted model to, if the report is ok.
        force: Replace an existing ``output``.
        progress: Called with (stage, done, total) as the work goes on.

    Raises:
        ModelReadError: If the file cannot be read.
        ModelWriteError: If ``output`` exists, is the source, or cannot be written.
        SelectionError: If the target is unknown or a glob matches nothing.
        RefusedLayersError: If selected layers cannot take the target.
        NothingToConvertError: If no layer would change.
        UnsupportedModelError: If the model's opset is too old and cannot be raised.
        CannotRunError: If the model does not run and ``end_to_end`` is wanted.

    Example:
        >>> import normswap
        >>> conversion = normswap.convert("fixtures/lowlight.onnx", to="instance")
        >>> conversion.report.ok
        True
        >>> normswap.save(conversion.model, "lowlight_instance.onnx")  # doctest: +SKIP
    """
    backend = backend_for(model)
    loaded = _loaded(backend, model, drop_statistics)
    planned = _plan(backend, loaded, to, only, skip)
    _raise_for_plan(planned, allow_refusals)
    if output is not None:
        backend.check_target(loaded, output, force=force)
    before = backend.prepare(loaded)
    converted = backend.rewrite(before, planned)
    feeds = backend.feeds(before, inputs, shapes or {}, seed) if end_to_end else None
    # The copying of large weights goes on while the result is verified; only what holds is put in place.
    with nullcontext() if output is None else backend.Writing(converted, output, force=force) as writing:
        report = verify_conversion(
            backend,
            before,
            converted,
            planned,
            feeds=feeds,
            tolerance=tolerance,
            seed=seed,
            progress=progress,
        )
        written = writing.commit() if writing is not None and report.ok else None
    return Conversion(converted, planned, report, written)


def verify(
    before: Any,
    after: Any,
    to: str,
    *,
    inputs: Mapping[str, Array] | str | os.PathLike[str] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    allow_refusals: bool = False,
    drop_statistics: bool = False,
    end_to_end: bool = True,
    tolerance: Tolerance | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Hold a converted model to its original under the target's stated meaning.

    Arguments and exceptions are those of ``convert``; ``after`` is the converted model.
    """
    backend = backend_for(before)
    original = _loaded(backend, before, drop_statistics)
    planned = _plan(backend, original, to, only, skip)
    _raise_for_plan(planned, allow_refusals)
    prepared = backend.prepare(original)
    return verify_conversion(
        backend,
        prepared,
        backend.load(after),
        planned,
        feeds=backend.feeds(prepared, inputs, shapes or {}, seed) if end_to_end else None,
        tolerance=tolerance,
        seed=seed,
        progress=progress,
    )


def save(model: Any, path: str | os.PathLike[str], *, force: bool = False) -> None:
    """Write a converted model; the file appears whole or not at all.

    Args:
        model: ``Conversion.model``.
        path: The file to write; external data go to ``<path>.data`` beside it.
        force: Replace an existing file.

    Raises:
        ModelWriteError: If the target exists, is the source, or cannot be written.
    """
    backend_for(model).save(model, path, force=force)


def _loaded(backend: Backend, model: Any, drop_statistics: bool) -> Any:
    loaded = backend.load(model)
    return backend.without_statistics(loaded) if drop_statistics else loaded


def _plan(backend: Backend, model: Any, to: str, only: Sequence[str], skip: Sequence[str]) -> Plan:
    if to not in NORMS:
        raise SelectionError(f"unknown target {to!r}{nearest(to, NORMS)}; known are {', '.join(NORMS)}")
    return make_plan(NORMS[to], backend.find(model), only=only, skip=skip)


def _raise_for_plan(planned: Plan, allow_refusals: bool) -> None:
    if not allow_refusals:
        planned.raise_for_refusals()
    planned.raise_for_nothing()
