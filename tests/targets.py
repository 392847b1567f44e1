"""Every target with every kind of parameter, for tests that take a Norm; NORMS has one of each name."""

from __future__ import annotations

from typing import Any

from normswap.norms import NORMS, Blend, Norm

__all__ = ["TARGETS", "asked"]

TARGETS: dict[str, Norm] = {**NORMS, "blend": Blend(16, "batch"), "blend of samples": Blend(2, "sample")}


def asked(to: str) -> dict[str, Any]:
    """What a library call takes beside the name of a target, as NORMS has it."""
    return dict(NORMS[to].parameters)
