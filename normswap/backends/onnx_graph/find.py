"""READERS: which nodes are BatchNorm layers, and what each of them computes.

A new source operator is one reader and one entry in READERS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import onnx

from normswap.backends.onnx_graph.graph.constants import constant, is_constant
from normswap.backends.onnx_graph.graph.model import OnnxModel
from normswap.backends.onnx_graph.graph.scopes import Scope, epsilon_of, walk
from normswap.backends.onnx_graph.graph.shapes import dims_of, spelled
from normswap.backends.onnx_graph.statistics import is_instance_in_disguise, recognise
from normswap.layer import Array, NormLayer, Role

__all__ = ["READERS", "Site", "find", "layer_name", "read_batch_normalization", "read_foreign", "sites", "trains"]

Reader: TypeAlias = Callable[[Scope, onnx.NodeProto], NormLayer]


_DEFAULT_EPSILON = float(np.float32(1e-5))  # attributes are float32, and runtimes take the default as one


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


def sites(model: OnnxModel) -> tuple[Site, ...]:
    """Return every BatchNorm of the model with its place; names are unique."""
    local = {(function.domain, function.name) for function in model.proto.functions}
    found: list[Site] = []
    names: set[str] = set()
    for scope in walk(model):
        for node in scope.nodes:
            domain = "" if node.domain == "ai.onnx" else node.domain
            reader = READERS.get((domain, node.op_type))
            if reader is None and "BatchNorm" in node.op_type and (domain, node.op_type) not in local:
                reader = read_foreign
            if reader is None or not node.output or not node.output[0]:
                continue
            layer = reader(scope, node)
            name, number = layer.name, 2
            while name in names:  # a value may be called as the path of another
                name, number = f"{layer.name}#{number}", number + 1
            names.add(name)
            found.append(Site(replace(layer, name=name), scope, node))
    return tuple(_with_one_type_each(found))


def _with_one_type_each(found: list[Site]) -> Iterator[Site]:
    """Block layers of one code whose calls differ in element type: no operators can serve them all."""
    types: dict[object, set[str]] = {}
    for site in found:
        types.setdefault(site.key, set()).add(site.layer.dtype)
    for site in found:
        if len(types[site.key]) > 1 and not site.layer.blocked:
            blocked = f"its local function is called with several types ({', '.join(sorted(types[site.key]))})"
            site = Site(replace(site.layer, blocked=blocked), site.scope, site.node)
        yield site


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
    epsilon = attributes.get("epsilon", _DEFAULT_EPSILON)
    scale, bias, mean, var = (constant(scope, name) if name else None for name in inputs[1:5])
    dtype = spelled(known) or (str(scale.dtype) if scale is not None else "float32")
    channels = _channels((scale, bias, mean, var), shape)
    blocked = ""
    role: Role
    if is_constant(scope, x):
        role = "weight"
    elif trains(scope, node):
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
        eps=epsilon if isinstance(epsilon, float) else float("nan"),
        weight=scale,
        bias=bias,
        running_mean=mean,
        running_var=var,
        dtype=dtype,
        shape=shape,
        body=_shared_body(scope, node),
        blocked=_obstacle(scope, node, attributes, (scale, bias, mean, var), channels, shape) or blocked,
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
        body=_shared_body(scope, node),
        blocked=f"its operator {node.op_type} is of domain {node.domain!r}, whose meaning is not known here",
    )


READERS: dict[tuple[str, str], Reader] = {  # (domain, op_type) -> what the node computes
    ("", "BatchNormalization"): read_batch_normalization,
}


def layer_name(scope: Scope, node: onnx.NodeProto) -> str:
    """Name a layer by the value that it writes, after the path of its scope."""
    return "/".join((*scope.path, node.output[0]))


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
    if shape is not None and len(shape) > 1 and isinstance(shape[1], int):
        return shape[1]
    return None


def _shared_body(scope: Scope, node: onnx.NodeProto) -> str:
    """Name the node within the code of its local function, which all calls share; nothing outside of one."""
    function = scope.function
    if function is None:
        return ""
    inside = scope.body[4:]  # what comes before names the function
    return "/".join((f"{function.domain}::{function.name}", *inside, node.output[0]))


def _obstacle(
    scope: Scope,
    node: onnx.NodeProto,
    attributes: dict[str, object],
    parameters: Sequence[Array | None],
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
    words = ("scale", "bias", "mean", "variance")
    for word, name, value in zip(words, node.input[1:5], parameters, strict=True):
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
    dtype = spelled(scope.value_type(node.input[0]))
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
    if shape is not None and isinstance(shape[1], int) and shape[1] != channels:
        return f"its input has {shape[1]} channels, its parameters {channels}"
    read = [name for name in node.output[1:] if name and name in scope.readers]
    if read:
        return (
            f"its further outputs ({', '.join(read)}: running statistics) are read or are outputs of the graph, "
            "and would be gone; where they are outputs, --drop-statistics drops them"
        )
    return ""
