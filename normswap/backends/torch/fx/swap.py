"""Swap a BatchNorm of an fx graph: the target's operators take its place, its name, and what tracing noted of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor

from normswap.backends.torch.calls import BatchNormCall, read_call, returned_statistics
from normswap.backends.torch.nodes import NodeLayer
from normswap.backends.torch.tensors import CHANNELS_LAST, dtype_of
from normswap.layer import NormLayer
from normswap.norms import Norm
from normswap.norms.torch.export import Operands

__all__ = ["swap"]

_PROVENANCE = ("nn_module_stack", "source_fn_stack", "stack_trace", "torch_fn", "from_node", "custom", "seq_nr")


def swap(graph: fx.Graph, layer: NodeLayer, norm: Norm) -> fx.Node:
    """Put the operators of a target where a BatchNorm stands.

    The node that now gives the normalized tensor has the name that it had before. What read the running statistics
    that the BatchNorm returned reads those that it was given.

    Args:
        graph: Changed in place; its module must be recompiled.
        layer: The BatchNorm, from this very graph.
        norm: The target.

    Returns:
        The node that gives the normalized tensor.
    """
    node, y = layer.node, layer.y
    call = read_call(node.target, node.args, node.kwargs)  # again: swapping another layer may have changed it
    assert node.graph is graph and node.op == "call_function", "a layer of this graph"
    before = node.prev
    with graph.inserting_before(node):
        result = _emit(graph, layer.layer, call, norm)
    fresh = _between(before, node)
    assert result in fresh, "every target computes something"
    _describe(fresh, y)
    result = _in_the_format_of(y, result)
    for index, name in returned_statistics(node.target).items():
        for item in _items(node, index):
            item.replace_all_uses_with(getattr(call, name))
    y.replace_all_uses_with(result)
    meta = {key: value for key, value in y.meta.items() if key != "val" or "val" not in result.meta}
    result.meta.update(meta)
    for item in [user for user in node.users if not user.users]:
        graph.erase_node(item)
    graph.erase_node(node)
    result.name = y.name  # free again; Node._rename would find it taken all the same
    return result


def _emit(graph: fx.Graph, layer: NormLayer, call: BatchNormCall, norm: Norm) -> fx.Node:
    """Append the target's operators; where the rank is not known, on (N, C, L)."""
    tracer = fx.proxy.GraphAppendingTracer(graph)

    def proxy(value: Any) -> Any:
        return fx.Proxy(value, tracer) if isinstance(value, fx.Node) else value

    aten = torch.ops.aten
    x, rank = proxy(call.x), layer.rank
    if rank is None:
        flat, rank = aten.flatten.using_ints(aten.unsqueeze.default(x, -1), 2, -1), 3
    else:
        flat = x
    param_dtype = dtype_of(layer.weight.dtype.name if layer.weight is not None else layer.dtype)
    weight, bias, mean, var = map(proxy, (call.weight, call.bias, call.running_mean, call.running_var))
    given = Operands(flat, weight, bias, mean, var, call.eps, rank, dtype_of(layer.dtype), param_dtype)
    y = norm.kernel.export(given)
    if flat is not x:
        y = aten.reshape_as.default(y, x)
    result = y.node
    assert isinstance(result, fx.Node)
    return result


def _between(before: fx.Node, node: fx.Node) -> list[fx.Node]:
    found = []
    while before.next is not node:
        before = before.next
        found.append(before)
    return found


def _items(node: fx.Node, index: int) -> list[fx.Node]:
    return [user for user in node.users if user.args[1:] == (index,)]


def _describe(fresh: list[fx.Node], y: fx.Node) -> None:
    """Say of new nodes where they are from and, as tracing did for all others, what their values are like."""
    for node in fresh:
        node.meta.update({key: y.meta[key] for key in _PROVENANCE if key in y.meta})
        given = {read: read.meta.get("val") for read in node.all_input_nodes}
        fakes = [value for value in given.values() if isinstance(value, FakeTensor)]
        if not fakes or any(value is None for value in given.values()):
            continue
        args, kwargs = fx.map_arg((node.args, node.kwargs), given.__getitem__)
        with _unguarded(fakes[0].fake_mode):
            node.meta["val"] = node.target(*args, **kwargs)  # type: ignore[operator]  # an operator


def _in_the_format_of(y: fx.Node, result: fx.Node) -> fx.Node:
    """Keep a memory format that is known: a view further on may be possible in no other."""
    was, now = y.meta.get("val"), result.meta.get("val")
    if not isinstance(was, FakeTensor) or not isinstance(now, FakeTensor) or was.ndim not in CHANNELS_LAST:
        return result
    memory_format = CHANNELS_LAST[was.ndim]
    with _unguarded(now.fake_mode):
        # With axes of length 1 a tensor is in both formats.
        lost = was.is_contiguous(memory_format=memory_format) and not was.is_contiguous()
        if not lost or now.is_contiguous(memory_format=memory_format):
            return result
    with result.graph.inserting_after(result):
        node = result.graph.call_function(torch.ops.aten.clone.default, (result,), {"memory_format": memory_format})
    _describe([node], y)
    return node


@contextmanager
def _unguarded(mode: Any) -> Iterator[None]:
    """Compute with fake tensors so that nothing is assumed of symbolic sizes that was not before."""
    if mode.shape_env is None:
        with mode:
            yield
        return
    with mode, mode.shape_env.suppress_guards():
        yield
