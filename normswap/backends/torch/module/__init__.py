"""nn.Module: find, rewrite and run BatchNorm modules by their paths, and calls in fx graphs by their nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from normswap.backends import Feed, Run
from normswap.backends.differences import recalibration_checks, structure_checks
from normswap.backends.inputs import BATCH
from normswap.backends.torch.module import inputs as _inputs
from normswap.backends.torch.module.collect import Gatherer
from normswap.backends.torch.module.find import find, sites
from normswap.backends.torch.module.inputs import Arguments, called
from normswap.backends.torch.module.model import ModuleModel, copied, unwrapped
from normswap.backends.torch.module.probe import CutLayer, cut_layers
from normswap.backends.torch.module.recalibrate import cannot_store, recalibrated, statistics_of
from normswap.backends.torch.module.rewrite import check_in_place, rewrite, rewrite_in_place
from normswap.backends.torch.module.save import Writing, check_target, save
from normswap.backends.torch.module.structure import compare_structure as _compare_structure
from normswap.backends.torch.module.watch import watch
from normswap.backends.torch.module.witness import witness
from normswap.backends.torch.running import run_quietly
from normswap.data.declared import Declared
from normswap.layer import Array, NormLayer
from normswap.nn import Layout, SwappedNorm, layout_of
from normswap.plan import Plan
from normswap.report import Check
from normswap.words import counted, some

__all__ = [
    "DECLARES_INPUTS",
    "GATHERS",
    "RUNS_ELSEWHERE",
    "VARIANCE",
    "WAYS",
    "CutLayer",
    "Gatherer",
    "ModuleModel",
    "Writing",
    "cannot_store",
    "check_in_place",
    "check_target",
    "compare_recalibrated",
    "compare_structure",
    "cut_layers",
    "declared",
    "feeds",
    "find",
    "fit",
    "load",
    "notes",
    "observe",
    "plain",
    "prepare",
    "public",
    "recalibrated",
    "remarks",
    "rewrite",
    "rewrite_in_place",
    "run",
    "run_reference",
    "save",
    "without_statistics",
]

WAYS = ("eager",)
DECLARES_INPUTS = False
RUNS_ELSEWHERE = False
GATHERS = True
VARIANCE = "unbiased"  # as BatchNorm stores running_var, which it normalizes with in eval mode alone


def load(source: nn.Module | ModuleModel) -> ModuleModel:
    """Take a module; wrappers for training and compiling are taken off."""
    return source if isinstance(source, ModuleModel) else unwrapped(source)


def public(model: ModuleModel) -> nn.Module:
    """Return what the caller gets: the module."""
    return model.module


def observe(model: ModuleModel, feeds: Callable[[ModuleModel], Sequence[Feed]], *, given: bool) -> ModuleModel:
    """Run a copy once: shapes of layers, and functional calls, are known from then on.

    Raises:
        CannotRunError: If it does not run on inputs that were given.
    """
    if model.seen is not None:
        return model
    return replace(model, seen=watch(model.module, feeds(model), given=given))


def notes(model: ModuleModel) -> list[str]:
    """Say what was done to the model when it was loaded, and what of it is taken on trust."""
    said = [
        f"{wrapper.__name__} was taken off: names and the converted model are those of the module inside"
        for wrapper in model.wrappers
    ]
    modules = list(model.module.named_modules())
    sync = [path for path, module in modules if isinstance(module, nn.SyncBatchNorm)]
    if sync:
        said.append(
            f"{some(sync)}: SyncBatchNorm trains with the statistics of all processes together; each is compared and "
            "converted as one process computes it"
        )
    taught = {type(module).__name__ for _, module in modules if layout_of(module) not in (None, Layout())}
    if taught:
        said.append(
            f"what {', '.join(sorted(taught))} does beside BatchNorm is as normswap.nn.LAYOUTS says: of the witnesses "
            "only the last can tell whether that is true"
        )
    if model.seen is None:
        said.append(
            "the model was not run to see what it calls: shapes are those that its classes imply, and a BatchNorm that "
            "is held outside of its module tree would not be seen; give inputs"
        )
    return said


def without_statistics(model: ModuleModel) -> ModuleModel:
    """Return the model itself: a module's running statistics are no outputs."""
    return model


def prepare(model: ModuleModel) -> ModuleModel:
    """Return the model itself: targets can be written in any module."""
    return model


def remarks(model: ModuleModel, layers: Sequence[NormLayer]) -> list[str]:
    """Return sentences for people, the most important first."""
    said = notes(model)
    kinds = [type(module).__name__ for module in model.module.modules()]
    if not layers:
        said.append("no BatchNorm is left in this model")
    instance = sum(name.startswith(("InstanceNorm", "LazyInstanceNorm", "GroupNorm")) for name in kinds)
    if instance:
        said.append(f"it normalizes each sample by itself already in {instance} InstanceNorm or GroupNorm modules")
    swapped = [module for module in model.module.modules() if isinstance(module, SwappedNorm)]
    if swapped:
        targets = sorted({module.norm.name for module in swapped})
        said.append(f"converted before: {len(swapped)} layers to {', '.join(targets)} by normswap")
    return said


def compare_structure(before: ModuleModel, after: ModuleModel, plan: Plan) -> list[Check]:
    """Compare everything outside the plan; one check, or one for each difference."""
    names = {layer.name for layer in plan.layers}
    planned: dict[str, str] = {}
    nodes: dict[str, dict[str, str]] = {}
    for site in sites(before):
        if site.layer.name in names and site.node is not None:
            nodes.setdefault(site.path, {})[site.node.y.name] = site.layer.name
        elif site.layer.name in names:
            planned[site.path] = site.layer.name
    found = _compare_structure(before.module, after.module, planned, nodes)
    unread = f"; not compared: attributes {some(found.unread)}" if found.unread else ""
    compared = f"{counted(found.modules, 'module')} and {counted(found.tensors, 'tensor')} ({found.bytes:,} bytes)"
    return structure_checks("modules", found.differences, compared, names, unread)


def compare_recalibrated(before: ModuleModel, after: ModuleModel, names: Sequence[str]) -> list[Check]:
    """Compare everything but the running statistics of the layers named; one check, or one for each difference."""
    found = _compare_structure(before.module, after.module, {}, {}, statistics_of(before, names))
    unread = f"; not compared: attributes {some(found.unread)}" if found.unread else ""
    compared = (
        f"{counted(found.modules, 'module')} and {counted(found.tensors, 'other tensor')} ({found.bytes:,} bytes)"
    )
    return recalibration_checks("modules", found.differences, compared, len(names), unread)


def run(model: ModuleModel, arrays: Arguments, *, how: str) -> Run:
    """Run a copy of the model on bound arguments, its random numbers seeded."""
    return run_quietly(called(copied(model.module), arrays))


def run_reference(model: ModuleModel, plan: Plan, arrays: Arguments, *, noise: float, seed: int) -> Run:
    """Run the original with its planned layers under the target's stated meaning, seeded as in ``run``."""
    module, calls = witness(model, plan, noise=noise, seed=seed)
    found = run_quietly(called(module, arrays))
    return replace(found, calls={layer.name: calls[layer.name] for layer in plan.layers if not layer.body})


def declared(model: ModuleModel) -> tuple[Declared, ...]:
    """Return nothing: a module says nothing of what it takes."""
    return ()


def feeds(
    model: ModuleModel, inputs: Any, shapes: Mapping[str, tuple[int, ...]], seed: int, batch: int = BATCH
) -> list[Feed]:
    """Return end-to-end inputs: those given, else generated ones to try in turn."""
    return _inputs.feeds(model.module, inputs, shapes, seed, batch)


def plain(model: ModuleModel, arrays: Mapping[str, Any]) -> dict[str, Array]:
    """Return bound arguments as arrays in their order, for another framework."""
    return _inputs.plain(arrays)


def fit(model: ModuleModel, arrays: Mapping[str, Array]) -> Arguments:
    """Bind arrays that come from another framework."""
    return _inputs.fit(model.module, arrays)
