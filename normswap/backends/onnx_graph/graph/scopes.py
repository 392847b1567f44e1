"""Scopes: the places where nodes live, and what a name means there.

A node lives in the main graph, in a body of If, Loop or Scan, or in a local function. A function is walked
once for every call, so that each call's parameters and attributes are known; the code itself is shared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import onnx

from normswap.backends.onnx_graph.graph.calls import FunctionKey, called_by, key_of
from normswap.backends.onnx_graph.graph.model import OnnxModel
from normswap.backends.onnx_graph.graph.nodes import (
    attribute_value,
    circle_in,
    first_output,
    with_subgraphs,
)
from normswap.backends.onnx_graph.graph.shapes import Types, infer_call_types, infer_types
from normswap.errors import ModelReadError
from normswap.layer import Array

__all__ = ["Origin", "Scope", "walk"]


@dataclass(frozen=True, eq=False)
class Origin:
    """What a name stands for, once function inputs and outer scopes are seen through.

    Attributes:
        kind: ``tensor`` an initializer, ``node`` the output of a node, ``input`` a graph's formal input,
            ``missing`` a name that nothing defines.
        scope: Where it is defined.
        name: Its name there.
        node: The node that computes it, for ``node``.
        tensor: Its value, for ``tensor``.
    """

    kind: Literal["tensor", "node", "input", "missing"]
    scope: Scope
    name: str
    node: onnx.NodeProto | None = None
    tensor: onnx.TensorProto | None = None


class Scope:
    """One place where nodes live.

    Attributes:
        model: The model that it belongs to.
        path: Names of the nodes that own it, outermost first; empty for the main graph.
        body: Names the code: equal for all calls of one function.
        code: The graph or function.
        parent: The enclosing scope whose names are visible here, for a subgraph.
        caller: The scope and node of the call, for a function.
        constants: Values evaluated so far, see constants.py.
        is_constant: Which values are known to depend on constants alone, or not to.
    """

    def __init__(
        self,
        model: OnnxModel,
        code: onnx.GraphProto | onnx.FunctionProto,
        *,
        path: tuple[str, ...] = (),
        body: tuple[str, ...] = (),
        opsets: Mapping[str, int],
        parent: Scope | None = None,
        caller: tuple[Scope, onnx.NodeProto] | None = None,
        types: Types | None = None,
    ) -> None:
        self.model = model
        self.code = code
        self.path = path
        self.body = body
        self.opsets = opsets
        self.parent = parent
        self.caller = caller
        self._types = types
        self.constants: dict[str, Array | None] = {}
        self.is_constant: dict[str, bool] = {}

    @property
    def nodes(self) -> Any:
        """The repeated field of nodes, live: editing it edits the model."""
        return self.code.node

    @property
    def opset(self) -> int:
        """Version of the default operator set here."""
        return self.opsets.get("", 1)

    @property
    def function(self) -> onnx.FunctionProto | None:
        """The local function whose code this is part of, if any."""
        if isinstance(self.code, onnx.FunctionProto):
            return self.code
        return self.parent.function if self.parent is not None else None

    @property
    def types(self) -> Types:
        """Element types and shapes of the values here, as far as they can be inferred."""
        if self._types is None:
            assert self.caller is not None and isinstance(self.code, onnx.FunctionProto)
            scope, call = self.caller
            self._types = infer_call_types(
                self.model,
                self.code,
                [scope.value_type(name) for name in call.input],
                dict(_bound_attributes(self.code, scope, call)),
                root=len(self.path),
            )
        return self._types

    def value_type(self, name: str) -> onnx.TypeProto | None:
        """Return the inferred type of a value, seen through calls and outer scopes."""
        origin = self.resolve(name)
        if origin.tensor is not None:
            return onnx.helper.make_tensor_type_proto(origin.tensor.data_type, list(origin.tensor.dims))
        return origin.scope.types.get(origin.scope.path, origin.name)

    @cached_property
    def producers(self) -> dict[str, onnx.NodeProto]:
        """Which node computes a name."""
        return {name: node for node in self.nodes for name in node.output if name}

    @cached_property
    def readers(self) -> frozenset[str]:
        """All names that are read here or in subgraphs here, or are an output."""
        names = set(self.output_names)
        for code in with_subgraphs(self.code):
            names.update(name for node in code.node for name in node.input)
            names.update(_output_names(code))
        return frozenset(names)

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs."""
        return _output_names(self.code)

    @cached_property
    def input_names(self) -> list[str]:
        """Names of the formal inputs."""
        if isinstance(self.code, onnx.FunctionProto):
            return list(self.code.input)
        return [value.name for value in self.code.input]

    @cached_property
    def initializers(self) -> dict[str, onnx.TensorProto]:
        """Tensors by name; a function has none."""
        if isinstance(self.code, onnx.FunctionProto):
            return {}
        return {tensor.name: tensor for tensor in self.code.initializer}

    def resolve(self, name: str) -> Origin:
        """Find what ``name`` stands for."""
        if name in self.producers:
            return Origin("node", self, name, node=self.producers[name])
        if name in self.initializers:  # also one that is a graph input (IR < 4): its default
            return Origin("tensor", self, name, tensor=self.initializers[name])
        if name in self.input_names:
            if self.caller is None:
                return Origin("input", self, name)
            scope, call = self.caller
            position = self.input_names.index(name)
            if position < len(call.input) and call.input[position]:
                return scope.resolve(call.input[position])
            return Origin("missing", self, name)
        if self.parent is not None:
            return self.parent.resolve(name)
        return Origin("missing", self, name)

    def attributes(self, node: onnx.NodeProto) -> dict[str, Any]:
        """Return the attributes of a node, references to the function's own attributes filled in."""
        values = {}
        for attribute in node.attribute:
            filled = self.fill(attribute)
            if filled is not None:
                values[attribute.name] = attribute_value(filled)
        return values

    def fill(self, attribute: onnx.AttributeProto) -> onnx.AttributeProto | None:
        """Return the attribute with a reference to the function's attribute replaced by the call's value."""
        if not attribute.ref_attr_name:
            return attribute
        scope: Scope | None = self
        while scope is not None and not isinstance(scope.code, onnx.FunctionProto):
            scope = scope.parent
        if scope is None or scope.caller is None:
            return None
        assert isinstance(scope.code, onnx.FunctionProto)
        bound = dict(_bound_attributes(scope.code, *scope.caller)).get(attribute.ref_attr_name)
        if bound is None:
            return None
        filled = onnx.AttributeProto()
        filled.CopyFrom(bound)
        filled.name = attribute.name
        return filled


def walk(model: OnnxModel) -> Iterator[Scope]:
    """Yield every scope: the main graph, then subgraphs and calls, depth first in the order of the nodes.

    Functions that nothing calls come last, as scopes whose inputs are unknown.

    Raises:
        ModelReadError: If nodes feed one another in a circle.
    """
    functions = {key_of(function): function for function in model.proto.functions}
    called: set[FunctionKey] = set()
    main = Scope(
        model,
        model.proto.graph,
        opsets=_opsets(model.proto.opset_import),
        types=infer_types(model.proto),
    )
    yield from _descend(main, functions, called)
    for key, function in functions.items():
        if key not in called:
            yield Scope(
                model,
                function,
                path=(f"{function.domain}::{function.name}",),
                body=("function", *key),
                opsets=_opsets(function.opset_import),
                types=Types({}),
            )


def _descend(
    scope: Scope, functions: Mapping[FunctionKey, onnx.FunctionProto], called: set[FunctionKey]
) -> Iterator[Scope]:
    _raise_for_circle(scope)
    yield scope
    for node in scope.nodes:
        owner = first_output(node) or node.name
        for attribute in node.attribute:
            graphs = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
            for index, graph in enumerate(graphs):
                step = f"{owner}:{attribute.name}" + (f"[{index}]" if attribute.graphs else "")
                inner = Scope(
                    scope.model,
                    graph,
                    path=(*scope.path, step),
                    body=(*scope.body, step),
                    opsets=scope.opsets,
                    parent=scope,
                    types=scope.types,
                )
                yield from _descend(inner, functions, called)
        key = called_by(node)
        if key in functions:
            called.add(key)
            function = functions[key]
            inner = Scope(
                scope.model,
                function,
                path=(*scope.path, owner),
                body=("function", *key),
                opsets=_opsets(function.opset_import),
                caller=(scope, node),
            )
            yield from _descend(inner, functions, called)


def _raise_for_circle(scope: Scope) -> None:
    """Refuse nodes that feed one another in a circle: nothing that follows values backwards would end."""
    if circle := circle_in(scope.nodes):
        raise ModelReadError(
            f"{scope.model.path or 'the model'}: its nodes feed one another in a circle, through "
            f"{', '.join(map(repr, circle[:3]))}; the file is damaged"
        )


def _bound_attributes(
    function: onnx.FunctionProto, scope: Scope, call: onnx.NodeProto
) -> Iterator[tuple[str, onnx.AttributeProto]]:
    """Yield the values that the function's attributes have in this call: given, else the default."""
    given = {attribute.name: attribute for attribute in call.attribute}
    for default in function.attribute_proto:
        yield default.name, default
    for name, attribute in given.items():
        if (filled := scope.fill(attribute)) is not None:
            yield name, filled


def _opsets(imports: Any) -> dict[str, int]:
    return {("" if entry.domain == "ai.onnx" else entry.domain): entry.version for entry in imports}


def _output_names(code: onnx.GraphProto | onnx.FunctionProto) -> list[str]:
    if isinstance(code, onnx.FunctionProto):
        return list(code.output)
    return [value.name for value in code.output]
