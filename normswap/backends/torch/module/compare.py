"""Checks of the first witness for modules: conversions and recalibrations."""

from __future__ import annotations

from collections.abc import Sequence

from normswap.backends.differences import recalibration_checks, structure_checks
from normswap.backends.torch.module.find import sites
from normswap.backends.torch.module.model import ModuleModel
from normswap.backends.torch.module.recalibrate import statistics_of
from normswap.backends.torch.module.structure import compare_structure
from normswap.plan import Plan
from normswap.report import Check
from normswap.words import counted, some

__all__ = ["compare", "compare_recalibrated"]


def compare(before: ModuleModel, after: ModuleModel, plan: Plan) -> list[Check]:
    """Compare everything outside the plan; one check, or one for each difference."""
    names = {layer.name for layer in plan.layers}
    planned: dict[str, str] = {}
    nodes: dict[str, dict[str, str]] = {}
    for site in sites(before):
        if site.layer.name in names and site.node is not None:
            nodes.setdefault(site.path, {})[site.node.y.name] = site.layer.name
        elif site.layer.name in names:
            planned[site.path] = site.layer.name
    found = compare_structure(before.module, after.module, planned, nodes)
    unread = f"; not compared: attributes {some(found.unread)}" if found.unread else ""
    compared = f"{counted(found.modules, 'module')} and {counted(found.tensors, 'tensor')} ({found.bytes:,} bytes)"
    return structure_checks("modules", found.differences, compared, names, unread)


def compare_recalibrated(before: ModuleModel, after: ModuleModel, names: Sequence[str]) -> list[Check]:
    """Compare everything but the running statistics of the layers named; one check, or one for each difference."""
    found = compare_structure(before.module, after.module, {}, {}, statistics_of(before, names))
    unread = f"; not compared: attributes {some(found.unread)}" if found.unread else ""
    compared = (
        f"{counted(found.modules, 'module')} and {counted(found.tensors, 'other tensor')} ({found.bytes:,} bytes)"
    )
    return recalibration_checks("modules", found.differences, compared, len(names), unread)
