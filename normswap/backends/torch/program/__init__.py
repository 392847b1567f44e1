"""Exported programs: find, rewrite and run BatchNorms that are nodes of torch.export's graphs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.export import ExportedProgram

from normswap.backends import Feed, Run
from normswap.backends.differences import structure_checks
from normswap.backends.inputs import BATCH
from normswap.backends.torch.program import inputs as _inputs
from normswap.backends.torch.program import running as _running
from normswap.backends.torch.program.find import find, nested_graphs, sites
from normswap.backends.torch.program.model import ProgramModel, load, resolver
from normswap.backends.torch.program.probe import CutLayer, cut_layers
from normswap.backends.torch.program.rewrite import rewrite
from normswap.backends.torch.program.running import run_reference
from normswap.backends.torch.program.save import Writing, check_target, save
from normswap.backends.torch.program.structure import compare_structure as _compare_structure
from normswap.data.declared import Declared
from normswap.errors import UnsupportedModelError
from normswap.layer import Array, NormLayer
from normswap.plan import Plan
from normswap.report import Check
from normswap.words import counted

__all__ = [
    "DECLARES_INPUTS",
    "GATHERS",
    "RUNS_ELSEWHERE",
    "WAYS",
    "CutLayer",
    "ProgramModel",
    "Writing",
    "check_in_place",
    "check_target",
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
    "remarks",
    "rewrite",
    "rewrite_in_place",
    "run",
    "run_reference",
    "save",
    "without_statistics",
]

WAYS = ("exported",)  # as the module that the program gives
DECLARES_INPUTS = True
RUNS_ELSEWHERE = False
GATHERS = False


def public(model: ProgramModel) -> ExportedProgram:
    """Return what the caller gets: the program."""
    return model.program


def observe(model: ProgramModel, feeds: Callable[[ProgramModel], Sequence[Feed]], *, given: bool) -> ProgramModel:
    """Return the model itself: tracing has told all that there is to see."""
    return model


def notes(model: ProgramModel) -> list[str]:
    """Say what was done to the program when it was loaded."""
    return list(model.notes)


def without_statistics(model: ProgramModel) -> ProgramModel:
    """Return the model itself: updates of running statistics are no outputs to a caller."""
    return model


def prepare(model: ProgramModel) -> ProgramModel:
    """Return the model itself: targets can be written in any program."""
    return model


def remarks(model: ProgramModel, layers: Sequence[NormLayer]) -> list[str]:
    """Return sentences for people, the most important first."""
    said = notes(model)
    graphs = [model.program.graph]
    graphs += [graph for _, _, graph, _ in nested_graphs(model.program.graph_module, resolver(model.program))]
    kinds = Counter(str(node.target).rpartition(".")[0] for graph in graphs for node in graph.nodes)
    if not layers:
        said.append("no BatchNorm is left in this program")
    own = kinds["aten.instance_norm"] + kinds["aten.group_norm"] + kinds["aten.native_group_norm"]
    if own:
        said.append(f"it normalizes each sample by itself already in {own} instance_norm or group_norm operators")
    return said


def check_in_place(model: ProgramModel, plan: Plan) -> None:
    """Refuse: only an nn.Module has an identity that others hold on to.

    Raises:
        UnsupportedModelError: Always.
    """
    raise UnsupportedModelError("in_place is for an nn.Module; take conversion.model, or give output a file name")


rewrite_in_place = check_in_place


def compare_structure(before: ProgramModel, after: ProgramModel, plan: Plan) -> list[Check]:
    """Compare everything outside the plan; one check, or one for each difference."""
    names = {layer.name for layer in plan.layers}
    planned = {
        site.node.y.name: site.layer.name
        for site in sites(before)
        if site.layer.name in names and site.node is not None
    }
    found = _compare_structure(before.program, after.program, planned)
    compared = f"{counted(found.nodes, 'node')} and {counted(found.tensors, 'tensor')} ({found.bytes:,} bytes)"
    return structure_checks("graph", found.differences, compared, names)


def run(model: ProgramModel, arrays: Mapping[str, Any], *, how: str) -> Run:
    """Run a program in one of WAYS, its random numbers seeded."""
    return _running.run(model, arrays)


def declared(model: ProgramModel) -> tuple[Declared, ...]:
    """Return nothing: programs are not run on data."""
    return ()


def feeds(
    model: ProgramModel, inputs: Any, shapes: Mapping[str, tuple[int, ...]], seed: int, batch: int = BATCH
) -> list[Feed]:
    """Return end-to-end inputs: those given, else the program's examples, else generated ones to try in turn."""
    return _inputs.feeds(model.program, inputs, shapes, seed, batch)


def plain(model: ProgramModel, arrays: Mapping[str, Any]) -> dict[str, Array]:
    """Return inputs of the program as arrays in their order, for another framework."""
    return _inputs.plain(arrays)


def fit(model: ProgramModel, arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Take arrays as the program's inputs: by name where the names are its own, else by order."""
    return _inputs.fit(model.program, arrays)
