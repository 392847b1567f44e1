"""Exported programs: find, rewrite and run BatchNorms that are nodes of torch.export's graphs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from normswap.backends.torch.program import running as _running
from normswap.backends.torch.program.compare import compare
from normswap.backends.torch.program.find import find, nested_graphs
from normswap.backends.torch.program.inputs import ProgramInputs
from normswap.backends.torch.program.model import ProgramModel, load, resolver
from normswap.backends.torch.program.probe import cut
from normswap.backends.torch.program.rewrite import rewrite
from normswap.backends.torch.program.running import run_reference
from normswap.backends.torch.program.save import ProgramWriting, check_target
from normswap.backends.values import Feed, Run
from normswap.layer import NormLayer

__all__ = [
    "WAYS",
    "ProgramModel",
    "check_target",
    "compare",
    "cut",
    "find",
    "inputs",
    "load",
    "prepare",
    "remarks",
    "rewrite",
    "run",
    "run_reference",
    "writing",
]

WAYS: Sequence[str] = ("exported",)  # as the module that the program gives


def inputs(model: ProgramModel) -> ProgramInputs:
    """Return the inputs of a model."""
    return ProgramInputs(model.program)


def prepare(model: ProgramModel) -> ProgramModel:
    """Return the model itself: targets can be written in any program."""
    return model


def remarks(model: ProgramModel, layers: Sequence[NormLayer]) -> list[str]:
    """Return sentences for people, the most important first."""
    found = list(model.notes)
    graphs = [model.program.graph]
    graphs += [graph for _, _, graph, _ in nested_graphs(model.program.graph_module, resolver(model.program))]
    kinds = Counter(str(node.target).rpartition(".")[0] for graph in graphs for node in graph.nodes)
    if not layers:
        found.append("no BatchNorm is left in this program")
    own = kinds["aten.instance_norm"] + kinds["aten.group_norm"] + kinds["aten.native_group_norm"]
    if own:
        found.append(f"it normalizes each sample by itself already in {own} instance_norm or group_norm operators")
    return found


def run(model: ProgramModel, arrays: Mapping[str, Any], *, how: str) -> Run:
    """Run a program, its random numbers seeded."""
    return _running.run(model, arrays)


def writing(
    model: ProgramModel, path: str | os.PathLike[str], *, force: bool = False, feeds: Sequence[Feed] | None = None
) -> ProgramWriting:
    """Begin to write a model aside."""
    return ProgramWriting(model, path, force=force)
