"""First witness: outside the planned layers the two models are the same, node for node and byte for byte.

The comparison reads the two protobufs and nothing that the rewriter made; it shares no code with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import onnx

from normswap.backends.differences import Difference
from normswap.backends.onnx_graph.graph.model import OnnxModel
from normswap.backends.onnx_graph.graph.nodes import first_output
from normswap.backends.onnx_graph.reads import (
    Slots,
    by_output,
    cone,
    inputs_at,
    names_read,
    nested,
    read_only_there,
    reads_of,
    without_inputs,
)
from normswap.backends.onnx_graph.stored import bare, bytes_of, place_of

__all__ = ["Replaced", "Structure", "compare_structure"]

Body: TypeAlias = tuple[str, ...]


@dataclass(frozen=True)
class Replaced:
    """A node that a plan replaces.

    Attributes:
        layer: Name of its layer.
        inputs: Values that the layer reads.
        statistics: Those of them that may be gone: its mean and its variance.
    """

    layer: str
    inputs: frozenset[str]
    statistics: tuple[str, ...]


Planned: TypeAlias = Mapping[Body, Mapping[str, Replaced]]

_RECORD = "normswap"


@dataclass
class Structure:
    """What was compared and what differs.

    Attributes:
        differences: What differs; empty where the structure is proved.
        nodes: How many nodes were compared.
        tensors: How many tensors were compared.
        bytes: How many bytes of tensors were compared.
        by_reference: How many of them are the same bytes of the same file, which need no reading.
    """

    differences: list[Difference] = field(default_factory=list)
    nodes: int = 0
    tensors: int = 0
    bytes: int = 0
    by_reference: int = 0


def compare_structure(
    before: OnnxModel, after: OnnxModel, planned: Planned, statistics: Slots | None = None
) -> Structure:
    """Compare two models outside the planned layers.

    Args:
        before: The original.
        after: What is claimed to be its conversion.
        planned: What is replaced, by body (see Scope.body) and the value that the node writes.
        statistics: Which inputs of nodes of the main graph may be other values, by the first value that the node
            writes: values in the tensors that nothing else reads, or in tensors of their own.
    """
    comparison = _Comparison(before, after, planned, statistics or {})
    comparison.model()
    return comparison.result


class _Comparison:
    def __init__(self, before: OnnxModel, after: OnnxModel, planned: Planned, statistics: Slots) -> None:
        self.before = before
        self.after = after
        self.planned = planned
        self.statistics = statistics
        self.free: set[str] = set()  # what nothing but these statistics' places reads
        self.result = Structure()
        self.served: set[str] = set()  # what only replaced nodes may have needed, in the code at hand
        self.read: set[str] = set()  # what the converted code at hand still reads

    def differ(self, sentence: str) -> None:
        self.result.differences.append(Difference(sentence))

    def differ_at(self, layer: str, sentence: str) -> None:
        self.result.differences.append(Difference(f"{layer}: {sentence}", layer))

    def model(self) -> None:
        old, new = self.before.proto, self.after.proto
        self.fields(old, new, "the model", {"graph", "functions", "metadata_props"})
        self.metadata(old.metadata_props, new.metadata_props, "the model")
        self.whole((), old.graph, new.graph, "the main graph")
        functions = {(f.domain, f.name, getattr(f, "overload", "")): f for f in new.functions}
        for function in old.functions:
            key = (function.domain, function.name, getattr(function, "overload", ""))
            other = functions.pop(key, None)
            label = f"local function {key[0]}::{key[1]}"
            if other is None:
                self.differ(f"{label} is gone")
            else:
                self.whole(("function", *key), function, other, label)
        for key in functions:
            self.differ(f"local function {key[0]}::{key[1]} is new")

    def metadata(self, old: Any, new: Any, label: str) -> None:
        """All entries are still there; only the record of conversions may be new or grow."""
        before = [(p.key, p.value) for p in old if p.key != _RECORD]
        after = [(p.key, p.value) for p in new if p.key != _RECORD]
        if before != after:
            self.differ(f"the metadata of {label} differ")

    def fields(self, old: Any, new: Any, label: str, handled: set[str]) -> None:
        """Every field that has no rule of its own is equal."""
        for descriptor in old.DESCRIPTOR.fields:
            if descriptor.name not in handled and getattr(old, descriptor.name) != getattr(new, descriptor.name):
                self.differ(f"field {descriptor.name} of {label} differs")

    def whole(self, body: Body, old: Any, new: Any, label: str) -> None:
        """Compare the main graph or a function, with the subgraphs in it."""
        nodes = list(nested(old))
        statistics = [
            name
            for inner, planned in self.planned.items()
            if inner[: len(body)] == body and (body or inner[:1] != ("function",))
            for node in nodes
            if first_output(node) in planned
            for name in planned[first_output(node)].statistics
        ]
        if not body:
            places = [name for node in nodes for name in inputs_at(node, self.statistics)]
            self.free = read_only_there(new, self.statistics)
            statistics += places
        self.served = cone(statistics, nodes)
        self.read = names_read(new)
        self.code(body, old, new, label)

    def code(self, body: Body, old: Any, new: Any, label: str) -> None:
        planned = self.planned.get(body, {})
        handled = {"node", "initializer", "sparse_initializer", "value_info"}
        self.fields(old, new, label, handled)
        nodes_before = by_output(old.node)
        nodes_after = by_output(new.node)
        fresh: dict[str, Any] = {}
        for key, node in nodes_after.items():
            other = nodes_before.get(key)
            if other is None:
                fresh[key] = node
            elif key in planned:
                if node == other:
                    self.differ_at(planned[key].layer, "the layer was left as it was")
                fresh[key] = node
            elif not body and key in self.statistics:
                left_out = self.statistics[key]
                self.node(body, without_inputs(other, left_out), without_inputs(node, left_out), label)
            else:
                self.node(body, other, node, label)
        for key, replaced in planned.items():
            if key not in nodes_after:
                self.differ_at(replaced.layer, f"nothing computes {key!r} any more")
        claimed = self.regions(planned, fresh)
        for key, node in fresh.items():
            if key not in claimed and not (not body and node.op_type == "Constant" and key in self.free):
                self.differ(f"{label}: {node.op_type} {key!r} is new and belongs to no planned layer")
        for key, node in nodes_before.items():
            if key in nodes_after or key in planned:
                continue
            if key not in self.served or any(out in self.read for out in node.output):
                self.differ(f"{label}: {node.op_type} {key!r} is gone")
        gone = {out for key, node in nodes_before.items() if key not in nodes_after for out in node.output}
        self.tensors(old, new, label, self.free if not body else set())
        if hasattr(old, "value_info"):
            self.value_info(old, new, label, gone | self.served, set(fresh))

    def regions(self, planned: Mapping[str, Replaced], fresh: Mapping[str, Any]) -> set[str]:
        """Claim the new nodes that compute each planned layer from that layer's own inputs."""
        producers = {out: (key, node) for key, node in fresh.items() for out in node.output if out}
        claimed: set[str] = set()
        for y, replaced in planned.items():
            pending, seen = [y], set()
            while pending:
                name = pending.pop()
                if name in seen or not name or (name in replaced.inputs and name != y):
                    continue
                seen.add(name)
                if name not in producers:
                    self.differ_at(replaced.layer, f"it reads {name!r}, which the original layer does not")
                    continue
                key, node = producers[name]
                claimed.add(key)
                pending += reads_of(node)
        return claimed

    def node(self, body: Body, old: Any, new: Any, label: str) -> None:
        self.result.nodes += 1
        where = f"{label}: {old.op_type} {first_output(old)!r}"
        self.fields(old, new, where, {"attribute"})
        before = {attribute.name: attribute for attribute in old.attribute}
        after = {attribute.name: attribute for attribute in new.attribute}
        if list(before) != list(after):
            self.differ(f"{where} has other attributes")
            return
        for name, attribute in before.items():
            other = after[name]
            if attribute.HasField("t") and other.HasField("t"):
                self.tensor(attribute.t, other.t, where)
            self.fields(attribute, other, f"attribute {name} of {where}", {"t", "g", "graphs"})
            if attribute.HasField("t") != other.HasField("t") or len(attribute.graphs) != len(other.graphs):
                self.differ(f"attribute {name} of {where} differs")
                continue
            owner = first_output(old) or old.name
            if attribute.HasField("g") or other.HasField("g"):
                step = f"{owner}:{name}"
                self.code((*body, step), attribute.g, other.g, step)
            for index, (graph, new_graph) in enumerate(zip(attribute.graphs, other.graphs, strict=True)):
                step = f"{owner}:{name}[{index}]"
                self.code((*body, step), graph, new_graph, step)

    def tensors(self, old: Any, new: Any, label: str, free: set[str]) -> None:
        before = {tensor.name: tensor for tensor in getattr(old, "initializer", ())}
        after = {tensor.name: tensor for tensor in getattr(new, "initializer", ())}
        for name, tensor in before.items():
            if name in free and name in after:
                self.shape(tensor, after[name], label)
                self.fields(bare(tensor), bare(after[name]), f"tensor {name!r}", set())
            elif name in after:
                self.tensor(tensor, after[name], label)
            elif name not in self.served or name in self.read:
                self.differ(f"{label}: tensor {name!r} is gone")
        for name in after.keys() - before.keys() - free:
            self.differ(f"{label}: tensor {name!r} is new")
        if list(getattr(old, "sparse_initializer", ())) != list(getattr(new, "sparse_initializer", ())):
            self.differ(f"{label}: the sparse tensors differ")

    def tensor(self, old: onnx.TensorProto, new: onnx.TensorProto, label: str) -> None:
        """Compare two tensors byte for byte, streamed where they lie on disk."""
        self.result.tensors += 1
        if not self.shape(old, new, label):
            return
        places = place_of(self.before, old), place_of(self.after, new)
        if places[0] is not None and places[0] == places[1]:
            self.result.by_reference += 1
            self.result.bytes += places[0].length
            return
        if places == (None, None) and old == new:
            self.result.bytes += len(old.raw_data)
            return
        self.fields(bare(old), bare(new), f"tensor {old.name!r}", set())
        same = True
        pairs = zip(bytes_of(self.before, old, places[0]), bytes_of(self.after, new, places[1]), strict=True)
        for one, other in pairs:
            self.result.bytes += len(one)
            same = same and one == other
        if not same:
            self.differ(f"{label}: the values of tensor {old.name!r} differ")

    def shape(self, old: onnx.TensorProto, new: onnx.TensorProto, label: str) -> bool:
        same = (old.name, list(old.dims), old.data_type) == (new.name, list(new.dims), new.data_type)
        if not same:
            self.differ(f"{label}: tensor {old.name!r} has another shape or type")
        return same

    def value_info(self, old: Any, new: Any, label: str, gone: set[str], fresh: set[str]) -> None:
        before = {value.name: value for value in old.value_info}
        after = {value.name: value for value in new.value_info}
        for name, value in before.items():
            if name in after and after[name] != value:
                self.differ(f"{label}: the declared type of {name!r} differs")
            elif name not in after and name not in gone:
                self.differ(f"{label}: the declared type of {name!r} is gone")
        for name in after.keys() - before.keys() - fresh:
            self.differ(f"{label}: a declared type of {name!r} is new")
