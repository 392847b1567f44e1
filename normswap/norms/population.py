"""population: the stored running statistics, as eval-mode BatchNorm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normswap.layer import Floats, NormLayer
from normswap.norms.base import Norm, OnnxOps

if TYPE_CHECKING:
    from normswap.kernels import Kernel

__all__ = ["Population"]


class Population(Norm):
    """BatchNorm in inference mode: an affine map with frozen statistics.

    References:
        Ioffe & Szegedy 2015, algorithm 2.
    """

    name = "population"
    meaning = "eval-mode BatchNorm"
    equals = "eval"
    trains = False

    def refuse(self, layer: NormLayer) -> str | None:
        """Refuse a layer without stored statistics."""
        if layer.role == "instance":
            return "it is an InstanceNorm written with BatchNorm; its running statistics were never its meaning"
        if layer.role == "batch-stat":
            return "its statistics are computed in the graph and none are stored"
        if layer.running_mean is None or layer.running_var is None:
            return "its running statistics are not stored in the model but computed or given at run time"
        return None

    def moments(self, x: Floats, layer: NormLayer) -> tuple[Floats, Floats]:
        """The stored running mean and variance."""
        assert layer.running_mean is not None and layer.running_var is not None, "refused otherwise"
        return layer.per_channel(layer.running_mean, x.ndim), layer.per_channel(layer.running_var, x.ndim)

    def count(self, shape: tuple[int, ...]) -> int:
        """0: nothing is estimated."""
        return 0

    def emit_onnx(self, ops: OnnxOps) -> None:
        """BatchNormalization with one output, the inference form of every opset from 7 on."""
        ops.eps_attribute("BatchNormalization", ops.x, ops.scale, ops.bias, ops.mean, ops.var, output=ops.y)

    def torch_kernel(self) -> Kernel:
        """See normswap.kernels."""
        from normswap.kernels import POPULATION

        return POPULATION
