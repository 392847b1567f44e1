"""NORMS: the table of targets. A new target is one file here and one entry below."""

from __future__ import annotations

from normswap.norms.base import Norm, OnnxOps
from normswap.norms.batch_stat import BatchStat
from normswap.norms.instance import Instance
from normswap.norms.population import Population

__all__ = ["NORMS", "Norm", "OnnxOps"]

NORMS: dict[str, Norm] = {
    "instance": Instance(),
    "batch-stat": BatchStat(),
    "population": Population(),
}
