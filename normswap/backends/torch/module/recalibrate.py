"""New running statistics in a module: the buffers of a copy get new values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from normswap.backends.torch.module.find import Site, sites
from normswap.backends.torch.module.model import ModuleModel, copied
from normswap.layer import Floats
from normswap.nn import layout_of

__all__ = ["cannot_store", "recalibrated", "statistics_of"]


def cannot_store(model: ModuleModel) -> dict[str, str]:
    """Say why a layer cannot be given new statistics, by its name."""
    modules = list(model.module.modules())
    tensors = [t for module in modules for t in (*module._parameters.values(), *module._buffers.values())]
    memory = Counter(_storage(tensor) for tensor in tensors if tensor is not None)
    reasons = {site.layer.name: _obstacle(site, memory) for site in sites(model)}
    return {name: reason for name, reason in reasons.items() if reason}


def recalibrated(model: ModuleModel, statistics: Mapping[str, tuple[Floats, Floats]]) -> ModuleModel:
    """Return a copy whose layers have other running means and variances; everything else is equal, counters too.

    Args:
        model: The original.
        statistics: Mean and unbiased variance, by the name of the layer; none that ``cannot_store`` names.
    """
    changed = replace(model, module=copied(model.module))
    for site in sites(changed):
        if site.layer.name in statistics:
            for buffer, value in zip(_buffers(site), statistics[site.layer.name], strict=True):
                assert buffer is not None, "cannot_store names layers without"
                with torch.no_grad():
                    buffer.copy_(torch.from_numpy(value))
    return changed


def statistics_of(model: ModuleModel, names: Sequence[str]) -> frozenset[str]:
    """Name the buffers of some layers that hold their statistics, under every path that leads there."""
    modules = {site.module for site in sites(model) if site.layer.name in names and site.module is not None}
    found = set()
    for path, module in model.module.named_modules(remove_duplicate=False):
        if module in modules and (layout := layout_of(module)) is not None:
            found |= {f"{path}{'.' * bool(path)}{name}" for name in (layout.running_mean, layout.running_var)}
    return frozenset(found)


def _obstacle(site: Site, memory: Mapping[int, int]) -> str:
    if site.module is None:
        return "it is a functional call in the code, which stores nothing itself"
    if site.node is not None:
        return "it is a node of a graph; give the module that the graph was made from"
    if isinstance(site.module, torch.jit.ScriptModule) or (layout_of(site.module)) is None:
        return f"its class {type(site.module).__name__} is not understood, nor where it keeps its statistics"
    for word, buffer in zip(("running mean", "running variance"), _buffers(site), strict=True):
        if buffer is None or torch.nn.parameter.is_lazy(buffer) or buffer.is_meta:
            return f"it has no {word} with values"
        if memory[_storage(buffer)] > 1:
            return f"its {word} shares memory with another tensor of the model"
        if buffer.shape != (site.layer.num_features,):
            return f"its {word} has shape {tuple(buffer.shape)}, expected ({site.layer.num_features},)"
    return ""


def _buffers(site: Site) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    assert site.module is not None, "cannot_store names others"
    layout = layout_of(site.module)
    assert layout is not None, "cannot_store names others"
    return getattr(site.module, layout.running_mean), getattr(site.module, layout.running_var)


def _storage(tensor: torch.Tensor) -> int:
    """Return a number for the memory of a tensor; a tensor without memory has one of its own."""
    if torch.nn.parameter.is_lazy(tensor) or tensor.layout is not torch.strided:
        return id(tensor)
    return tensor.untyped_storage().data_ptr() or id(tensor)
