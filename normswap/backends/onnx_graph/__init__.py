"""ONNX: find, rewrite and run models as protobuf graphs, in ONNX Runtime.

The graph is edited as the protobuf that it is, not through an intermediate representation, so that what the
plan does not name stays as it was, byte for byte.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import onnx

from normswap.backends.onnx_graph import rewrite as _rewrite
from normswap.backends.onnx_graph.collect import GraphCollector
from normswap.backends.onnx_graph.compare import compare, compare_recalibrated
from normswap.backends.onnx_graph.elsewhere import run_in
from normswap.backends.onnx_graph.find import find
from normswap.backends.onnx_graph.graph.calls import raise_for_endless_calls
from normswap.backends.onnx_graph.graph.model import OnnxModel
from normswap.backends.onnx_graph.graph.model import load as _load
from normswap.backends.onnx_graph.graph.save import GraphWriting, check_target
from normswap.backends.onnx_graph.inputs import GraphInputs
from normswap.backends.onnx_graph.opset import raised as prepare
from normswap.backends.onnx_graph.outputs import without_statistics
from normswap.backends.onnx_graph.probe import cut
from normswap.backends.onnx_graph.recalibrate import cannot_store, recalibrated
from normswap.backends.onnx_graph.runtime import Session
from normswap.backends.onnx_graph.survey import remarks
from normswap.backends.onnx_graph.witness import fix_randomness, witness
from normswap.backends.values import Feed, Run, Variance
from normswap.errors import CannotRunError
from normswap.layer import Array
from normswap.plan import Plan

__all__ = [
    "VARIANCE",
    "WAYS",
    "OnnxModel",
    "cannot_store",
    "check_target",
    "collector",
    "compare",
    "compare_recalibrated",
    "cut",
    "find",
    "inputs",
    "load",
    "opset",
    "prepare",
    "recalibrated",
    "remarks",
    "rewrite",
    "run",
    "run_elsewhere",
    "run_reference",
    "writing",
]

WAYS: Sequence[str] = (
    "as written",
    "optimized",
)  # without ONNX Runtime's graph optimisations, and with its default ones
VARIANCE: Variance = "biased"  # as BatchNormalization defines running_var


def load(source: str | os.PathLike[str] | onnx.ModelProto | OnnxModel, *, drop_statistics: bool = False) -> OnnxModel:
    """Read a model from a file, or take one in memory.

    Args:
        source: The file, or the model.
        drop_statistics: Drop outputs that carry nothing but running statistics.

    Raises:
        ModelReadError: If the file is not an ONNX model.
        UnsupportedModelError: If its local functions call one another without end, or nearly so.
    """
    if isinstance(source, OnnxModel):
        model = source
    else:
        model = OnnxModel(source) if isinstance(source, onnx.ModelProto) else _load(source)
        raise_for_endless_calls(model)
    return without_statistics(model) if drop_statistics else model


def inputs(model: OnnxModel) -> GraphInputs:
    """Return the inputs of a model."""
    return GraphInputs(model)


def opset(model: OnnxModel) -> int:
    """Return the version of the default operator set."""
    return model.opset


def rewrite(model: OnnxModel, plan: Plan) -> OnnxModel:
    """Return a converted copy that records the conversion in its metadata."""
    from normswap.version import __version__

    return _rewrite.rewrite(model, plan, version=__version__)


def run(model: OnnxModel, arrays: Mapping[str, Array], *, how: str) -> Run:
    """Run a model in one of WAYS, its random operators seeded."""
    fixed, _ = fix_randomness(model)
    return Run(Session(fixed, optimize=how == "optimized").run(arrays))


def run_elsewhere(model: OnnxModel, arrays: Mapping[str, Array], *, runtime: str) -> Run:
    """Run a model in another runtime.

    Raises:
        CannotRunError: If it draws random numbers, or the runtime cannot run it.
    """
    _, random = fix_randomness(model)
    if random:
        raise CannotRunError(
            f"it draws random numbers ({', '.join(sorted(set(random)))}), and {runtime} would draw others than ONNX "
            "Runtime, so that nothing could be compared"
        )
    return run_in(runtime, model, arrays)


def run_reference(model: OnnxModel, plan: Plan, arrays: Mapping[str, Array], *, noise: float, seed: int) -> Run:
    """Run the original with its planned layers switched to the target's stated meaning.

    Its random operators are seeded as in ``run``, so that both draw the same numbers.
    """
    fixed, found = fix_randomness(model)
    session = Session(witness(fixed, plan, noise=noise, seed=seed), optimize=False, count_calls=not noise)
    outputs = session.run(arrays)
    ran = session.calls()
    note = f"random operators ({', '.join(sorted(set(found)))}) were given fixed seeds to be compared"
    return Run(
        outputs,
        # The nodes of a function are renamed when the runtime inlines it, so that theirs are not known.
        calls={layer.name: ran.get(f"{layer.name}/witness", 0) for layer in plan.layers if ran and not layer.body},
        notes=(note,) if found else (),
    )


def collector(model: OnnxModel, plan: Plan, names: Sequence[str]) -> GraphCollector:
    """Rewrite a copy by the plan, and make the inputs of these layers seen."""
    return GraphCollector(model, plan, names)


def writing(
    model: OnnxModel, path: str | os.PathLike[str], *, force: bool = False, feeds: Sequence[Feed] | None = None
) -> GraphWriting:
    """Begin to write a model aside."""
    return GraphWriting(model, path, force=force)
