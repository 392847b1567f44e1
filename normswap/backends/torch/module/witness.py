"""Third witness: the original module, its planned BatchNorms run by their own code as the target's formula demands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx, nn

from normswap.backends.torch.calls import read_call
from normswap.backends.torch.module.find import sites
from normswap.backends.torch.module.model import ModuleModel, copied
from normswap.backends.torch.witness import given_statistics, native, stated_meaning
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
        native = plan.norm.formula.native
        original.training = native == "train"  # its own flag alone: the modules that it holds keep their mode
        if native == "given":
            original.register_forward_pre_hook(self._give)  # the last one, which gets what the others make of x
        self._facts = (plan, layer, noise, seed, calls)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        plan, layer, noise, seed, calls = self._facts
        calls[layer.name] += 1
        seed += 7919 * calls[layer.name]  # a prime: calls of one layer draw other noise than the layers after it
        return stated_meaning(plan, layer, self.original, x, noise=noise, seed=seed)

    def _give(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Put other statistics in the place of the module's own, until it has run."""
        layout = layout_of(module)
        assert layout is not None, "the plan blocks others"
        names = (layout.running_mean, layout.running_var)
        stored: list[torch.Tensor | None] = [getattr(module, name) for name in names]
        kept = [None if value is None else value.clone() for value in stored]

        def put(values: Iterable[torch.Tensor | None]) -> None:
            for name, place, value in zip(names, stored, values, strict=True):
                if place is None or value is None:
                    setattr(module, name, value)
                else:
                    place.copy_(value)

        def put_back(*_: Any) -> None:
            put(kept)
            handle.remove()

        handle = module.register_forward_hook(put_back, prepend=True, always_call=True)
        x = args[0]
        given = given_statistics(self._facts[0].norm.formula, x, *kept)
        weight = getattr(module, layout.weight, None)
        dtype = x.dtype if weight is None else weight.dtype  # as a module without statistics would have made them
        put(value.to(dtype) for value in given)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("original"), name)


class _WitnessOfCall(nn.Module):
    """Computes a functional call's meaning by the native kernel."""

    def __init__(self, plan: Plan, layer: NormLayer, noise: float, seed: int, calls: Counter[str]) -> None:
        super().__init__()
        self._facts = (plan, layer, noise, seed, calls)

    def forward(
        self,
        x: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        mean: torch.Tensor | None,
        var: torch.Tensor | None,
    ) -> torch.Tensor:
        plan, layer, noise, seed, calls = self._facts
        calls[layer.name] += 1
        original = native(plan.norm, weight, bias, mean, var, layer.eps)
        return stated_meaning(plan, layer, original, x, noise=noise, seed=seed + 7919 * calls[layer.name])
