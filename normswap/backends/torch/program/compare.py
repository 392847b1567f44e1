"""Checks of the first witness for programs."""

from __future__ import annotations

from normswap.backends.differences import structure_checks
from normswap.backends.torch.program.find import sites
from normswap.backends.torch.program.model import ProgramModel
from normswap.backends.torch.program.structure import compare_structure
from normswap.plan import Plan
from normswap.report import Check
from normswap.words import counted

__all__ = ["compare"]


def compare(before: ProgramModel, after: ProgramModel, plan: Plan) -> list[Check]:
    """Compare everything outside the plan; one check, or one for each difference."""
    names = {layer.name for layer in plan.layers}
    planned = {
        site.node.y.name: site.layer.name
        for site in sites(before)
        if site.layer.name in names and site.node is not None
    }
    found = compare_structure(before.program, after.program, planned)
    compared = f"{counted(found.nodes, 'node')} and {counted(found.tensors, 'tensor')} ({found.bytes:,} bytes)"
    return structure_checks("graph", found.differences, compared, names)
