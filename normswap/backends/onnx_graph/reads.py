"""Who reads what in a graph or function, as the first witness needs it; none of the rewriter's code is used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeAlias

import onnx

from normswap.backends.onnx_graph.graph.nodes import first_output

__all__ = [
    "Slots",
    "by_output",
    "cone",
    "inputs_at",
    "names_read",
    "nested",
    "read_only_there",
    "reads_of",
    "without_inputs",
]

Slots: TypeAlias = Mapping[str, Collection[int]]  # first output of a node -> which of its inputs


def by_output(nodes: Any) -> dict[str, Any]:
    """Name each node by its first output; one without outputs by its place among those."""
    named: dict[str, Any] = {}
    for node in nodes:
        named[first_output(node) or f"(no output {len(named)}) {node.op_type}"] = node
    return named


def nested(code: Any) -> Iterator[Any]:
    """Yield the nodes of a graph or function and, recursively, of its subgraphs."""
    for node in code.node:
        yield node
        for graph in _subgraphs(node):
            yield from nested(graph)


def reads_of(node: Any) -> list[str]:
    """Names that a node reads, those read by its subgraphs and defined outside them included."""
    names = list(node.input)
    for graph in _subgraphs(node):
        inside = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        inside |= {out for inner in graph.node for out in inner.output}
        for inner in graph.node:
            names += [name for name in reads_of(inner) if name not in inside]
        names += [value.name for value in graph.output if value.name not in inside]
    return names


def names_read(code: Any) -> set[str]:
    """Return all names that nodes and outputs read, in subgraphs too."""
    names = {out if isinstance(out, str) else out.name for out in code.output}
    for node in nested(code):
        names.update(node.input)
        names.update(value.name for graph in _subgraphs(node) for value in graph.output)
    return names


def cone(names: list[str], nodes: list[Any]) -> set[str]:
    """All that the values ``names`` are computed from, themselves included."""
    producers = {out: node for node in nodes for out in node.output if out}
    seen: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name and name not in seen:
            seen.add(name)
            if name in producers:
                seen.update(producers[name].output)
                pending += reads_of(producers[name])
    return seen


def without_inputs(node: Any, positions: Collection[int]) -> Any:
    """Leave some inputs out of a node."""
    bare = onnx.NodeProto()
    bare.CopyFrom(node)
    bare.input[:] = [name for position, name in enumerate(node.input) if position not in positions]
    return bare


def inputs_at(node: Any, statistics: Slots) -> list[str]:
    """Return the values at the given inputs of a node."""
    positions = statistics.get(first_output(node), ())
    return [name for position, name in enumerate(node.input) if position in positions]


def read_only_there(code: Any, statistics: Slots) -> set[str]:
    """Return names that are read at these inputs, and by nothing else."""
    nodes = list(nested(code))
    there = Counter(name for node in code.node for name in inputs_at(node, statistics))
    reads = Counter(name for node in nodes for name in node.input)
    reads.update(value.name for graph in (code, *(g for n in nodes for g in _subgraphs(n))) for value in graph.output)
    return {name for name, count in there.items() if count == reads[name]}


def _subgraphs(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
