"""Checks of the first witness for graphs: conversions and recalibrations."""

from __future__ import annotations

from collections.abc import Sequence

from normswap.backends.differences import recalibration_checks, structure_checks
from normswap.backends.onnx_graph.find import sites
from normswap.backends.onnx_graph.graph.model import OnnxModel
from normswap.backends.onnx_graph.graph.nodes import first_output
from normswap.backends.onnx_graph.structure import Replaced, compare_structure
from normswap.plan import Plan
from normswap.report import Check
from normswap.words import counted

__all__ = ["compare", "compare_recalibrated"]


def compare(before: OnnxModel, after: OnnxModel, plan: Plan) -> list[Check]:
    """Compare everything outside the plan; one check, or one for each difference."""
    names = {layer.name for layer in plan.layers}
    planned: dict[tuple[str, ...], dict[str, Replaced]] = {}
    for site in sites(before):
        if site.layer.name in names:
            body, y = site.key
            planned.setdefault(body, {})[y] = Replaced(site.layer.name, frozenset(site.inputs), (site.mean, site.var))
    found = compare_structure(before, after, planned)
    compared = f"{counted(found.nodes, 'node')} and {counted(found.tensors, 'tensor')} ({found.bytes:,} bytes)"
    return structure_checks("graph", found.differences, compared, names)


def compare_recalibrated(before: OnnxModel, after: OnnxModel, names: Sequence[str]) -> list[Check]:
    """Compare everything but the running statistics of the layers named; one check, or one for each difference."""
    statistics: dict[str, list[int]] = {}
    for site in sites(before):
        for slot in (site.mean_slot, site.var_slot):
            if site.layer.name in names and slot is not None:
                statistics.setdefault(first_output(slot.node), []).append(slot.position)
    found = compare_structure(before, after, {}, statistics)
    compared = f"{counted(found.nodes, 'node')} and {counted(found.tensors, 'other tensor')} ({found.bytes:,} bytes)"
    return recalibration_checks("graph", found.differences, compared, len(names))
