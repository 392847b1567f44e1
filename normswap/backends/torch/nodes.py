"""BatchNorm as a node of an fx graph: which nodes they are, and what each of them computes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import fx

from normswap.backends.torch.calls import BatchNormCall, operator_name, read_call
from normswap.backends.torch.tensors import spelled, to_array
from normswap.layer import Array, Dim, NormLayer, Role

__all__ = ["NodeLayer", "Resolve", "attribute", "node_layers", "parameters_alone", "shape_of"]

Resolve: TypeAlias = Callable[[fx.Node], "torch.Tensor | None"]  # the tensor that a node stands for, if one is stored

_VIEWS = {"view", "reshape", "_unsafe_view"}


@dataclass(frozen=True, eq=False)
class NodeLayer:
    """A BatchNorm that is a node.

    Attributes:
        layer: As data, named by ``name_of``, before names are made unique.
        node: The node that calls the operator.
        y: The node that stands for the normalized tensor, ``node`` itself or its first item.
        call: Its arguments.
    """

    layer: NormLayer
    node: fx.Node
    y: fx.Node
    call: BatchNormCall


def node_layers(graph: fx.Graph, resolve: Resolve, *, carried: frozenset[fx.Node] = frozenset()) -> Iterator[NodeLayer]:
    """Yield every BatchNorm of a graph.

    Args:
        graph: Its own nodes; graphs that it calls are not looked into.
        resolve: Gives the stored tensor that a node stands for.
        carried: Nodes whose values nobody misses: updated running statistics on their way to where they are stored.
    """
    for node in graph.nodes:
        if node.op == "call_function" and operator_name(node.target) is not None:
            yield _read(node, resolve, carried)


def _read(node: fx.Node, resolve: Resolve, carried: frozenset[fx.Node]) -> NodeLayer:
    call = read_call(node.target, node.args, node.kwargs)
    items = {user.args[1]: user for user in node.users if user.target is operator.getitem}
    y = items.get(0, node) if call.many else node
    names = ("weight", "bias", "running_mean", "running_var")
    tensors = {name: _stored(getattr(call, name), resolve) for name in names}
    arrays: dict[str, Array | None] = {name: None if t is None else to_array(t) for name, t in tensors.items()}
    shape = shape_of(call.x)
    dtype = _dtype(call.x) or next((spelled(t.dtype) for t in tensors.values() if t is not None), "float32")
    channels = next((int(array.size) for array in arrays.values() if array is not None), None)
    if channels is None and shape is not None and len(shape) > 1 and isinstance(shape[1], int):
        channels = shape[1]
    role: Role = "eval"
    if parameters_alone(call.x, resolve):
        role = "weight"
    elif _is_instance_in_disguise(call):
        role = "instance"
    elif call.trains:
        role = "train" if call.running_mean is not None else "batch-stat"
    elif tensors["running_mean"] is None or tensors["running_var"] is None:
        role = "unknown"
    return NodeLayer(
        NormLayer(
            name=_name_of(node, y),
            role=role,
            num_features=channels,
            eps=call.eps,
            weight=_filled(arrays["weight"], call.weight, channels, 1.0, dtype),
            bias=_filled(arrays["bias"], call.bias, channels, 0.0, dtype),
            running_mean=arrays["running_mean"],
            running_var=arrays["running_var"],
            dtype=dtype,
            shape=shape,
            blocked=_obstacle(call, tensors, channels, shape, role, items, carried),
        ),
        node,
        y,
        call,
    )


def _obstacle(
    call: BatchNormCall,
    tensors: dict[str, torch.Tensor | None],
    channels: int | None,
    shape: tuple[Dim, ...] | None,
    role: Role,
    items: dict[Any, fx.Node],
    carried: frozenset[fx.Node],
) -> str:
    """Say why no target can replace the call, or nothing."""
    if role == "instance":
        return ""  # each target says for itself what it makes of one
    for name, tensor in tensors.items():
        given = getattr(call, name)
        if given is not None and tensor is None:
            return f"its {name} ({given}) is computed at run time, not stored in the model"
        if tensor is not None and tuple(tensor.shape) != (channels,):
            return f"its {name} has shape {tuple(tensor.shape)}, expected ({channels},)"
        if tensor is not None and name in ("weight", "bias") and not torch.isfinite(tensor).all():
            return f"its {name} holds NaN or infinity; mend the weights first"
    if not channels:
        return "its number of channels is not known; give the model as an ExportedProgram, which knows its shapes"
    if role == "unknown":
        return "it is in evaluation mode and has no running statistics"
    if shape is not None and len(shape) < 2:
        return f"its input has rank {len(shape)}, expected (N, C, ...)"
    if not 0 <= call.eps < float("inf"):
        return f"its eps is {call.eps!r}, expected a number of at least 0"
    read = [str(item) for index, item in items.items() if index != 0 and item.users and item not in carried]
    if read:
        return f"its further results ({', '.join(read)}: statistics) are read and would be gone"
    return ""


def _stored(value: Any, resolve: Resolve) -> torch.Tensor | None:
    return resolve(value) if isinstance(value, fx.Node) else None


def _filled(array: Array | None, given: Any, channels: int | None, value: float, dtype: str) -> Array | None:
    """What a layer without weight or bias multiplies by and adds."""
    if array is not None or given is not None or channels is None:
        return array
    tensor = torch.full((channels,), value, dtype=getattr(torch, dtype, torch.float32))
    return to_array(tensor)


def shape_of(node: Any) -> tuple[Dim, ...] | None:
    """Return what is known of the shape of a node's value: numbers, and the names of symbolic dimensions."""
    value = _value(node)
    if value is None:
        return None
    return tuple(dim if isinstance(dim, int) else str(dim) for dim in value.shape)


def _dtype(node: Any) -> str | None:
    value = _value(node)
    return None if value is None else spelled(value.dtype)


def _value(node: Any) -> Any:
    """Return what tracing noted of a node's value: a fake tensor, or the metadata that ShapeProp leaves."""
    if not isinstance(node, fx.Node):
        return None
    for key in ("val", "example_value", "tensor_meta"):
        value = node.meta.get(key)
        if hasattr(value, "shape") and hasattr(value, "dtype"):
            return value
    return None


def _name_of(node: fx.Node, y: fx.Node) -> str:
    """Name a layer by the path of the module that it was, where tracing noted one, else by its node."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if stack:
        path, kind = stack[-1][0], stack[-1][1]
        name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
        if "batchnorm" in name.rpartition(".")[2].lower():
            return str(path).removeprefix("L['self'].") or y.name
    return y.name


def parameters_alone(node: Any, resolve: Resolve) -> bool:
    """Whether a value is computed from stored tensors and nothing else."""
    pending, seen = [node], set()
    found = False
    while pending:
        current = pending.pop()
        if not isinstance(current, fx.Node) or current in seen:
            continue
        seen.add(current)
        if resolve(current) is not None:
            found = True
        elif current.op in ("placeholder", "call_module"):
            return False
        else:
            pending += current.all_input_nodes
    return found


def _is_instance_in_disguise(call: BatchNormCall) -> bool:
    """Whether x is a batch folded into the channels, (N, C, ...) -> (1, N * C, ...), as InstanceNorm decomposes to."""
    if not isinstance(call.x, fx.Node) or not call.x.args:
        return False
    name = getattr(call.x.target, "__name__", str(call.x.target)).partition(".")[0]
    after, before = shape_of(call.x), shape_of(call.x.args[0])
    if name not in _VIEWS or after is None or before is None or len(after) < 3 or len(before) != len(after):
        return False
    return after[0] == 1 and after[2:] == before[2:] and before[1] != after[1]


def attribute(module: torch.nn.Module, target: str) -> Any:
    """Follow a dotted name; None where it leads nowhere."""
    value: Any = module
    for part in target.split("."):
        value = getattr(value, part, None)
    return value
