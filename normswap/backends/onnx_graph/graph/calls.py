"""Calls of local functions: that they end, and do not unfold into more than anything here could walk through.

A file of a few hundred bytes can call two functions from each of thirty, which unfold into 2 ** 30 nodes. onnx's shape
inference, ONNX Runtime and this package unfold them all, so that they are counted before anything else is done.
"""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from typing import TypeAlias

import onnx

from normswap.backends.onnx_graph.graph.model import OnnxModel
from normswap.errors import UnsupportedModelError

__all__ = ["FunctionKey", "called_by", "key_of", "raise_for_endless_calls"]

FunctionKey: TypeAlias = tuple[str, str, str]

_DEEPEST = 64  # nesting of calls and subgraphs
_MOST = 20_000  # nodes that come of calls, which take some seconds here and in ONNX Runtime


def key_of(function: onnx.FunctionProto) -> FunctionKey:
    """Return what a call names a function by."""
    return _plain(function.domain), function.name, getattr(function, "overload", "")


def called_by(node: onnx.NodeProto) -> FunctionKey:
    """Return the key of the function that a node calls, if there is one of that key."""
    return _plain(node.domain), node.op_type, getattr(node, "overload", "")


def _plain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def raise_for_endless_calls(model: OnnxModel) -> None:
    """Raise UnsupportedModelError if a function calls itself, or calls nest too deep or unfold into too much."""
    name = model.path or "the model"
    functions: dict[FunctionKey, onnx.FunctionProto] = {}
    for function in model.proto.functions:
        if functions.setdefault(key_of(function), function) is not function:
            raise UnsupportedModelError(f"{name}: two local functions are called {function.domain}::{function.name}")
    codes = {key: _flat(function.node) for key, function in functions.items()}
    sorter: TopologicalSorter[FunctionKey] = TopologicalSorter(
        {key: [called for node, _ in nodes if (called := called_by(node)) in functions] for key, nodes in codes.items()}
    )
    try:
        order = list(sorter.static_order())
    except CycleError as error:
        first = error.args[1][0]
        raise UnsupportedModelError(f"{name}: local function {first[0]}::{first[1]} calls itself") from error
    sizes: dict[FunctionKey, int] = {}
    depths: dict[FunctionKey, int] = {}

    def size_and_depth(nodes: list[tuple[onnx.NodeProto, int]]) -> tuple[int, int]:
        called = [(called_by(node), depth) for node, depth in nodes]
        return (
            sum(sizes[key] for key, _ in called if key in sizes),
            max((depth + (1 + depths[key] if key in depths else 0) for key, depth in called), default=0),
        )

    for key in order:
        size, depths[key] = size_and_depth(codes[key])
        sizes[key] = len(codes[key]) + size
    size, depth = size_and_depth(_flat(model.proto.graph.node))
    if max((depth, *depths.values())) > _DEEPEST:
        raise UnsupportedModelError(f"{name}: its subgraphs or local functions nest more than {_DEEPEST} deep")
    if size > _MOST:
        raise UnsupportedModelError(
            f"{name}: the calls of its local functions unfold into {size:.3g} nodes, more than {_MOST:,}"
        )


def _flat(nodes: Iterable[onnx.NodeProto], depth: int = 0) -> list[tuple[onnx.NodeProto, int]]:
    """Return nodes and those of their subgraphs, each with its depth."""
    found = []
    for node in nodes:
        found.append((node, depth))
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                found += _flat(graph.node, depth + 1)
    return found
