"""Second witness, the nn.Module half: one converted layer, taken out of the tree and run alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import fx, nn

from normswap.backends.torch.fx import cut as cut_graph
from normswap.backends.torch.module.find import Site, resolver, sites
from normswap.backends.torch.module.model import ModuleModel, copied
from normswap.backends.torch.probe import CutLayer
from normswap.layer import NormLayer
from normswap.nn import SwappedNorm
from normswap.plan import Plan

__all__ = ["CutLayer", "cut"]


def cut(before: ModuleModel, after: ModuleModel, plan: Plan, *, free: tuple[str, ...] = ()) -> Iterator[CutLayer]:
    """Take every planned layer out of the converted model.

    Args:
        before: The original, which says what each layer reads.
        after: The converted model.
        plan: The layers.
        free: Parameters to leave open.
    """
    planned = {layer.name for layer in plan.layers}
    modules = dict(after.module.named_modules(remove_duplicate=False))
    for site in sites(before):
        if site.layer.name not in planned:
            continue
        rank = site.layer.rank or (3 if isinstance(site.module, nn.BatchNorm1d) else 4)
        if site.node is not None:
            yield _cut_node(site, modules.get(site.path), free, rank)
            continue
        module = modules.get(site.path)
        if module is None:
            yield CutLayer(site.layer, {}, rank=rank, trouble="its module is gone")
            continue
        yield _cut_module(site.layer, copied(module), free, rank)


def _cut_module(layer: NormLayer, module: nn.Module, free: tuple[str, ...], rank: int) -> CutLayer:
    missing = [name for name in free if not isinstance(getattr(module, name, None), torch.Tensor)]
    if missing:
        return CutLayer(layer, {}, rank=rank, trouble=f"it holds no {missing[0]}")
    ways: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"as it runs": module.forward}  # hooks are left out
    if isinstance(module, SwappedNorm):
        module.after = ()  # the probes are of the normalization alone
        for name, form in module.norm.kernel.forms.items():
            ways[name] = _forced(module, form)
    tensors = [*module.parameters(), *module.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu")
    return CutLayer(layer, ways, device, {name: _setter(module, name) for name in free}, rank)


def _forced(module: SwappedNorm, form: Callable[..., torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    def run(x: torch.Tensor) -> torch.Tensor:
        return form(x, module.weight, module.bias, module.running_mean, module.running_var, module.eps)

    return run


def _setter(module: nn.Module, name: str) -> Callable[[torch.Tensor], None]:
    def put(value: torch.Tensor) -> None:
        with torch.no_grad():
            getattr(module, name).copy_(value)

    return put


def _cut_node(site: Site, module: nn.Module | None, free: tuple[str, ...], rank: int) -> CutLayer:
    if not isinstance(module, fx.GraphModule) or site.node is None:
        return CutLayer(site.layer, {}, rank=rank, trouble="its graph is gone")
    overrides: dict[str, torch.Tensor] = {}
    run = cut_graph(module.graph, site.node.y.name, site.node.call.x.name, resolver(module), overrides)
    if isinstance(run, str):
        return CutLayer(site.layer, {}, rank=rank, trouble=run)
    opened = {name: partial(overrides.__setitem__, getattr(site.node.call, name).name) for name in free}
    return CutLayer(site.layer, {"as it runs": run}, free=opened, rank=rank)
