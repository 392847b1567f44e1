"""First witness for fx graphs: outside the planned layers two graphs are the same, node for node.

Nodes are paired by their names. The comparison reads two graphs and nothing that was noted when one was made of the
other; it shares no code with the swapping.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import torch
from torch import fx

from normswap.backends.differences import Difference
from normswap.backends.torch.calls import BatchNormCall, operator_name, read_call, returned_statistics
from normswap.norms import Norm

__all__ = ["GraphComparison", "compare_graphs", "compare_nodes"]

_ARITHMETIC = (operator.getitem, operator.add, operator.sub, operator.mul, operator.floordiv)  # of sizes, mostly


@dataclass
class GraphComparison:
    """What was compared and what differs.

    Attributes:
        differences: What differs; empty where the graphs are the same.
        nodes: How many nodes were compared.
        gone: Names of nodes that may be gone with the planned layers.
        passed_on: For statistics that planned layers returned, by name: what they began with.
    """

    differences: list[Difference] = field(default_factory=list)
    nodes: int = 0
    gone: set[str] = field(default_factory=set)
    passed_on: dict[str, str] = field(default_factory=dict)


def compare_graphs(before: fx.Graph, after: fx.Graph, planned: Mapping[str, str]) -> list[Difference]:
    """Say how two graphs differ outside the planned layers, what they return included.

    Args:
        before: The original.
        after: What is claimed to be its conversion.
        planned: By the name of the node that gives a planned layer's result, the name of the layer.
    """
    return compare_nodes(before, after, planned).differences


def compare_nodes(
    before: fx.Graph,
    after: fx.Graph,
    planned: Mapping[str, str],
    *,
    idle: Collection[str] = (),
    outputs: bool = True,
) -> GraphComparison:
    """Compare two graphs as ``compare_graphs`` does.

    Args:
        before: The original.
        after: What is claimed to be its conversion.
        planned: By the name of the node that gives a planned layer's result, the name of the layer.
        idle: Names of nodes of ``before`` that may be gone besides what only the layers' statistics needed.
        outputs: Whether to compare what the graphs return; who leaves it out compares that by himself.
    """
    return _Comparison(before, after, planned, set(idle), outputs).result


@dataclass(frozen=True, eq=False)
class _Layer:
    name: str
    y: fx.Node
    node: fx.Node
    call: BatchNormCall


class _Comparison:
    def __init__(
        self, before: fx.Graph, after: fx.Graph, planned: Mapping[str, str], idle: set[str], outputs: bool
    ) -> None:
        self.before = {node.name: node for node in before.nodes if not _is_idle_item(node, planned)}
        self.after = {node.name: node for node in after.nodes if not _is_idle_item(node, planned)}
        self.layers = [_layer(name, self.before[y]) for y, name in planned.items()]
        self.result = GraphComparison(passed_on=_passed_on(self.layers))
        self.claimed: dict[str, str] = {}  # layer by node of ``after`` that computes it
        replaced = {node.name for layer in self.layers for node in (layer.node, layer.y)}
        served = idle | self.served()
        for name, node in self.before.items():
            if name not in replaced and (outputs or node.op != "output"):
                self.node(name, node, may_go=name in served)
        for layer in self.layers:
            self.layer(layer)
        for name, node in self.after.items():
            if name not in self.before and name not in self.claimed:
                self.differ(f"{_spoken(node)} {name!r} is new and belongs to no planned layer")
        self.order()

    def differ(self, sentence: str) -> None:
        self.result.differences.append(Difference(sentence))

    def differ_at(self, layer: _Layer, sentence: str) -> None:
        self.result.differences.append(Difference(f"{layer.name}: {sentence}", layer.name))

    def served(self) -> set[str]:
        """Name what was computed or stored for the statistics of planned layers and for nothing else."""
        served: set[fx.Node] = set()
        pending: list[fx.Node] = []
        for layer in self.layers:
            served.add(layer.node)
            served.update(user for user in layer.node.users if user is not layer.y)
            pending += _nodes(layer.call.running_mean, layer.call.running_var)
        while pending:
            node = pending.pop()
            if node not in served and not set(node.users) - served:
                served.add(node)
                pending += node.all_input_nodes
        return {node.name for node in served}

    def node(self, name: str, old: fx.Node, *, may_go: bool) -> None:
        """Compare a node that no planned layer replaces."""
        new = self.after.get(name)
        if new is None:
            if may_go:
                self.result.gone.add(name)
            else:
                self.differ(f"{_spoken(old)} {name!r} is gone")
            return
        self.result.nodes += 1
        if (old.op, old.target) != (new.op, new.target):
            self.differ(f"{name!r} was {_spoken(old)} and is {_spoken(new)}")
        elif not self.same_arguments(old, new):
            was, now = (_arguments(node) for node in (old, new))
            self.differ(f"{_spoken(old)} {name!r} was given {was} and is given {now}")

    def same_arguments(self, old: fx.Node, new: fx.Node) -> bool:
        passed_on = self.result.passed_on
        return _alike(old.args, new.args, passed_on) and _alike(old.kwargs, new.kwargs, passed_on)

    def same_call(self, old: fx.Node, new: fx.Node) -> bool:
        return old.target == new.target and self.same_arguments(old, new)

    def layer(self, layer: _Layer) -> None:
        """Claim the new nodes that compute a planned layer from that layer's own inputs."""
        y, still = self.after.get(layer.y.name), self.after.get(layer.node.name)
        if y is None:
            self.differ_at(layer, f"nothing computes {layer.y.name!r} any more")
            return
        if still is not None and still in (y, *y.all_input_nodes) and self.same_call(layer.node, still):
            self.differ_at(layer, "the layer was left as it was")
            self.claimed |= {node.name: layer.name for node in (still, y)}
            return
        call = layer.call
        given = _nodes(call.x, call.weight, call.bias, call.running_mean, call.running_var)
        allowed = {self.result.passed_on.get(node.name, node.name) for node in given}
        pending = [y]
        while pending:
            node = pending.pop()
            if (node is not y and node.name in allowed) or self.claimed.get(node.name) == layer.name:
                continue
            others = node.name in self.claimed or (node.name in self.before and node.name != layer.node.name)
            if node is not y and others:
                self.differ_at(layer, f"it reads {node.name!r}, which the original layer does not")
                continue
            self.claimed[node.name] = layer.name
            if not _only_computes(node):
                self.differ(f"{layer.name}: {_spoken(node)} {node.name!r} does more than to compute a value")
            pending += node.all_input_nodes
        if still is not None and still.name not in self.claimed:
            self.differ_at(layer, f"{_spoken(still)} {still.name!r} is still there")

    def order(self) -> None:
        """Compare the order of nodes, each planned layer as one: where operators write in place, it matters."""
        replaced = {layer.node.name: f"layer {layer.name}" for layer in self.layers}
        folded = {layer.y.name for layer in self.layers} - replaced.keys()
        was = [replaced.get(name, name) for name in self.before if name not in folded]
        now: list[str] = []
        for name in self.after:
            place = f"layer {self.claimed[name]}" if name in self.claimed else name
            if place not in now[-1:]:
                now.append(place)
        common = set(was) & set(now)
        was, now = ([name for name in names if name in common] for names in (was, now))
        differing = next((pair for pair in zip_longest(was, now) if pair[0] != pair[1]), None)
        if differing is not None:
            self.differ(f"the order of nodes differs: {differing[1]} comes where {differing[0]} was")


def _is_idle_item(node: fx.Node, planned: Collection[str]) -> bool:
    """Whether a node takes one result of several and nobody reads it: a file that is loaded has one for each."""
    return node.target is operator.getitem and not node.users and node.name not in planned


def _layer(name: str, y: fx.Node) -> _Layer:
    node = y if operator_name(y.target) is not None else y.all_input_nodes[0]
    return _Layer(name, y, node, read_call(node.target, node.args, node.kwargs))


def _nodes(*values: Any) -> list[fx.Node]:
    return [value for value in values if isinstance(value, fx.Node)]


def _passed_on(layers: Collection[_Layer]) -> dict[str, str]:
    """For each statistic that a layer returns updated: what it is if none of these layers updates it."""
    direct: dict[str, str] = {}
    for layer in layers:
        returned = returned_statistics(layer.node.target)
        for user in layer.node.users:
            index = user.args[1] if user.target is operator.getitem else None
            name = returned.get(index) if isinstance(index, int) else None
            given = None if name is None else getattr(layer.call, name)
            if isinstance(given, fx.Node):
                direct[user.name] = given.name
    resolved = {}
    for name, first in direct.items():
        while first in direct:
            first = direct[first]
        resolved[name] = first
    return resolved


def _only_computes(node: fx.Node) -> bool:
    """Whether a node gives its value and changes nothing."""
    if node.op != "call_function":
        return False
    if isinstance(node.target, torch._ops.OpOverload):
        if node.target._schema.is_mutable:
            return False
        # Schemas of these do not say that they update the running statistics that they are given.
        if operator_name(node.target) is not None:
            call = read_call(node.target, node.args, node.kwargs)
            return not call.trains or call.running_mean is None
        return node.target._schema.name != "aten::instance_norm" or all(
            value is None for value in (*node.args[3:5], node.kwargs.get("running_mean"))
        )
    makes_a_norm = isinstance(node.target, type) and issubclass(node.target, Norm)
    return node.target in _ARITHMETIC or makes_a_norm


def _alike(old: Any, new: Any, passed_on: Mapping[str, str]) -> bool:
    """Whether two arguments say the same, nodes by their names."""
    if isinstance(old, fx.Node) and isinstance(new, fx.Node):
        return passed_on.get(old.name, old.name) == new.name
    if isinstance(old, (tuple, list)) and isinstance(new, (tuple, list)):
        return len(old) == len(new) and all(_alike(a, b, passed_on) for a, b in zip(old, new, strict=True))
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return list(old) == list(new) and all(_alike(old[key], new[key], passed_on) for key in old)
    if isinstance(old, slice) and isinstance(new, slice):
        return all(_alike(getattr(old, at), getattr(new, at), passed_on) for at in ("start", "stop", "step"))
    if type(old) is not type(new):
        return False
    if isinstance(old, torch.Tensor):
        return old.dtype == new.dtype and torch.equal(old, new)
    return repr(old) == repr(new) if isinstance(old, (float, complex)) else bool(old == new)


def _spoken(node: fx.Node) -> str:
    return str(node.target) if node.op in ("call_function", "call_method", "call_module") else node.op


def _arguments(node: fx.Node) -> str:
    named = [f"{name}={value}" for name, value in node.kwargs.items()]
    return f"({', '.join([*map(str, node.args), *named])})"
