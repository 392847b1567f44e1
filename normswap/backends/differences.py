"""Differences between two models, and the checks of the structure witness that they become."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from normswap.report import Check
from normswap.words import counted

__all__ = ["Difference", "recalibration_checks", "structure_checks"]


class Difference(NamedTuple):
    """One thing in which two models differ.

    Attributes:
        sentence: What differs.
        layer: Name of the planned layer that the difference is confined to; empty where it is not confined to one.
    """

    sentence: str
    layer: str = ""


def structure_checks(
    name: str, differences: Sequence[Difference], compared: str, layers: Collection[str], more: str = ""
) -> list[Check]:
    """Return the structure witness: a check for each difference, and one for everything that is identical.

    Args:
        name: What was compared as a whole.
        differences: What differs.
        compared: What was compared outside the layers, with its number.
        layers: Names of the planned layers.
        more: What was not compared, as the end of the same sentence.
    """
    while name in layers:  # or the check would count as one of that layer
        name = f"the {name}"
    checks = [Check("structure", found.layer or name, ok=False, detail=found.sentence) for found in differences]
    if all(found.layer for found in differences):
        kind = "planned layer" if differences else "converted layer"
        sentence = f"{compared} outside the {counted(len(layers), kind)} are identical{more}"
        checks.append(Check("structure", name, ok=True, detail=sentence))
    return checks


def recalibration_checks(
    name: str, differences: Sequence[Difference], compared: str, layers: int, more: str = ""
) -> list[Check]:
    """Return the checks that a recalibration changed statistics alone; arguments as of ``structure_checks``."""
    if differences:
        return [Check("structure", name, ok=False, detail=found.sentence) for found in differences]
    sentence = f"nothing but the statistics of {counted(layers, 'layer')} changed: {compared} are identical{more}"
    return [Check("structure", name, ok=True, detail=sentence)]
