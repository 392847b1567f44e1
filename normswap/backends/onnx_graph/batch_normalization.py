"""Read ONNX's BatchNormalization: what the node computes, which values it reads, and why no target can replace it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from normswap.backends.onnx_graph.graph.constants import constant, is_constant
from normswap.backends.onnx_graph.graph.nodes import epsilon_of
from normswap.backends.onnx_graph.graph.scopes import Scope
from normswap.backends.onnx_graph.graph.shapes import dims_of, spelled
from normswap.backends.onnx_graph.site import Site, Slot, layer_name, shared_body
from normswap.backends.onnx_graph.statistics import is_instance_in_disguise, recognise
from normswap.layer import Array, NormLayer, Role

__all__ = ["read_batch_normalization", "trains"]

_DEFAULT_EPSILON = float(np.float32(1e-5))  # attributes are float32, and runtimes take the default as one
_INPUTS, _MEAN, _VAR = 5, 3, 4  # how many inputs the operator has, and which of them are statistics
_CHANNEL_AXIS = 1


def read_batch_normalization(scope: Scope, node: onnx.NodeProto) -> Site:
    """Read BatchNormalization of any version; one with fewer than five inputs is blocked.

    References:
        ONNX operator specification, BatchNormalization-1, 6, 7, 9, 14 and 15.
    """
    attributes = scope.attributes(node)
    x, *names = [*node.input, *[""] * (_INPUTS - len(node.input))][:_INPUTS]
    known = scope.value_type(x)
    shape = dims_of(known)
    epsilon = attributes.get("epsilon", _DEFAULT_EPSILON)
    scale, bias, mean, var = (constant(scope, name) if name else None for name in names)
    dtype = spelled(known) or (str(scale.dtype) if scale is not None else "float32")
    channels = _channels((scale, bias, mean, var), shape)
    blocked = ""
    role: Role
    if is_constant(scope, x):
        role = "weight"
    elif trains(scope, node):
        role = "train"
    elif all(_is_given(scope, name) for name in names[2:]):
        role = "eval"
    elif len(node.input) < _INPUTS:
        role = "unknown"
    else:
        role, blocked = recognise(scope, x, names[2], names[3], dtype, channels)
    if role in ("train", "batch-stat") and is_instance_in_disguise(scope, x):
        role = "instance"
    obstacle = _obstacle(scope, node, x, names, attributes, (scale, bias, mean, var), channels, shape)
    layer = NormLayer(
        name=layer_name(scope, node),
        role=role,
        num_features=channels,
        eps=epsilon if isinstance(epsilon, float) else float("nan"),
        weight=scale,
        bias=bias,
        running_mean=mean,
        running_var=var,
        dtype=dtype,
        shape=shape,
        body=shared_body(scope, node),
        blocked=obstacle or blocked,
    )
    mean_slot, var_slot = (Slot(node, at) if at < len(node.input) else None for at in (_MEAN, _VAR))
    return Site(layer, scope, node, x, names[0], names[1], names[2], names[3], mean_slot=mean_slot, var_slot=var_slot)


def trains(scope: Scope, node: onnx.NodeProto) -> bool:
    """Whether a BatchNormalization normalizes with the statistics of the batch."""
    attributes = scope.attributes(node)
    if scope.opset >= 14:
        return bool(attributes.get("training_mode", 0))
    if scope.opset >= 7:
        return len(node.output) > 1
    return not attributes.get("is_test", 0)


def _is_given(scope: Scope, name: str) -> bool:
    """Whether a parameter is stored in the model or given by the caller, not computed from data."""
    return is_constant(scope, name) or _is_graph_input(scope, name)


def _is_graph_input(scope: Scope, name: str) -> bool:
    origin = scope.resolve(name)
    while origin.node is not None and origin.node.op_type in ("Identity", "Cast") and origin.node.input:
        origin = origin.scope.resolve(origin.node.input[0])
    return origin.kind == "input" and origin.scope.parent is None and origin.scope.function is None


def _channels(parameters: Sequence[Array | None], shape: tuple[object, ...] | None) -> int | None:
    for parameter in parameters:
        if parameter is not None and parameter.ndim == 1:
            return int(parameter.size)
    if shape is not None and len(shape) > _CHANNEL_AXIS and isinstance(extent := shape[_CHANNEL_AXIS], int):
        return extent
    return None


def _obstacle(
    scope: Scope,
    node: onnx.NodeProto,
    x: str,
    names: Sequence[str],
    attributes: dict[str, object],
    parameters: Sequence[Array | None],
    channels: int | None,
    shape: tuple[object, ...] | None,
) -> str:
    """Say why no target can replace the node, or nothing."""
    if not x or not all(names):
        return f"it has {len([name for name in node.input if name])} inputs where BatchNormalization takes 5"
    if scope.function is not None and scope.function is scope.code and scope.caller is None:
        return "its local function is never called, so that nothing is known of its parameters"
    if scope.opset < 9 and not attributes.get("spatial", 1):
        return "spatial=0: its parameters differ for each element of a channel, which no target here expresses"
    words = ("scale", "bias", "mean", "variance")
    for word, name, value in zip(words, names, parameters, strict=True):
        if value is None:
            if word in words[:2] and not _is_graph_input(scope, name):
                origin = scope.resolve(name)
                source = f"by {origin.node.op_type}" if origin.node is not None else "outside this graph"
                return f"its {word} {name!r} is computed at run time ({source}), not stored; fold constants first"
        elif value.dtype.kind not in "fV":  # V is how NumPy sorts those of ml_dtypes
            return f"its {word} is of type {value.dtype}, expected a floating-point type"
        elif value.shape != (channels,):
            return f"its {word} has shape {value.shape}, expected ({channels},)"
        elif word in words[:2] and not np.all(np.isfinite(value.astype(np.float64))):
            return f"its {word} {name!r} holds NaN or infinity; mend the weights first"
    dtype = spelled(scope.value_type(x))
    if dtype not in (None, "float16", "bfloat16", "float32", "float64"):
        return f"its input is {dtype}, expected floating-point numbers"
    epsilon = epsilon_of(node)
    if epsilon is not None and epsilon.ref_attr_name and scope.opset < 12:
        return f"its epsilon is an attribute of its local function, which opset {scope.opset} cannot compute with"
    if scope.opset < 7 and scope.function is not None:
        return f"its local function is of opset {scope.opset}, older than ONNX Runtime runs (7)"
    if channels == 0:
        return "it has no channels"
    eps = attributes.get("epsilon", _DEFAULT_EPSILON)
    if not isinstance(eps, float) or not 0 <= eps < float("inf"):
        return f"its epsilon is {eps!r}, expected a number of at least 0"
    if shape is not None and len(shape) < 2:
        return f"its input has rank {len(shape)}, expected (N, C, ...)"
    if shape is not None and isinstance(shape[_CHANNEL_AXIS], int) and shape[_CHANNEL_AXIS] != channels:
        return f"its input has {shape[_CHANNEL_AXIS]} channels, its parameters {channels}"
    read = [name for name in node.output[1:] if name and name in scope.readers]
    if read:
        return (
            f"its further outputs ({', '.join(read)}: running statistics) are read or are outputs of the graph, "
            "and would be gone; where they are outputs, --drop-statistics drops them"
        )
    return ""
