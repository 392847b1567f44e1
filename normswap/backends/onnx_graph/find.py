"""READERS: which nodes are BatchNorm layers, and what each of them computes.

A new source operator is one reader and one entry in READERS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx

from normswap.backends.onnx_graph.constants import constant, is_constant
from normswap.backends.onnx_graph.model import OnnxModel
from normswap.backends.onnx_graph.scopes import Scope, walk
from normswap.backends.onnx_graph.shapes import dims_of, spelled
from normswap.backends.onnx_graph.statistics import is_instance_in_disguise, recognise
from normswap.layer import Array, NormLayer, Role

__all__ = ["READERS", "Site", "find", "layer_name", "read_batch_normalization", "read_foreign", "sites"]

Reader: TypeAlias = Callable[[Scope, onnx.NodeProto], NormLayer]


@dataclass(frozen=True, eq=False)
class Site:
    """A layer and where it stands: the scope and node that compute it."""

    layer: NormLayer
    scope: Scope
    node: onnx.NodeProto

    @property
    def key(self) -> tuple[tuple[str, ...], str]:
        """Names the node in the model's code: equal for all calls of one function."""
        return self.scope.body, self.node.output[0]


def find(model: OnnxModel) -> tuple[NormLayer, ...]:
    """Return every BatchNorm of the model, in the order of its nodes."""
    return tuple(site.layer for site in sites(model))


def sites(model: OnnxModel) -> Iterator[Site]:
    """Yield every BatchNorm of the model with its place."""
    local = {(function.domain, function.name) for function in model.proto.functions}
    for scope in walk(model):
        for node in scope.nodes:
            domain = "" if node.domain == "ai.onnx" else node.domain
            reader = READERS.get((domain, node.op_type))
            if reader is None and "BatchNorm" in node.op_type and (domain, node.op_type) not in local:
                reader = read_foreign
            if reader is not None and node.output and node.output[0]:
                yield Site(reader(scope, node), scope, node)


def read_batch_normalization(scope: Scope, node: onnx.NodeProto) -> NormLayer:
    """Read ONNX's BatchNormalization of any version.

    References:
        ONNX operator specification, BatchNormalization-1, 6, 7, 9, 14 and 15.
    """
    attributes = scope.attributes(node)
    inputs = [*node.input, *[""] * (5 - len(node.input))]
    x = inputs[0]
    known = scope.value_type(x)
    shape = dims_of(known)
    scale, bias, mean, var = (constant(scope, name) if name else None for name in inputs[1:5])
    dtype = spelled(known) or (str(scale.dtype) if scale is not None else "float32")
    channels = _channels(scale, bias, shape)
    blocked = ""
    role: Role
    if is_constant(scope, x):
        role = "weight"
    elif _trains(scope, node, attributes):
        role = "train"
    elif all(_is_given(scope, name) for name in inputs[3:5]):
        role = "eval"
    elif len(node.input) < 5:
        role = "unknown"
    else:
        role, blocked = recognise(scope, node, dtype, channels)
    if role in ("train", "batch-stat") and is_instance_in_disguise(scope, node):
        role = "instance"
    return NormLayer(
        name=layer_name(scope, node),
        role=role,
        num_features=channels,
        eps=float(attributes.get("epsilon", 1e-5)),
        weight=scale,
        bias=bias,
        running_mean=mean,
        running_var=var,
        dtype=dtype,
        shape=shape,
        body=_shared_body(scope),
        blocked=_obstacle(scope, node, attributes, (scale, bias), channels, shape) or blocked,
    )


def read_foreign(scope: Scope, node: onnx.NodeProto) -> NormLayer:
    """Name a BatchNorm of a domain whose operators we do not know."""
    return NormLayer(
        name=layer_name(scope, node),
        role="unknown",
        num_features=None,
        eps=float("nan"),
        weight=None,
        bias=None,
        running_mean=None,
        running_var=None,
        shape=dims_of(scope.value_type(node.input[0])) if node.input else None,
        body=_shared_body(scope),
        blocked=f"its operator {node.op_type} is of domain {node.domain!r}, whose meaning is not known here",
    )


READERS: dict[tuple[str, str], Reader] = {  # (domain, op_type) -> what the node computes
    ("", "BatchNormalization"): read_batch_normalization,
}


def layer_name(scope: Scope, node: onnx.NodeProto) -> str:
    """Name a layer by the value that it writes, after the path of its scope."""
    return "/".join((*scope.path, node.output[0]))


def _trains(scope: Scope, node: onnx.NodeProto, attributes: dict[str, object]) -> bool:
    """Whether the node normalizes with the statistics of the batch."""
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
    while origin.node is not None and origin.node.op_type in ("Identity", "Cast"):
        origin = origin.scope.resolve(origin.node.input[0])
    return origin.kind == "input" and origin.scope.parent is None and origin.scope.function is None


def _channels(scale: Array | None, bias: Array | None, shape: tuple[object, ...] | None) -> int | None:
    for parameter in (scale, bias):
        if parameter is not None and parameter.ndim == 1:
            return int(parameter.size)
    if shape is not None and len(shape) > 1 and isinstance(shape[1], int):
        return shape[1]
    return None


def _shared_body(scope: Scope) -> str:
    function = scope.function
    return f"{function.domain}::{function.name}" if function is not None else ""


def _obstacle(
    scope: Scope,
    node: onnx.NodeProto,
    attributes: dict[str, object],
    affine: tuple[Array | None, Array | None],
    channels: int | None,
    shape: tuple[object, ...] | None,
) -> str:
    """Say why no target can replace the node, or nothing."""
    if len(node.input) < 5 or not all(node.input[:5]):
        return f"it has {len([name for name in node.input if name])} inputs where BatchNormalization takes 5"
    if scope.function is not None and scope.function is scope.code and scope.caller is None:
        return "its local function is never called, so that nothing is known of its parameters"
    if scope.opset < 9 and not attributes.get("spatial", 1):
        return "spatial=0: its parameters differ for each element of a channel, which no target here expresses"
    for word, name, value in zip(("scale", "bias"), node.input[1:3], affine, strict=True):
        if value is None and not _is_graph_input(scope, name):
            origin = scope.resolve(name)
            source = f"by {origin.node.op_type}" if origin.node is not None else "outside this graph"
            return f"its {word} {name!r} is computed at run time ({source}), not stored; fold constants first"
        if value is not None and value.shape != (channels,):
            return f"its {word} has shape {value.shape}, expected ({channels},)"
        if value is not None and not np.all(np.isfinite(value.astype(np.float64))):
            return f"its {word} {name!r} holds NaN or infinity; mend the weights first"
    if spelled(scope.value_type(node.input[0])) not in (None, "float16", "bfloat16", "float32", "float64"):
        return f"its input is {spelled(scope.value_type(node.input[0]))}, expected floating-point numbers"
    if channels == 0:
        return "it has no channels"
    eps = attributes.get("epsilon", 1e-5)
    if not isinstance(eps, float) or not 0 <= eps < float("inf"):
        return f"its epsilon is {eps!r}, expected a number of at least 0"
    if shape is not None and len(shape) < 2:
        return f"its input has rank {len(shape)}, expected (N, C, ...)"
    if shape is not None and isinstance(shape[1], int) and shape[1] != channels:
        return f"its input has {shape[1]} channels, its parameters {channels}"
    read = [name for name in node.output[1:] if name and name in scope.readers]
    if read:
        return (
            f"its further outputs ({', '.join(read)}: running statistics) are read or are outputs of the graph, "
            "and would be gone"
        )
    return ""
