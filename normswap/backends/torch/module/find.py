"""Every BatchNorm of a module: modules by their paths, nodes of fx graphs, and functional calls."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn

from normswap.backends.torch.module.kinds import is_batch_norm, obstacle
from normswap.backends.torch.module.model import FunctionalCall, ModuleModel, paths_of
from normswap.backends.torch.module.scan import scan
from normswap.backends.torch.nodes import NodeLayer, Resolve, attribute, node_layers
from normswap.backends.torch.tensors import spelled, to_array
from normswap.layer import Array, Dim, NormLayer, Role
from normswap.nn import Layout, layout_of

__all__ = ["Site", "find", "resolver", "sites"]

_RANKS = {nn.BatchNorm2d: 4, nn.BatchNorm3d: 5}


@dataclass(frozen=True, eq=False)
class Site:
    """A layer and where it stands.

    Attributes:
        layer: As data.
        path: Of ``module`` in the tree.
        module: The BatchNorm module, or the GraphModule that holds ``node``; None for a functional call.
        node: The call in the graph, None where the layer is a module.
    """

    layer: NormLayer
    path: str = ""
    module: nn.Module | None = None
    node: NodeLayer | None = None


def find(model: ModuleModel) -> tuple[NormLayer, ...]:
    """Return every BatchNorm, in the order of the module tree."""
    return tuple(site.layer for site in sites(model))


def sites(model: ModuleModel) -> tuple[Site, ...]:
    """Return every BatchNorm with its place; names are unique."""
    found: list[Site] = []
    names: set[str] = set()
    for site in (*_tree(model), *_functional(model)):
        name, number = site.layer.name, 2
        while name in names:
            name, number = f"{site.layer.name}#{number}", number + 1
        names.add(name)
        found.append(replace(site, layer=replace(site.layer, name=name)))
    return tuple(found)


def _tree(model: ModuleModel) -> Iterator[Site]:
    paths = paths_of(model.module)
    for path, module in model.module.named_modules(remove_duplicate=False):
        body = paths[module][0] if len(paths[module]) > 1 else ""
        if is_batch_norm(module):
            inputs = model.seen.inputs.get(paths[module][0], []) if model.seen is not None else []
            yield Site(_read(path, module, inputs, body), path, module)
        elif isinstance(module, fx.GraphModule):
            for node in node_layers(module.graph, resolver(module)):
                name = f"{path}.{node.layer.name}" if path and not node.layer.name.startswith(path) else node.layer.name
                shared = f"{body}.{node.y.name}" if body else ""
                yield Site(replace(node.layer, name=name, body=shared), path, module, node)


def resolver(module: fx.GraphModule) -> Resolve:
    """Return what gives the stored tensor that a node of a module's graph reads."""

    def resolve(node: fx.Node) -> torch.Tensor | None:
        if node.op != "get_attr":
            return None
        value = attribute(module, str(node.target))
        return value if isinstance(value, torch.Tensor) else None

    return resolve


def _read(path: str, module: nn.Module, inputs: list[tuple[tuple[int, ...], torch.dtype]], body: str) -> NormLayer:
    layout = layout_of(module) or Layout()
    blocked = obstacle(module)
    tensors = {
        name: getattr(module, getattr(layout, name), None) for name in ("weight", "bias", "running_mean", "running_var")
    }
    known = {
        name: tensor
        for name, tensor in tensors.items()
        if isinstance(tensor, torch.Tensor) and not tensor.is_meta and not nn.parameter.is_lazy(tensor)
    }
    channels = next((int(t.numel()) for t in known.values()), None) or getattr(module, "num_features", None) or None
    dtype = inputs[0][1] if inputs else next((t.dtype for t in known.values()), torch.float32)
    role: Role = "batch-stat"
    if tensors["running_mean"] is not None or tensors["running_var"] is not None:
        role = "train" if module.training else "eval"
    if layout_of(module) is None and not isinstance(module, torch.jit.ScriptModule):
        role = "unknown"
    arrays: dict[str, Array | None] = {name: to_array(tensor) for name, tensor in known.items()}
    for name, value in (("weight", 1.0), ("bias", 0.0)):
        if tensors[name] is None and channels is not None:
            arrays[name] = to_array(torch.full((channels,), value, dtype=dtype))
    eps = getattr(module, layout.eps, float("nan"))
    return NormLayer(
        name=path or type(module).__name__,
        role=role,
        num_features=channels,
        eps=float(eps) if isinstance(eps, (int, float)) else float("nan"),
        weight=arrays.get("weight"),
        bias=arrays.get("bias"),
        running_mean=arrays.get("running_mean"),
        running_var=arrays.get("running_var"),
        dtype=spelled(dtype),
        shape=_shape(module, [shape for shape, _ in inputs], channels),
        body=body,
        blocked=blocked or _mixed(inputs),
    )


def _mixed(inputs: list[tuple[tuple[int, ...], torch.dtype]]) -> str:
    found = sorted({spelled(dtype) for _, dtype in inputs})
    return f"it is called with several types ({', '.join(found)})" if len(found) > 1 else ""


def _shape(module: nn.Module, shapes: list[tuple[int, ...]], channels: int | None) -> tuple[Dim, ...] | None:
    """Join the shapes of all calls: a dimension that differs is None.

    The lowest rank stands for them, and a map of one element for all, since those are what a target may refuse.
    """
    if not shapes:
        rank = next((rank for kind, rank in _RANKS.items() if isinstance(module, kind)), None)
        return None if rank is None else (None, channels, *[None] * (rank - 2))
    rank = min(len(shape) for shape in shapes)
    alike = [shape for shape in shapes if len(shape) == rank]
    alike = [shape for shape in alike if math.prod(shape[2:]) == 1] or alike
    joined = [dims[0] if len(set(dims)) == 1 else None for dims in zip(*alike, strict=True)]
    return (None, *joined[1:])  # another batch may come, other images as well, but ranks and channels stay


def _functional(model: ModuleModel) -> Iterator[Site]:
    ran = model.seen.calls if model.seen is not None else []
    for call in ran:
        yield Site(_read_call(call, was_run=True))
    known = {call.name for call in ran}
    for call in scan(model.module):
        if call.name not in known:
            yield Site(_read_call(call, was_run=model.seen is not None))


def _read_call(found: FunctionalCall, *, was_run: bool) -> NormLayer:
    call = found.call
    way = "torch.export.export or torch.fx.symbolic_trace gives a model in which normswap can replace it"
    if found.holder:
        blocked = f"it is called by a {found.holder} that is not registered in the module tree"
    else:
        blocked = f"it is a functional call in the code, which no module holds; {way}"
    if call is None:
        blocked += ", and these inputs do not reach it" if was_run else ""
        return NormLayer(found.name, "unknown", None, float("nan"), None, None, None, None, blocked=blocked)

    def array(value: Any) -> Array | None:
        return to_array(value) if isinstance(value, torch.Tensor) else None

    role: Role = "weight" if found.parameter else "eval"
    if call.trains and not found.parameter:
        role = "train" if call.running_mean is not None else "batch-stat"
    return NormLayer(
        name=found.name,
        role=role,
        num_features=int(call.x.shape[1]) if call.x.ndim > 1 else None,
        eps=call.eps,
        weight=array(call.weight),
        bias=array(call.bias),
        running_mean=array(call.running_mean),
        running_var=array(call.running_var),
        dtype=spelled(call.x.dtype),
        shape=(None, *map(int, call.x.shape[1:])),
        blocked=blocked,
    )
