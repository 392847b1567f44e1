"""Every target with every kind of parameter, for tests that take a Norm; NORMS has one of each name."""

from __future__ import annotations

from normswap.norms import NORMS, Blend, Norm

__all__ = ["TARGETS"]

TARGETS: dict[str, Norm] = {**NORMS, "blend": Blend(16, "batch"), "blend of samples": Blend(2, "sample")}
