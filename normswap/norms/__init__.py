"""NORMS: the table of targets. A new target is one file here and one entry below."""

from __future__ import annotations

from normswap.norms.base import Norm
from normswap.norms.batch_stat import BatchStat
from normswap.norms.blend import Blend
from normswap.norms.instance import Instance
from normswap.norms.onnx import OnnxOps
from normswap.norms.population import Population

__all__ = ["NORMS", "Blend", "Norm", "OnnxOps"]

NORMS: dict[str, Norm] = {
    "instance": Instance(),
    "batch-stat": BatchStat(),
    "population": Population(),
    "blend": Blend(16, "batch"),  # whose parameters are the user's; normswap.plan.target_named makes it anew with them
}
