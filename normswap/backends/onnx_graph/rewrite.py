"""Carry out a plan: put the target's operators where each planned BatchNormalization stands."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import onnx

from normswap.backends.onnx_graph.find import sites
from normswap.backends.onnx_graph.graph.model import OnnxModel, copy_of, set_nodes
from normswap.backends.onnx_graph.graph.nodes import epsilon_of, with_subgraphs
from normswap.backends.onnx_graph.graph.scopes import Scope
from normswap.backends.onnx_graph.graph.shapes import element_of, spelled
from normswap.backends.onnx_graph.site import Site
from normswap.plan import Plan

__all__ = ["RECORD", "names_in", "remove_idle", "rewrite"]

RECORD = "normswap"  # key in metadata_props under which conversions are recorded, as a JSON list


def rewrite(model: OnnxModel, plan: Plan, *, version: str) -> OnnxModel:
    """Return a copy of the model in which every planned layer computes the target.

    Values, inputs, outputs, scale and bias tensors keep their names; what only served the replaced nodes
    (running statistics, operators that computed them) is removed.
    """
    converted = copy_of(model)
    planned = {layer.name for layer in plan.layers}
    names = names_in(converted.proto)
    bodies: dict[tuple[str, ...], tuple[Scope, dict[str, list[Site]]]] = {}
    for site in sites(converted):
        if site.layer.name in planned:
            body, node_name = site.key
            bodies.setdefault(body, (site.scope, {}))[1].setdefault(node_name, []).append(site)
    idle: dict[tuple[str, ...], set[str]] = {}
    for body, (scope, replaced) in reversed(bodies.items()):  # subgraphs before the graphs that hold them
        nodes: list[onnx.NodeProto] = []
        for node in list(scope.nodes):
            calls = replaced.get(node.output[0]) if node.output else None
            if calls is None:
                nodes.append(node)
                continue
            ops = _Emitter(calls, names)
            plan.form_of(calls[0].layer).emit(ops)
            nodes += ops.nodes
            idle.setdefault(_code_of(body), set()).update((calls[0].mean, calls[0].var))
        set_nodes(scope.nodes, nodes)
    for key, code in _codes(converted.proto).items():
        remove_idle(code, idle.get(key, set()))
    _record(converted, model, plan, version)
    return converted


class _Emitter:
    """Collects the operators that replace one node; see normswap.norms.OnnxOps."""

    def __init__(self, calls: list[Site], names: set[str]) -> None:
        site = calls[0]
        node, scope = site.node, site.scope
        self.x, self.scale, self.bias, self.mean, self.var = site.x, site.scale, site.bias, site.mean, site.var
        self.y = site.y
        ranks = {call.layer.rank for call in calls}
        self.rank = ranks.pop() if len(ranks) == 1 else None  # calls of one function may differ
        self.dtype = site.layer.dtype
        self.param_dtype = spelled(scope.value_type(self.scale)) or (
            str(site.layer.weight.dtype) if site.layer.weight is not None else self.dtype
        )
        self.stat_dtype = spelled(scope.value_type(self.mean)) or (
            str(site.layer.running_mean.dtype) if site.layer.running_mean is not None else self.param_dtype
        )
        self.channels = site.layer.num_features
        self.nodes: list[onnx.NodeProto] = []
        self._opset = scope.opset
        self._label = node.name or self.y
        self._epsilon = epsilon_of(node)
        self._eps = site.layer.eps
        self._names = names

    def op(self, op_type: str, *inputs: str, output: str | None = None, **attributes: int | float | list[int]) -> str:
        """Add an operator of the default domain and return the name of its output."""
        step = f"normswap/{op_type}_{len(self.nodes)}"
        output = output or self._fresh(f"{self.y}/{step}")
        self.nodes.append(onnx.helper.make_node(op_type, inputs, [output], name=f"{self._label}/{step}"))
        self.nodes[-1].attribute.extend(onnx.helper.make_attribute(key, value) for key, value in attributes.items())
        return output

    def eps_attribute(self, op_type: str, *inputs: str, output: str | None = None) -> str:
        """Add an operator that takes ``epsilon`` as an attribute, a reference to a function's included.

        It is written even where it is the default: MNN 3.6.1 takes an epsilon that is not there for 0.
        """
        name = self.op(op_type, *inputs, output=output)
        given = self._epsilon if self._epsilon is not None else onnx.helper.make_attribute("epsilon", self._eps)
        self.nodes[-1].attribute.append(given)
        return name

    def eps_constant(self, dtype: str) -> str:
        """Add a scalar constant that holds eps."""
        if self._epsilon is None or not self._epsilon.ref_attr_name:
            return self.number(self._eps, dtype)
        name = self.op("Constant")
        given = self.nodes[-1].attribute.add()
        given.CopyFrom(self._epsilon)
        given.name = "value_float"
        return self.cast(name, "float32", dtype)

    def number(self, value: float, dtype: str) -> str:
        """Add a scalar constant."""
        return self._constant(np.asarray(value, dtype))

    def ints(self, values: list[int]) -> str:
        """Add a one-dimensional int64 constant."""
        if self._opset >= 9:
            return self._constant(np.asarray(values, np.int64))
        # Constant-1 holds floating-point numbers alone
        return self.cast(self._constant(np.asarray(values, np.float32)), "float32", "int64")

    def cast(self, value: str, dtype: str, to: str, output: str | None = None) -> str:
        """Cast ``value`` from ``dtype`` to ``to``; the value itself where they are the same."""
        if dtype == to and output is None:
            return value
        return self.op("Cast", value, output=output, to=element_of(to))

    def reduce_mean(self, value: str, axes: list[int]) -> str:
        """Add a ReduceMean that keeps the reduced axes; from opset 18 on the axes are an input."""
        if self._opset >= 18:
            return self.op("ReduceMean", value, self.ints(axes), keepdims=1)
        return self.op("ReduceMean", value, axes=axes, keepdims=1)

    def reduce_sum(self, value: str, axes: list[int]) -> str:
        """Add a ReduceSum that keeps the reduced axes; from opset 13 on the axes are an input."""
        if self._opset >= 13:
            return self.op("ReduceSum", value, self.ints(axes), keepdims=1)
        return self.op("ReduceSum", value, axes=axes, keepdims=1)

    def unsqueeze(self, value: str, axes: list[int]) -> str:
        """Add axes of length 1; from opset 13 on they are an input."""
        if self._opset >= 13:
            return self.op("Unsqueeze", value, self.ints(axes))
        return self.op("Unsqueeze", value, axes=axes)

    def _constant(self, value: Any) -> str:
        name = self.op("Constant")
        tensor = onnx.numpy_helper.from_array(value)
        self.nodes[-1].attribute.append(onnx.helper.make_attribute("value", tensor))
        return name

    def _fresh(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self._names:
            name, number = f"{wanted}_{number}", number + 1
        self._names.add(name)
        return name


def _codes(proto: onnx.ModelProto) -> dict[tuple[str, ...], Any]:
    """Return the main graph and the functions, by what ``_code_of`` calls them."""
    functions: dict[tuple[str, ...], Any] = {
        ("function", f.domain, f.name, getattr(f, "overload", "")): f for f in proto.functions
    }
    return {(): proto.graph, **functions}


def _code_of(body: tuple[str, ...]) -> tuple[str, ...]:
    """Name the graph or function that a body (see Scope.body) is part of."""
    return body[:4] if body[:1] == ("function",) else ()


def names_in(proto: onnx.ModelProto) -> set[str]:
    """Return every name of a value, wherever in the model."""
    names: set[str] = set()
    for code in _codes(proto).values():
        for graph in with_subgraphs(code):
            for node in graph.node:
                names.update(node.input, node.output)
            if isinstance(graph, onnx.GraphProto):
                names.update(value.name for value in (*graph.input, *graph.output, *graph.initializer))
    return names


def remove_idle(code: Any, idle: set[str]) -> None:
    """Remove what computed or stored values that nothing reads any more, beginning with ``idle``.

    A tensor that is also a graph input (IR < 4) stays, since callers may feed it.
    """
    graphs = with_subgraphs(code)
    uses = Counter(name for graph in graphs for node in graph.node for name in node.input)
    for graph in graphs:
        outputs = graph.output
        uses.update(v if isinstance(v, str) else v.name for v in outputs)
    pending = [name for name in idle if not uses[name]]
    gone: set[str] = set()
    while pending:
        name = pending.pop()
        for graph in graphs:
            for index, node in enumerate(graph.node):
                if name in node.output and not any(uses[out] for out in node.output):
                    for read in node.input:
                        uses[read] -= 1
                        if read and not uses[read]:
                            pending.append(read)
                    gone.update(node.output)
                    del graph.node[index]
                    break
            if not isinstance(graph, onnx.GraphProto) or name in {value.name for value in graph.input}:
                continue
            for index, tensor in enumerate(graph.initializer):
                if tensor.name == name:
                    gone.add(name)
                    del graph.initializer[index]
                    break
    for graph in graphs:
        kept = [value for value in graph.value_info if value.name not in gone]
        if len(kept) != len(graph.value_info):
            del graph.value_info[:]
            graph.value_info.extend(kept)


def _record(converted: OnnxModel, source: OnnxModel, plan: Plan, version: str) -> None:
    """Add the conversion to the model's metadata, after earlier ones."""
    entry = {
        "version": version,
        "to": plan.norm.name,
        **plan.norm.parameters,
        "source_sha256": source.sha256(),
        "layers": [layer.name for layer in plan.layers],
    }
    for prop in converted.proto.metadata_props:
        if prop.key == RECORD:
            try:
                earlier = json.loads(prop.value)
            except ValueError:
                earlier = []
            prop.value = json.dumps([*(earlier if isinstance(earlier, list) else []), entry])
            return
    converted.proto.metadata_props.add(key=RECORD, value=json.dumps([entry]))
