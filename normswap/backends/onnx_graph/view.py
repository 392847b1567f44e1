"""GraphView: an ONNX model as the algebra sees a graph: one key a value, subgraphs and local functions seen through."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from graphlib import TopologicalSorter
from typing import Any

import onnx

from normswap.algebra.graph import Condition, Key, Node
from normswap.backends.onnx_graph.graph.calls import called_by, key_of
from normswap.backends.onnx_graph.graph.constants import constant, is_constant
from normswap.backends.onnx_graph.graph.model import OnnxModel, read_tensor
from normswap.backends.onnx_graph.graph.nodes import first_output, graphs_in
from normswap.backends.onnx_graph.graph.scopes import Origin, Scope, walk
from normswap.backends.onnx_graph.graph.shapes import dims_of, spelled
from normswap.layer import Array, Dim

__all__ = ["GraphView"]

_LARGEST = 1 << 22  # elements of a constant that is read
_FURTHEST = 40  # values that a rank is followed through
# Operators whose output has the rank of their first input.
_KEEP_RANK = frozenset({"Relu", "LeakyRelu", "PRelu", "Sigmoid", "Tanh", "Elu", "Clip", "Pad", "MaxPool", "AveragePool",
                        "Upsample", "Resize", "Dropout", "Softmax", "Neg", "Sqrt", "Identity", "Cast", "Slice",
                        "BatchNormalization", "InstanceNormalization"})  # fmt: skip


@dataclass
class _Index:
    """Where everything is, as one walk over the nodes finds it."""

    nodes: list[tuple[Scope, onnx.NodeProto, tuple[Condition, ...]]] = field(default_factory=list)
    producers: dict[Key, int] = field(default_factory=dict)
    users: dict[Key, list[int]] = field(default_factory=dict)
    same: dict[Key, Key] = field(default_factory=dict)  # what a call returns is what its function computed
    outputs: set[Key] = field(default_factory=set)


class GraphView:
    """A model seen as one graph.

    Args:
        model: The model.
        scopes: Its scopes, where they have been walked already.
    """

    def __init__(self, model: OnnxModel, scopes: Iterable[Scope] | None = None) -> None:
        self._functions = {key_of(function) for function in model.proto.functions}
        self._scopes = {scope.path: scope for scope in (walk(model) if scopes is None else scopes)}
        # Which nodes of a scope hold others, by the paths of these: most scopes have none, and are read faster.
        self._holders: dict[tuple[str, ...], set[str]] = {}
        for path in self._scopes:
            if path:
                self._holders.setdefault(path[:-1], set()).update({path[-1], path[-1].rpartition(":")[0]})
        self._nodes: dict[int, Node] = {}
        self._dims: dict[Key, tuple[Dim, ...] | None] = {}

    def key(self, scope: Scope, name: str) -> Key:
        """Return the key of a name in a scope."""
        return self._key(scope, name, self._index.same)

    @staticmethod
    def _key(scope: Scope, name: str, same: Mapping[Key, Key]) -> Key:
        if name in scope.producers or name in scope.initializers:
            key: Key = (scope.path, name)
        else:
            origin = scope.resolve(name)
            key = (origin.scope.path, origin.name)
        return same.get(key, key)

    def place(self, key: Key) -> Origin:
        """Return what a key stands for in the model."""
        path, name = key
        return self._scopes[path].resolve(name)

    def source(self, node: Node) -> tuple[Scope, onnx.NodeProto]:
        """Return a node as the model has it, and its scope."""
        scope, proto, _ = self._index.nodes[node.position]
        return scope, proto

    @cached_property
    def _index(self) -> _Index:
        index = _Index()
        main = self._scopes.get(())
        if main is not None:
            self._add(main, (), index)
            index.outputs.update(self._key(main, name, index.same) for name in main.output_names)
        for scope in self._scopes.values():  # functions that nothing calls
            if scope.function is scope.code and scope.caller is None:
                self._add(scope, (), index)
                index.outputs.update(self._key(scope, name, index.same) for name in scope.output_names)
        return index

    def _add(self, scope: Scope, conditions: tuple[Condition, ...], index: _Index) -> None:
        holders = self._holders.get(scope.path, set())
        path, here, same = scope.path, scope.producers.keys() | scope.initializers.keys(), index.same
        for node in _in_order(scope, holders):
            owner = (first_output(node) or node.name) if holders else ""
            holds = owner in holders
            if (
                holds
                and called_by(node) in self._functions
                and (inner := self._scopes.get((*scope.path, owner))) is not None
            ):
                self._add(inner, conditions, index)
                for name, returned in zip(node.output, inner.output_names, strict=False):
                    index.same[scope.path, name] = self._key(inner, returned, index.same)
                continue
            reads: set[Key] = {
                (path, name) if not same and name in here else self._key(scope, name, same)
                for name in node.input
                if name
            }
            if holds:
                reads |= self._add_subgraphs(scope, node, owner, conditions, index)
            position = len(index.nodes)
            index.nodes.append((scope, node, conditions))
            for key in reads:
                index.users.setdefault(key, []).append(position)
            for name in node.output:
                if name:
                    index.producers[scope.path, name] = position

    def _add_subgraphs(
        self, scope: Scope, node: onnx.NodeProto, owner: str, conditions: tuple[Condition, ...], index: _Index
    ) -> set[Key]:
        """Add the nodes of subgraphs; return what an If takes from its branches."""
        taken: set[Key] = set()
        for attribute in node.attribute:
            graphs = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
            for number in range(len(graphs)):
                step = f"{owner}:{attribute.name}" + (f"[{number}]" if attribute.graphs else "")
                inner = self._scopes.get((*scope.path, step))
                if inner is None:
                    continue
                below = conditions
                if node.op_type == "If":
                    condition = self._key(scope, node.input[0], index.same)
                    below = (*conditions, (condition, attribute.name == "then_branch"))
                self._add(inner, below, index)
                returned = {self._key(inner, name, index.same) for name in inner.output_names}
                if node.op_type == "If":
                    taken |= returned
                else:
                    index.outputs |= returned
        return taken

    def nodes(self, op_types: frozenset[str]) -> Iterable[Node]:
        """Return the nodes of some types; nothing else is looked at where there are none."""
        if not any(node.op_type in op_types for scope in self._scopes.values() for node in scope.nodes):
            return []
        return [self._node(i) for i, (_, node, _) in enumerate(self._index.nodes) if node.op_type in op_types]

    def _node(self, position: int) -> Node:
        if position not in self._nodes:
            scope, node, conditions = self._index.nodes[position]
            self._nodes[position] = Node(
                op_type=node.op_type,
                domain="" if node.domain == "ai.onnx" else node.domain,
                inputs=tuple(self.key(scope, name) if name else None for name in node.input),
                outputs=tuple((scope.path, name) if name else None for name in node.output),
                opset=scope.opset,
                position=position,
                read_attributes=partial(_attributes, scope, node),
                branches=self._branches(scope, node),
                conditions=conditions,
            )
        return self._nodes[position]

    def _branches(self, scope: Scope, node: onnx.NodeProto) -> Mapping[bool, tuple[Key, ...]] | None:
        if node.op_type != "If" or node.domain not in ("", "ai.onnx"):
            return None
        found: dict[bool, tuple[Key, ...]] = {}
        for word, way in (("then_branch", True), ("else_branch", False)):
            inner = self._scopes.get((*scope.path, f"{first_output(node) or node.name}:{word}"))
            if inner is None:
                return None
            found[way] = tuple(self.key(inner, name) for name in inner.output_names)
        return found

    def producer(self, key: Key) -> Node | None:
        """Return the node that computes a value."""
        position = self._index.producers.get(key)
        return None if position is None else self._node(position)

    def users(self, key: Key) -> Sequence[Node]:
        """Return the nodes that read a value."""
        return [self._node(position) for position in self._index.users.get(key, ())]

    def is_output(self, key: Key) -> bool:
        """Whether a value leaves the graph, or a body that is not read here."""
        return key in self._index.outputs

    def is_input(self, key: Key) -> bool:
        """Whether a value is given by the caller of the model."""
        origin = self.place(key)
        return origin.kind == "input" and origin.scope.parent is None

    def is_constant(self, key: Key) -> bool:
        """Whether a value depends on no input."""
        origin = self.place(key)
        return is_constant(origin.scope, origin.name)

    def array(self, key: Key) -> Array | None:
        """Return a constant."""
        origin = self.place(key)
        dims = dims_of(origin.scope.value_type(origin.name))
        if dims is not None and math.prod(dim for dim in dims if isinstance(dim, int)) > _LARGEST:
            return None
        return constant(origin.scope, origin.name)

    def dims(self, key: Key) -> tuple[Dim, ...] | None:
        """Return the lengths of a value's dimensions, as far as shape inference and its neighbours show them."""
        if key not in self._dims:
            self._dims[key] = self._shown(key, _FURTHEST)
        return self._dims[key]

    def _shown(self, key: Key, further: int) -> tuple[Dim, ...] | None:
        origin = self.place(key)
        dims = dims_of(origin.scope.value_type(origin.name))
        if dims is not None:
            return tuple(None if dim == 0 else dim for dim in dims)
        rank = None
        node = self.producer(key)
        if node is not None and node.op_type in ("Conv", "ConvTranspose") and node.inputs[1] is not None:
            weight = self._shown(node.inputs[1], 0)
            rank = None if weight is None else len(weight)
        elif node is not None and node.op_type in _KEEP_RANK and node.inputs[0] is not None and further:
            before = self._shown(node.inputs[0], further - 1)
            rank = None if before is None else len(before)
        for neighbour in ([node] if node is not None else []) + list(self.users(key)):
            if rank is None and neighbour.op_type == "Transpose" and "perm" in neighbour.attributes:
                rank = len(neighbour.attributes["perm"])
        return None if rank is None else (None,) * rank

    def is_real(self, key: Key) -> bool:
        """Whether a value may be of a floating-point type."""
        origin = self.place(key)
        name = spelled(origin.scope.value_type(origin.name))
        return name is None or "float" in name


def _in_order(scope: Scope, holders: Collection[str]) -> list[onnx.NodeProto]:
    """Return the nodes of a scope, each after those that it reads; a file may have them in any order."""
    nodes = list(scope.nodes)
    places = {name: place for place, node in enumerate(nodes) for name in node.output}
    reads = [[places[name] for name in _reads(node, holders) if name in places] for node in nodes]
    if all(place > before for place, read in enumerate(reads) for before in read):
        return nodes
    return [nodes[place] for place in TopologicalSorter(dict(enumerate(reads))).static_order()]


def _reads(node: onnx.NodeProto, holders: Collection[str]) -> Iterable[str]:
    """Return the names that a node reads, those inside its subgraphs too."""
    if not holders or (first_output(node) or node.name) not in holders:
        return filter(None, node.input)
    inside = [name for graph in graphs_in(node) for inner in graph.node for name in inner.input]
    returned = [value.name for graph in graphs_in(node) for value in graph.output]
    return filter(None, (*node.input, *inside, *returned))


def _attributes(scope: Scope, node: onnx.NodeProto) -> Mapping[str, Any]:
    """Return attributes, tensors as arrays, graphs left out."""
    found = {}
    for name, value in scope.attributes(node).items():
        if isinstance(value, onnx.TensorProto):
            found[name] = read_tensor(scope.model, value)
        elif not isinstance(value, onnx.GraphProto):
            found[name] = value
    return found
