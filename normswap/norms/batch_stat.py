"""batch-stat: statistics of the whole batch, as train-mode BatchNorm fed the same batch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from normswap.layer import Floats, NormLayer
from normswap.norms.base import Norm, OnnxOps, batch_moments, emit_two_pass

if TYPE_CHECKING:
    from normswap.kernels import Kernel

__all__ = ["BatchStat"]


class BatchStat(Norm):
    """BatchNorm that normalizes with the statistics of the batch at test time too.

    References:
        Ioffe & Szegedy 2015, algorithm 1.
    """

    name = "batch-stat"
    meaning = "train-mode BatchNorm fed the same batch"
    equals = "batch-stat"

    def refuse(self, layer: NormLayer) -> str | None:
        """Refuse an InstanceNorm in disguise: no batch statistics were ever meant."""
        if layer.role == "instance":
            return "it is an InstanceNorm written with BatchNorm, so that batch statistics were never its meaning"
        return None

    def moments(self, x: Floats, layer: NormLayer) -> tuple[Floats, Floats]:
        """Mean and biased variance over the batch and the spatial axes."""
        return batch_moments(x, (0, *range(2, x.ndim)))

    def count(self, shape: tuple[int, ...]) -> int:
        """Batch size times the number of spatial elements."""
        return shape[0] * math.prod(shape[2:])

    def emit_onnx(self, ops: OnnxOps) -> None:
        """Two-pass primitives; never training_mode=1, which most runtimes refuse or compute as eval mode."""
        emit_two_pass(ops, over_batch=True)

    def torch_kernel(self) -> Kernel:
        """See normswap.kernels."""
        from normswap.kernels import BATCH_STAT

        return BATCH_STAT
