"""nn.Module: find, rewrite and run BatchNorm modules by their paths, and calls in fx graphs by their nodes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from normswap.backends.torch.module.collect import ModuleCollector
from normswap.backends.torch.module.compare import compare, compare_recalibrated
from normswap.backends.torch.module.find import find
from normswap.backends.torch.module.inputs import ModuleInputs, called
from normswap.backends.torch.module.model import ModuleModel, copied, unwrapped
from normswap.backends.torch.module.probe import cut
from normswap.backends.torch.module.recalibrate import cannot_store, recalibrated
from normswap.backends.torch.module.rewrite import check_in_place, rewrite, rewrite_in_place
from normswap.backends.torch.module.save import ModuleWriting, check_target
from normswap.backends.torch.module.watch import watch
from normswap.backends.torch.module.witness import witness
from normswap.backends.torch.running import run_quietly
from normswap.backends.values import Feed, Run, Variance
from normswap.layer import NormLayer
from normswap.nn import SwappedNorm
from normswap.plan import Plan

__all__ = [
    "VARIANCE",
    "WAYS",
    "ModuleModel",
    "cannot_store",
    "check_in_place",
    "check_target",
    "collector",
    "compare",
    "compare_recalibrated",
    "cut",
    "find",
    "inputs",
    "load",
    "observe",
    "prepare",
    "recalibrated",
    "remarks",
    "rewrite",
    "rewrite_in_place",
    "run",
    "run_reference",
    "writing",
]

WAYS: Sequence[str] = ("eager",)
VARIANCE: Variance = "unbiased"  # as BatchNorm stores running_var, which it normalizes with in eval mode


def load(source: nn.Module | ModuleModel, *, drop_statistics: bool = False) -> ModuleModel:
    """Take a module; wrappers for training and compiling are taken off. Its statistics are no outputs to drop."""
    return source if isinstance(source, ModuleModel) else unwrapped(source)


def inputs(model: ModuleModel) -> ModuleInputs:
    """Return the inputs of a model."""
    return ModuleInputs(model.module)


def observe(model: ModuleModel, feeds: Callable[[ModuleModel], Sequence[Feed]], *, given: bool) -> ModuleModel:
    """Run a copy once: shapes of layers, and functional calls, are known from then on.

    Raises:
        CannotRunError: If it does not run on inputs that were given.
    """
    if model.seen is not None:
        return model
    return replace(model, seen=watch(model.module, feeds(model), given=given))


def prepare(model: ModuleModel) -> ModuleModel:
    """Return the model itself: targets can be written in any module."""
    return model


def remarks(model: ModuleModel, layers: Sequence[NormLayer]) -> list[str]:
    """Return sentences for people, the most important first."""
    found = list(model.notes)
    kinds = [type(module).__name__ for module in model.module.modules()]
    if not layers:
        found.append("no BatchNorm is left in this model")
    instance = sum(name.startswith(("InstanceNorm", "LazyInstanceNorm", "GroupNorm")) for name in kinds)
    if instance:
        found.append(f"it normalizes each sample by itself already in {instance} InstanceNorm or GroupNorm modules")
    swapped = [module for module in model.module.modules() if isinstance(module, SwappedNorm)]
    if swapped:
        targets = sorted({module.norm.name for module in swapped})
        found.append(f"converted before: {len(swapped)} layers to {', '.join(targets)} by normswap")
    return found


def run(model: ModuleModel, arrays: Mapping[str, Any], *, how: str) -> Run:
    """Run a copy of the model on bound arguments, its random numbers seeded."""
    return run_quietly(called(copied(model.module), arrays))


def run_reference(model: ModuleModel, plan: Plan, arrays: Mapping[str, Any], *, noise: float, seed: int) -> Run:
    """Run the original with its planned layers under the target's stated meaning, seeded as in ``run``."""
    module, calls = witness(model, plan, noise=noise, seed=seed)
    found = run_quietly(called(module, arrays))
    return replace(found, calls={layer.name: calls[layer.name] for layer in plan.layers if not layer.body})


def collector(model: ModuleModel, plan: Plan, names: Sequence[str]) -> ModuleCollector:
    """Rewrite a copy by the plan, and make the inputs of these layers seen."""
    return ModuleCollector(model, plan, names)


def writing(
    model: ModuleModel, path: str | os.PathLike[str], *, force: bool = False, feeds: Sequence[Feed] | None = None
) -> ModuleWriting:
    """Begin to write a model aside."""
    return ModuleWriting(model, path, force=force, feeds=feeds)
