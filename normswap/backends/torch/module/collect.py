"""ModuleCollector: a copy of a module that also tells the statistics of each sample at its BatchNorms' inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn

from normswap.backends.torch.calls import read_call
from normswap.backends.torch.collect import statistics_of
from normswap.backends.torch.module.find import sites
from normswap.backends.torch.module.inputs import called
from normswap.backends.torch.module.model import ModuleModel, copied
from normswap.backends.torch.module.rewrite import swapped
from normswap.backends.torch.running import run_quietly
from normswap.backends.values import Run, SampleStatistics
from normswap.plan import Plan

__all__ = ["ModuleCollector"]


class ModuleCollector:
    """A module that tells what its layers are given; the caller's is copied, and what is drawn at random is seeded.

    Args:
        model: The module.
        plan: How its layers are rewritten first; nothing is where there are no planned layers.
        names: The layers to look at.

    Attributes:
        unobserved: Why a layer's input cannot be seen, by its name.
    """

    def __init__(self, model: ModuleModel, plan: Plan, names: Sequence[str]) -> None:
        self.unobserved: dict[str, str] = {}
        self._seen: dict[str, list[SampleStatistics]] = {}  # of the batch at hand
        self._batches = 0
        copy = replace(model, module=copied(model.module))
        paths: dict[str, str] = {}  # of modules, by the name of the layer
        for number, site in enumerate(sites(copy)):
            name = site.layer.name
            if name not in names:
                continue
            if site.module is None:
                self.unobserved[name] = "it is a functional call in the code, at which nothing can be hooked"
            elif isinstance(site.module, torch.jit.ScriptModule):
                self.unobserved[name] = "it is TorchScript, which calls no hooks"
            elif site.node is None:
                paths[name] = site.path
            else:
                assert isinstance(site.module, fx.GraphModule), "only those have nodes"
                self._look_at_node(site.module, site.node.node, name, number)
        self._module = swapped(copy, plan)
        for name, path in paths.items():
            # After the hooks of its user, which may change what the layer is given.
            self._module.get_submodule(path).register_forward_pre_hook(self._hook(name), with_kwargs=True)

    def __call__(self, arrays: Mapping[str, Any]) -> tuple[Run, dict[str, list[SampleStatistics]]]:
        """Run on one batch; return the outputs, and for each layer the calls seen.

        Raises:
            CannotRunError: If the module raises anything.
        """
        self._seen = {}
        self._batches += 1
        run = run_quietly(called(self._module, arrays), seed=self._batches)
        return run, self._seen

    def _note(self, name: str, x: torch.Tensor) -> None:
        self._seen.setdefault(name, []).append(statistics_of(name, x))

    def _hook(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._note(name, args[0] if args else next(iter(kwargs.values())))

        return hook

    def _look_at_node(self, module: fx.GraphModule, node: fx.Node, name: str, number: int) -> None:
        """Let a node read its input through a module that takes note of it."""
        x = read_call(node.target, node.args, node.kwargs).x
        step = f"_collected_{number}"
        module.add_submodule(step, _Look(lambda value: self._note(name, value)))
        with module.graph.inserting_before(node):
            seen = module.graph.call_module(step, (x,))
        seen.meta.update(x.meta)
        node.replace_input_with(x, seen)
        module.recompile()


class _Look(nn.Module):
    """The identity, which shows what it is given."""

    def __init__(self, note: Any) -> None:
        super().__init__()
        self._show = note

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._show(x)
        return x
