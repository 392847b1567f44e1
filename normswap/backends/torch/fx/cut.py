"""Second witness, the fx half: the nodes that compute one value from another, as a function of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from normswap.backends.torch.nodes import Resolve

__all__ = ["cut"]


def cut(
    graph: fx.Graph, y: str, x: str, resolve: Resolve, overrides: Mapping[str, torch.Tensor]
) -> Callable[[torch.Tensor], Any] | str:
    """Cut out what computes one value of a graph from another.

    Args:
        graph: Where both are.
        y: Name of the node to compute.
        x: Name of the node that is given instead of being computed.
        resolve: Gives the stored tensor that a node stands for.
        overrides: Read at each call: tensors in place of stored ones, by the name of the node.

    Returns:
        y as a function of x that changes neither x nor anything stored; or, as a string, why there is none.
    """
    named = {node.name: node for node in graph.nodes}
    if y not in named:
        return f"nothing computes {y!r} any more"
    needed: set[fx.Node] = set()
    stored: dict[str, torch.Tensor] = {}
    pending, reached = [named[y]], False
    while pending:
        node = pending.pop()
        if node.name == x and node is not named[y]:
            reached = True
        elif node not in needed and node.name not in stored:
            tensor = resolve(node)
            if tensor is not None:
                stored[node.name] = tensor.detach()
            elif node.op in ("call_function", "call_method"):
                needed.add(node)
                pending += node.all_input_nodes
            else:
                return f"it depends on {node.name!r}, which is known at run time only"
    if not reached:
        return "its output does not depend on its input"
    nodes = [node for node in graph.nodes if node in needed]

    def run(given: torch.Tensor) -> Any:
        values: dict[str, Any] = {name: overrides.get(name, tensor).clone() for name, tensor in stored.items()}
        values[x] = given.clone()
        for node in nodes:
            args, kwargs = fx.map_arg((node.args, node.kwargs), lambda read: values[read.name])
            values[node.name] = _called(node, args, kwargs)
        return values[y]

    return run


def _called(node: fx.Node, args: Any, kwargs: Any) -> Any:
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    assert callable(node.target), "a function"
    return node.target(*args, **kwargs)
