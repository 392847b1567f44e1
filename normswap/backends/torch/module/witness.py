"""Third witness: the original module, its planned BatchNorms run by their own code in the mode that is meant."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch
from torch import fx, nn

from normswap.backends.torch.calls import read_call
from normswap.backends.torch.module.find import sites
from normswap.backends.torch.module.model import ModuleModel, copied
from normswap.backends.torch.witness import blended, native, stated_meaning
from normswap.layer import NormLayer
from normswap.nn import layout_of
from normswap.plan import Plan

__all__ = ["witness"]


def witness(model: ModuleModel, plan: Plan, *, noise: float, seed: int) -> tuple[nn.Module, Counter[str]]:
    """Return a copy of the original under the target's stated meaning, and how often each layer has run since."""
    copy = ModuleModel(copied(model.module), seen=model.seen)
    planned = {layer.name for layer in plan.layers}
    calls: Counter[str] = Counter()
    stands: dict[nn.Module, _Witness] = {}
    graphs: set[fx.GraphModule] = set()
    for number, site in enumerate(sites(copy)):
        if site.layer.name not in planned or site.module is None:
            continue
        if site.node is None:
            if site.module not in stands:
                stands[site.module] = _Witness(plan, site.layer, site.module, noise, seed + number, calls)
            continue
        assert isinstance(site.module, fx.GraphModule), "only those have nodes"
        node = site.node.node
        call = read_call(node.target, node.args, node.kwargs)  # again: the witness of another layer may have changed it
        name = f"_witness_{number}"
        site.module.add_submodule(name, _WitnessOfCall(plan, site.layer, noise, seed + number, calls))
        with site.module.graph.inserting_before(node):
            args = (call.x, call.weight, call.bias, call.running_mean, call.running_var)
            new = site.module.graph.call_module(name, args)
        site.node.y.replace_all_uses_with(new)
        for idle in (*[user for user in node.users if not user.users], node):
            site.module.graph.erase_node(idle)  # in train mode it would move the statistics that are read here
        graphs.add(site.module)
    for graph_module in graphs:
        graph_module.recompile()
    for parent in list(copy.module.modules()):
        for name, child in parent._modules.items():
            if child in stands:
                parent._modules[name] = stands[child]
    return stands.get(copy.module, copy.module), calls


class _Witness(nn.Module):
    """Runs a BatchNorm module's own code, and answers for its attributes."""

    def __init__(
        self, plan: Plan, layer: NormLayer, original: nn.Module, noise: float, seed: int, calls: Counter[str]
    ) -> None:
        super().__init__()
        self.original = original
        original.training = plan.norm.trains  # its own flag alone: what it holds beside keeps its mode
        if not plan.norm.trains and not math.isinf(plan.norm.prior):
            original.register_forward_pre_hook(self._blend)  # the last one, given what the others make of x
        self._told = (plan, layer, noise, seed, calls)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        plan, layer, noise, seed, calls = self._told
        calls[layer.name] += 1
        seed += 7919 * calls[layer.name]  # a prime: calls of one layer draw other noise than the layers after it
        return stated_meaning(plan, layer, self.original, x, noise=noise, seed=seed)

    def _blend(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Put the statistics of a blend in place of the module's own, until it has run."""
        layout = layout_of(module)
        assert layout is not None, "the plan blocks others"
        stored = [getattr(module, name) for name in (layout.running_mean, layout.running_var)]
        kept = [value.clone() for value in stored]

        def put_back(*_: Any) -> None:
            for value, own in zip(stored, kept, strict=True):
                value.copy_(own)
            handle.remove()

        handle = module.register_forward_hook(put_back, prepend=True, always_call=True)
        for value, mixed in zip(stored, blended(self._told[0].norm, args[0], *kept), strict=True):
            value.copy_(mixed)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("original"), name)


class _WitnessOfCall(nn.Module):
    """Computes a functional call's meaning by the native kernel."""

    def __init__(self, plan: Plan, layer: NormLayer, noise: float, seed: int, calls: Counter[str]) -> None:
        super().__init__()
        self._told = (plan, layer, noise, seed, calls)

    def forward(
        self,
        x: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        mean: torch.Tensor | None,
        var: torch.Tensor | None,
    ) -> torch.Tensor:
        plan, layer, noise, seed, calls = self._told
        calls[layer.name] += 1
        original = native(plan.norm, weight, bias, mean, var, layer.eps)
        return stated_meaning(plan, layer, original, x, noise=noise, seed=seed + 7919 * calls[layer.name])
