"""End-to-end inputs of a program: those given, its own examples, else generated for the shapes that it declares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind
from torch.utils import _pytree as pytree

from normswap.backends.generated import BATCH, drawn
from normswap.backends.torch.program.model import inputs_of
from normswap.backends.torch.tensors import spelled, to_array, to_tensor
from normswap.backends.values import Feed
from normswap.errors import CannotRunError
from normswap.layer import Array, Dim

__all__ = ["ProgramInputs", "Signature", "arguments"]

# Tried in turn for sizes that are dynamic, after the one that the program was traced with.
_EXTENTS = (32, 64, 16, 224, 8)
_UNBOUNDED = 1 << 31


@dataclass(frozen=True)
class Signature:
    """One input of a program, as it was traced.

    Attributes:
        name: Of its node in the graph.
        dtype: As NumPy spells it, None for what is not a tensor.
        dims: Its shape; None in place of a size that is dynamic, and for what is not a tensor.
    """

    name: str
    dtype: str | None
    dims: tuple[Dim, ...] | None


@dataclass(frozen=True, eq=False)
class ProgramInputs:
    """The inputs of a program: tensors and numbers by the names of its graph's nodes."""

    program: ExportedProgram

    @property
    def declared(self) -> tuple[Signature, ...]:
        """What the program was traced for, in order."""
        return tuple(_signature(node) for node, constant in _user_inputs(self.program) if constant is None)

    def bind(self, values: Any) -> dict[str, Any]:
        """Take a tensor, a tuple or list of positional arguments, or a mapping of named ones.

        Raises:
            CannotRunError: If they do not fit the program.
        """
        return _bound(self.program, values)

    def fit(self, arrays: Mapping[str, Array]) -> dict[str, Any]:
        """Take arrays as the program's inputs: by name where all names are its own, else by order.

        Raises:
            CannotRunError: If there are more or fewer than the program takes, or they do not fit.
        """
        nodes = [node for node, constant in _user_inputs(self.program) if constant is None]
        names = [node.name for node in nodes]
        if set(arrays) == set(names):
            arrays = {name: arrays[name] for name in names}
        elif len(arrays) != len(names):
            raise CannotRunError(
                f"the inputs hold {len(arrays)} arrays ({', '.join(arrays) or 'none'}), where the program takes "
                f"{len(names)}: {', '.join(names)}"
            )
        return {node.name: _fitted(node, array) for node, array in zip(nodes, arrays.values(), strict=True)}

    def generate(self, shapes: Mapping[str, tuple[int, ...]], seed: int, batch: int) -> Iterable[Feed]:
        """Return the program's own examples, else tensors of the shapes that it declares.

        Raises:
            CannotRunError: If a shape names no input.
        """
        program = self.program
        _check_names(program, shapes)
        examples = program.example_inputs
        if examples and not shapes:
            args, kwargs = examples
            if not any(_is_fake(value) for value in pytree.tree_leaves(examples)):
                return [Feed(_flat(program, tuple(args), dict(kwargs)), "the program's own example inputs")]
        return _generated(program, shapes, seed, batch)

    def to_arrays(self, values: Mapping[str, Any]) -> dict[str, Array]:
        """Return values as arrays in their order, for another framework."""
        return {
            name: to_array(value) if isinstance(value, torch.Tensor) else np.asarray(value)
            for name, value in values.items()
        }


def arguments(program: ExportedProgram, arrays: Mapping[str, Any]) -> tuple[list[Any], tuple[Any, ...], dict[str, Any]]:
    """Copy a feed, so that it cannot be written into, and return it as a flat list and as args and kwargs."""
    leaves = []
    for node, constant in _user_inputs(program):
        value = constant.value if constant is not None else arrays[node.name]
        leaves.append(value.detach().clone() if isinstance(value, torch.Tensor) else value)
    args, kwargs = pytree.tree_unflatten(leaves, _in_spec(program))
    return leaves, args, kwargs


def _user_inputs(program: ExportedProgram) -> Iterator[tuple[fx.Node, ConstantArgument | None]]:
    """Yield what a caller gives, in order; with the value where the program was traced for that value alone."""
    for spec, node in inputs_of(program):
        if spec.kind == InputKind.USER_INPUT:
            yield node, spec.arg if isinstance(spec.arg, ConstantArgument) else None


def _signature(node: fx.Node) -> Signature:
    declared = node.meta.get("val")
    if not isinstance(declared, torch.Tensor):
        return Signature(node.name, None, None)
    dims = tuple(dim if isinstance(dim, int) else None for dim in declared.shape)
    return Signature(node.name, spelled(declared.dtype), dims)


def _in_spec(program: ExportedProgram) -> pytree.TreeSpec:
    spec = program.call_spec.in_spec
    assert isinstance(spec, pytree.TreeSpec), "every program has one"
    return spec


def _bound(program: ExportedProgram, inputs: Any) -> dict[str, Any]:
    if not isinstance(inputs, Mapping):
        return _flat(program, tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,), {})
    names = [node.name for node, constant in _user_inputs(program) if constant is None]
    if set(inputs) == set(names) and all(isinstance(value, (np.ndarray, torch.Tensor)) for value in inputs.values()):
        return {node.name: _fitted(node, inputs[node.name]) for node, c in _user_inputs(program) if c is None}
    positional = _positional(program)
    missing = [name for name in positional if name not in inputs]
    if missing:
        raise CannotRunError(
            f"the inputs have no {missing[0]!r}; the program takes {', '.join(positional) or 'keywords alone'}, "
            f"found {', '.join(map(str, inputs)) or 'none'}"
        )
    args = tuple(inputs[name] for name in positional)
    return _flat(program, args, {name: value for name, value in inputs.items() if name not in positional})


def _positional(program: ExportedProgram) -> list[str]:
    """Name the arguments that the program was traced with as positional ones."""
    signature = program.module_call_graph[0].signature
    count = _children(_in_spec(program))[0].num_children
    names = list((signature.forward_arg_names if signature is not None else None) or [])
    return [*names, *(f"argument {index}" for index in range(len(names), count))][:count]


def _children(spec: pytree.TreeSpec) -> Sequence[pytree.TreeSpec]:
    return spec.children() if hasattr(spec, "children") else spec.children_specs


def _flat(program: ExportedProgram, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Name each tensor and number of the arguments as the program's graph does."""
    wanted = _in_spec(program)
    keywords = _children(wanted)[1].context or []
    if set(keywords) == set(kwargs):
        kwargs = {name: kwargs[name] for name in keywords}
    leaves, found = pytree.tree_flatten((args, kwargs))
    if found != wanted:
        raise CannotRunError(f"the inputs are not arranged as the program takes them: expected {wanted}, found {found}")
    feed = {}
    for (node, constant), leaf in zip(_user_inputs(program), leaves, strict=True):
        if constant is None:
            feed[node.name] = _fitted(node, leaf)
        elif leaf != constant.value:
            raise CannotRunError(
                f"input {node.name!r}: the program was exported for {constant.value!r} alone, found {leaf!r}"
            )
    return feed


def _fitted(node: fx.Node, value: Any) -> Any:
    """Hold a value against what an input is declared as; arrays become tensors."""
    declared = node.meta.get("val")
    if not isinstance(declared, torch.Tensor):
        return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value
    if isinstance(value, np.ndarray):
        value = to_tensor(value)
    if not isinstance(value, torch.Tensor):
        raise CannotRunError(f"input {node.name!r}: expected a tensor, found {type(value).__name__}")
    if value.dtype != declared.dtype:
        raise CannotRunError(f"input {node.name!r}: expected {spelled(declared.dtype)}, found {spelled(value.dtype)}")
    wrong = value.ndim != declared.ndim or any(
        isinstance(dim, int) and dim != size for dim, size in zip(declared.shape, value.shape, strict=True)
    )
    if wrong:
        shape = ", ".join(map(str, declared.shape))
        raise CannotRunError(f"input {node.name!r}: expected shape ({shape}), found {tuple(value.shape)}")
    return value.detach().to(declared.device)


def _is_fake(value: Any) -> bool:
    return isinstance(value, torch._subclasses.fake_tensor.FakeTensor)


def _check_names(program: ExportedProgram, shapes: Mapping[str, tuple[int, ...]]) -> None:
    known = [node.name for node, constant in _user_inputs(program) if constant is None]
    for name in shapes:
        if name not in known:
            raise CannotRunError(
                f"--shape names {name!r}, which is not an input; the program takes {', '.join(known) or 'none'}"
            )


def _generated(
    program: ExportedProgram, shapes: Mapping[str, tuple[int, ...]], seed: int, batch: int
) -> Iterator[Feed]:
    nodes = [node for node, constant in _user_inputs(program) if constant is None]
    sizes = _Sizes(program, nodes, shapes)
    tried = []
    for samples in (batch, None):
        for extent in (None, *_EXTENTS):
            made = {node.name: sizes.shape(node, samples, extent) for node in nodes}
            if made in tried:
                continue
            tried.append(made)
            rng = np.random.default_rng(seed)
            arrays = {node.name: _drawn(rng, node, made[node.name]) for node in nodes}
            shown = ", ".join(f"{name} {'x'.join(map(str, shape)) or 'scalar'}" for name, shape in made.items())
            yield Feed(arrays, f"generated, seed {seed}: {shown}")


def _drawn(rng: np.random.Generator, node: fx.Node, shape: tuple[int, ...]) -> Any:
    declared = node.meta.get("val")
    if not isinstance(declared, torch.Tensor):
        return shape[0] if shape else 1  # a number that is given at run time
    return to_tensor(drawn(rng, node.name, spelled(declared.dtype), shape), declared.device)


class _Sizes:
    """Gives values to dynamic sizes, within the ranges that the program declares."""

    def __init__(
        self, program: ExportedProgram, nodes: Sequence[fx.Node], shapes: Mapping[str, tuple[int, ...]]
    ) -> None:
        self._ranges = {str(symbol): _span(span) for symbol, span in program.range_constraints.items()}
        self._traced: dict[str, int] = {}
        self._given: dict[str, int] = {}
        self._batches: set[str] = set()
        self._shapes = shapes
        for node in nodes:
            for axis, dim in enumerate(_dims(node)):
                if not isinstance(dim, torch.SymInt):
                    continue
                self._traced |= _traced(dim)
                if axis == 0:
                    self._batches |= set(map(str, dim.node.expr.free_symbols))
                if node.name in shapes and axis < len(shapes[node.name]):
                    self._given[str(dim)] = shapes[node.name][axis]

    def shape(self, node: fx.Node, batch: int | None, extent: int | None) -> tuple[int, ...]:
        if node.name in self._shapes:
            return self._shapes[node.name]
        return tuple(dim if isinstance(dim, int) else self._size(dim, batch, extent) for dim in _dims(node))

    def _size(self, dim: torch.SymInt, batch: int | None, extent: int | None) -> int:
        expression = dim.node.expr
        values = {}
        for symbol in expression.free_symbols:
            name = str(symbol)
            wanted = batch if name in self._batches else extent
            if wanted is None:
                wanted = self._traced.get(name, BATCH if name in self._batches else _EXTENTS[0])
            lowest, highest = self._ranges.get(name, (1, _UNBOUNDED))
            values[symbol] = self._given.get(name, max(lowest, min(highest, wanted)))
        return int(expression.subs(values))


def _traced(dim: torch.SymInt) -> dict[str, int]:
    """Return the sizes that a program was traced with, by symbol, as far as it still knows."""
    environment = dim.node.shape_env
    known = getattr(environment, "backed_var_to_val", None) or getattr(environment, "var_to_val", {})
    return {str(symbol): int(known[symbol]) for symbol in dim.node.expr.free_symbols if symbol in known}


def _dims(node: fx.Node) -> tuple[Any, ...]:
    declared = node.meta.get("val")
    if isinstance(declared, torch.Tensor):
        return tuple(declared.shape)
    return (declared,) if isinstance(declared, torch.SymInt) else ()


def _span(span: Any) -> tuple[int, int]:
    """Read a range of sizes, whose ends may be infinite in one of sympy's and torch's ways."""
    lowest, highest = (None if "oo" in str(bound) else int(bound) for bound in (span.lower, span.upper))
    return max(lowest or 0, 0), _UNBOUNDED if highest is None else highest
