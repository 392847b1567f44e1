"""ONNX: find, rewrite and run models as protobuf graphs, in ONNX Runtime.

The graph is edited as the protobuf that it is, not through an intermediate representation, so that what the
plan does not name stays as it was, byte for byte.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

import onnx

from normswap.backends import Feed, Run
from normswap.backends.differences import recalibration_checks, structure_checks
from normswap.backends.inputs import BATCH, read_arrays
from normswap.backends.onnx_graph import rewrite as _rewrite
from normswap.backends.onnx_graph.collect import Gatherer
from normswap.backends.onnx_graph.elsewhere import run_elsewhere
from normswap.backends.onnx_graph.find import find, sites
from normswap.backends.onnx_graph.graph.calls import raise_for_endless_calls
from normswap.backends.onnx_graph.graph.model import OnnxModel
from normswap.backends.onnx_graph.graph.model import load as _load
from normswap.backends.onnx_graph.graph.save import Writing, check_target, save
from normswap.backends.onnx_graph.graph.scopes import first_output
from normswap.backends.onnx_graph.inputs import Signature, check_feed, generate, signature
from normswap.backends.onnx_graph.opset import raised as prepare
from normswap.backends.onnx_graph.outputs import without_statistics
from normswap.backends.onnx_graph.probe import CutLayer, cut_layers
from normswap.backends.onnx_graph.recalibrate import cannot_store, recalibrated
from normswap.backends.onnx_graph.runtime import Session
from normswap.backends.onnx_graph.structure import Replaced
from normswap.backends.onnx_graph.structure import compare_structure as _compare_structure
from normswap.backends.onnx_graph.survey import remarks
from normswap.backends.onnx_graph.witness import fix_randomness, witness
from normswap.errors import CannotRunError, UnsupportedModelError
from normswap.layer import Array
from normswap.plan import Plan
from normswap.report import Check
from normswap.words import counted

__all__ = [
    "DECLARES_INPUTS",
    "GATHERS",
    "RUNS_ELSEWHERE",
    "VARIANCE",
    "WAYS",
    "CutLayer",
    "Gatherer",
    "OnnxModel",
    "Writing",
    "cannot_store",
    "check_in_place",
    "check_target",
    "compare_recalibrated",
    "compare_structure",
    "cut_layers",
    "declared",
    "feeds",
    "find",
    "fit",
    "load",
    "notes",
    "observe",
    "plain",
    "prepare",
    "public",
    "recalibrated",
    "remarks",
    "rewrite",
    "rewrite_in_place",
    "run",
    "run_reference",
    "save",
    "without_statistics",
]

WAYS = ("as written", "optimized")  # without ONNX Runtime's graph optimisations, and with its default ones
DECLARES_INPUTS = True
RUNS_ELSEWHERE = True
GATHERS = True
VARIANCE = "biased"  # as BatchNormalization defines running_var


def load(source: str | os.PathLike[str] | onnx.ModelProto | OnnxModel) -> OnnxModel:
    """Read a model from a file, or take one in memory.

    Raises:
        ModelReadError: If the file is none of ONNX.
        UnsupportedModelError: If its local functions call one another without end, or nearly so.
    """
    if isinstance(source, OnnxModel):
        return source
    model = OnnxModel(source) if isinstance(source, onnx.ModelProto) else _load(source)
    raise_for_endless_calls(model)
    return model


def public(model: OnnxModel) -> OnnxModel:
    """Return what the caller gets: the model with its file, if it has one."""
    return model


def observe(model: OnnxModel, feeds: Callable[[OnnxModel], Sequence[Feed]], *, given: bool) -> OnnxModel:
    """Return the model itself: a graph says everything without being run."""
    return model


def notes(model: OnnxModel) -> list[str]:
    """Say what was done to the model when it was prepared."""
    return list(model.notes)


def rewrite(model: OnnxModel, plan: Plan) -> OnnxModel:
    """Return a converted copy that records the conversion in its metadata."""
    from normswap.version import __version__

    return _rewrite.rewrite(model, plan, version=__version__)


def check_in_place(model: OnnxModel, plan: Plan) -> None:
    """Refuse: only an nn.Module has an identity that others hold on to.

    Raises:
        UnsupportedModelError: Always.
    """
    raise UnsupportedModelError("in_place is for an nn.Module; take conversion.model, or give output a file name")


rewrite_in_place = check_in_place


def compare_structure(before: OnnxModel, after: OnnxModel, plan: Plan) -> list[Check]:
    """Compare everything outside the plan; one check, or one for each difference."""
    names = {layer.name for layer in plan.layers}
    planned: dict[tuple[str, ...], dict[str, Replaced]] = {}
    for site in sites(before):
        if site.layer.name in names:
            body, y = site.key
            planned.setdefault(body, {})[y] = Replaced(site.layer.name, frozenset(site.inputs), (site.mean, site.var))
    found = _compare_structure(before, after, planned)
    compared = f"{counted(found.nodes, 'node')} and {counted(found.tensors, 'tensor')} ({found.bytes:,} bytes)"
    return structure_checks("graph", found.differences, compared, names)


def compare_recalibrated(before: OnnxModel, after: OnnxModel, names: Sequence[str]) -> list[Check]:
    """Compare everything but the running statistics of the layers named; one check, or one for each difference."""
    statistics: dict[str, list[int]] = {}
    for site in sites(before):
        for slot in (site.mean_slot, site.var_slot):
            if site.layer.name in names and slot is not None:
                statistics.setdefault(first_output(slot.node), []).append(slot.position)
    found = _compare_structure(before, after, {}, statistics)
    compared = f"{counted(found.nodes, 'node')} and {counted(found.tensors, 'other tensor')} ({found.bytes:,} bytes)"
    return recalibration_checks("graph", found.differences, compared, len(names))


def run(model: OnnxModel, arrays: Mapping[str, Array], *, how: str) -> Run:
    """Run a model in one of WAYS or in another runtime, its random operators seeded."""
    fixed, random = fix_randomness(model)
    if how not in WAYS:
        if random:
            raise CannotRunError(
                f"it draws random numbers ({', '.join(sorted(set(random)))}), and {how} would draw others than ONNX "
                "Runtime, so that nothing could be compared"
            )
        return run_elsewhere(fixed, arrays, how)
    return Run(Session(fixed, optimize=how == "optimized").run(arrays))


def run_reference(model: OnnxModel, plan: Plan, arrays: Mapping[str, Array], *, noise: float, seed: int) -> Run:
    """Run the original with its planned layers switched to the target's stated meaning.

    Its random operators are seeded as in ``run``, so that both draw the same numbers.
    """
    fixed, found = fix_randomness(model)
    session = Session(witness(fixed, plan, noise=noise, seed=seed), optimize=False, count_calls=not noise)
    outputs = session.run(arrays)
    ran = session.calls()
    said = f"random operators ({', '.join(sorted(set(found)))}) were given fixed seeds to be compared"
    return Run(
        outputs,
        # The nodes of a function are renamed when the runtime inlines it, so that theirs are not known.
        calls={layer.name: ran.get(f"{layer.name}/witness", 0) for layer in plan.layers if ran and not layer.body},
        notes=(said,) if found else (),
    )


def declared(model: OnnxModel) -> tuple[Signature, ...]:
    """Return the inputs that have no default, as the graph declares them."""
    return signature(model)


def feeds(
    model: OnnxModel,
    inputs: Mapping[str, Array] | str | os.PathLike[str] | None,
    shapes: Mapping[str, tuple[int, ...]],
    seed: int,
    batch: int = BATCH,
) -> list[Feed]:
    """Return end-to-end inputs: those given, else generated ones to try in turn."""
    if inputs is None:
        return [Feed(arrays, source) for arrays, source in generate(model, shapes, seed, batch)]
    if isinstance(inputs, Mapping):
        return [Feed(check_feed(model, inputs), "given by the caller")]
    known = {value.name for value in model.proto.graph.input}
    arrays = read_arrays(inputs)  # it may hold expected outputs beside
    wanted = {name: array for name, array in arrays.items() if name in known} or arrays
    return [Feed(check_feed(model, wanted), f"given: {os.fspath(inputs)}")]


def plain(model: OnnxModel, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return inputs in the order of the graph's."""
    order = [value.name for value in model.proto.graph.input]
    return {name: arrays[name] for name in sorted(arrays, key=order.index)}


def fit(model: OnnxModel, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Take arrays as the graph's inputs: by name where the names are its own, else by order.

    Raises:
        CannotRunError: If they are too few or too many, or of another type or shape.
    """
    names = [value.name for value in signature(model)]
    if set(names) <= set(arrays):
        return check_feed(model, {name: arrays[name] for name in names})
    if len(names) != len(arrays):
        raise CannotRunError(
            f"the inputs are {len(arrays)} arrays ({', '.join(arrays)}), where the graph takes {len(names)} "
            f"({', '.join(names)})"
        )
    return check_feed(model, dict(zip(names, arrays.values(), strict=True)))
