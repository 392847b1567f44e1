"""Nodes: what one says by itself, of its output, its attributes and the graphs that it holds."""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from typing import Any

import onnx

__all__ = ["attribute_value", "circle_in", "epsilon_of", "first_output", "graphs_in", "outer_reads", "with_subgraphs"]


def first_output(node: onnx.NodeProto) -> str:
    """Return the first output that has a name, or nothing."""
    return next((name for name in node.output if name), "")


def epsilon_of(node: onnx.NodeProto) -> onnx.AttributeProto | None:
    """Return the ``epsilon`` of a node as it is written, perhaps a reference; None where the default holds."""
    return next((attribute for attribute in node.attribute if attribute.name == "epsilon"), None)


def attribute_value(attribute: onnx.AttributeProto) -> Any:
    """Return the value of an attribute, strings as str, as onnx.helper does, whatever its declared type."""
    try:
        value = onnx.helper.get_attribute_value(attribute)
    except ValueError:  # old exporters leave the type out
        return next((getattr(attribute, f) for f in ("f", "i", "s") if attribute.HasField(f)), None)
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def graphs_in(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Return the subgraphs of a node and, recursively, those of their nodes."""
    found: list[onnx.GraphProto] = []
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            found += [graph, *(inner for below in graph.node for inner in graphs_in(below))]
    return found


def with_subgraphs(code: Any) -> list[Any]:
    """Return a graph or function and, recursively, the subgraphs of its nodes."""
    return [code, *(graph for node in code.node for graph in graphs_in(node))]


def circle_in(nodes: Iterable[onnx.NodeProto]) -> list[str]:
    """Return values of nodes that feed one another in a circle, empty where there is none."""
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for node in nodes:
        reads = [*node.input, *(name for graph in graphs_in(node) for name in sorted(outer_reads(graph)))]
        for out in filter(None, node.output):
            sorter.add(out, *reads)
    try:
        sorter.prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle
    return []


def outer_reads(graph: onnx.GraphProto) -> set[str]:
    """Names that a subgraph's own nodes and outputs read and that it does not define itself."""
    inside = {value.name for value in (*graph.input, *graph.initializer)}
    inside |= {name for node in graph.node for name in node.output}
    reads = {name for node in graph.node for name in node.input}
    return (reads | {value.name for value in graph.output}) - inside
