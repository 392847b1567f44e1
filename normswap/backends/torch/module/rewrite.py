"""Carry out a plan on a module tree: every place that holds a planned BatchNorm gets its SwappedNorm."""

from __future__ import annotations

from dataclasses import replace

from torch import fx, nn
from torch.nn.parallel import DistributedDataParallel

from normswap.backends.torch.fx import swap
from normswap.backends.torch.module.find import Site, sites
from normswap.backends.torch.module.model import ModuleModel, copied
from normswap.errors import UnsupportedModelError
from normswap.nn import SwappedNorm
from normswap.norms import Norm
from normswap.plan import Plan

__all__ = ["check_in_place", "rewrite", "rewrite_in_place", "swapped"]


def rewrite(model: ModuleModel, plan: Plan) -> ModuleModel:
    """Return a converted copy; parameters are copies too."""
    return replace(model, module=swapped(replace(model, module=copied(model.module)), plan))


def check_in_place(model: ModuleModel, plan: Plan) -> None:
    """Hold a module against what converting it in place needs.

    Raises:
        UnsupportedModelError: If the module itself is the BatchNorm, which cannot become another object, or is
            wrapped in DistributedDataParallel.
    """
    if any(site.module is model.module and site.node is None for site in _planned(model, plan)):
        raise UnsupportedModelError(
            f"{type(model.module).__name__}: the model itself is the BatchNorm, which cannot be replaced in place; "
            "take conversion.model instead"
        )
    if DistributedDataParallel in model.wrappers:
        raise UnsupportedModelError(
            "DistributedDataParallel: it relies on the buffers that it was made with, of which converting takes some "
            "away; convert the module before wrapping it, or take conversion.model instead"
        )


def rewrite_in_place(model: ModuleModel, plan: Plan) -> None:
    """Convert the caller's own module; gamma and beta stay the same Parameter objects."""
    check_in_place(model, plan)
    swapped(model, plan)


def _planned(model: ModuleModel, plan: Plan) -> list[Site]:
    names = {layer.name for layer in plan.layers}
    return [site for site in sites(model) if site.layer.name in names]


def swapped(model: ModuleModel, plan: Plan) -> nn.Module:
    """Convert a module that is there to be changed; return it, or what stands in its place if it is a layer itself."""
    made: dict[nn.Module, SwappedNorm] = {}
    graphs: dict[nn.Module, list[Site]] = {}
    for site in _planned(model, plan):
        assert site.module is not None, "functional calls are blocked"
        if site.node is not None:
            graphs.setdefault(site.module, []).append(site)
        elif site.module not in made:
            made[site.module] = _made(site, plan.norm)
    # First every place, then the replacing, since one module may be held in several places.
    places = [
        (parent, name, child)
        for parent in model.module.modules()
        for name, child in parent._modules.items()
        if child is not None and child in made
    ]
    for parent, name, child in places:
        parent._modules[name] = made[child]
    for graph_module, its in graphs.items():
        assert isinstance(graph_module, fx.GraphModule), "only those have nodes"
        for node in {site.node.y: site.node for site in its if site.node is not None}.values():
            swap(graph_module.graph, node, plan.norm)
        graph_module.graph.lint()
        graph_module.recompile()
    return made.get(model.module, model.module)


def _made(site: Site, norm: Norm) -> SwappedNorm:
    assert site.module is not None and site.layer.num_features is not None, "the plan blocks others"
    return SwappedNorm.in_place_of(site.module, norm, site.layer.num_features)
