"""ProgramModel: an ExportedProgram as the backend holds it, and what its signature says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec

from normswap.backends.torch.nodes import Resolve, attribute
from normswap.backends.torch.program.archive import read_program
from normswap.errors import UnsupportedModelError

__all__ = ["ProgramModel", "inputs_of", "load", "output_of", "resolver", "stored_value"]


@dataclass(frozen=True, eq=False)
class ProgramModel:
    """An exported program.

    Attributes:
        program: Never changed, nor are its tensors.
        notes: What was done to it when it was loaded.
        path: The file that it was read from, None for one in memory.
    """

    program: ExportedProgram
    notes: tuple[str, ...] = ()
    path: Path | None = None

    @property
    def public(self) -> ExportedProgram:
        """What the caller gets: the program."""
        return self.program


def load(
    source: str | os.PathLike[str] | ExportedProgram | ProgramModel, *, drop_statistics: bool = False
) -> ProgramModel:
    """Read a program from a .pt2 file, or take one in memory; updates of its statistics are no outputs to drop.

    Raises:
        ModelReadError: If the file is missing, damaged, unsafe, or holds no program.
        UnsupportedModelError: If the program has no values to work with.
    """
    if isinstance(source, ProgramModel):
        return source
    path = None if isinstance(source, ExportedProgram) else Path(source)
    program = source if isinstance(source, ExportedProgram) else read_program(Path(source))
    tensors = {**program.state_dict, **program.constants}
    empty = [name for name, value in tensors.items() if isinstance(value, FakeTensor) or _is_meta(value)]
    if empty:
        raise UnsupportedModelError(
            f"{empty[0]} has a shape but no values, as in a program that was exported under FakeTensorMode or on the "
            "meta device; export the model with its weights"
        )
    return ProgramModel(program, path=path)


def _is_meta(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_meta


def inputs_of(program: ExportedProgram) -> Iterator[tuple[InputSpec, fx.Node]]:
    """Yield what each placeholder of the graph stands for."""
    placeholders = (node for node in program.graph.nodes if node.op == "placeholder")
    yield from zip(program.graph_signature.input_specs, placeholders, strict=True)


def output_of(graph: fx.Graph) -> fx.Node:
    """Return the node that says what a graph returns."""
    (node,) = graph.find_nodes(op="output")
    assert isinstance(node, fx.Node)
    return node


def stored_value(program: ExportedProgram, spec: InputSpec) -> Any:
    """Return the parameter, buffer or constant that an input stands for; None for what the caller gives."""
    if spec.kind == InputKind.USER_INPUT or spec.target is None:
        return None
    if spec.target in program.state_dict and spec.persistent is not False:
        return program.state_dict[spec.target]
    if spec.target in program.constants:
        return program.constants[spec.target]
    return attribute(program.graph_module, spec.target)


def resolver(program: ExportedProgram) -> Resolve:
    """Return what gives the stored tensor that a node of the program's graph stands for."""
    values = {node.name: stored_value(program, spec) for spec, node in inputs_of(program)}

    def resolve(node: fx.Node) -> torch.Tensor | None:
        if node.op == "get_attr":
            value = attribute(program.graph_module, str(node.target))
        else:
            value = values.get(node.name) if node.op == "placeholder" else None
        return value if isinstance(value, torch.Tensor) else None

    return resolve
