"""population: the stored running statistics, as eval-mode BatchNorm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from normswap.layer import NormLayer
from normswap.norms.base import Form, Norm, by_name, no_stored_statistics
from normswap.norms.formula import Formula
from normswap.norms.onnx import OnnxOps, along_channels, compute_dtype, emit_in

if TYPE_CHECKING:
    from normswap.norms.torch import Kernel
    from normswap.norms.torch.export import Operands

__all__ = ["Population"]


def _batch_normalization(ops: OnnxOps) -> None:
    """BatchNormalization with one output, the inference form of every opset from 7 on."""
    ops.eps_attribute("BatchNormalization", ops.x, ops.scale, ops.bias, ops.mean, ops.var, output=ops.y)


def _primitives(ops: OnnxOps) -> None:
    """``(x - mean) * (scale / sqrt(var + eps)) + bias``."""

    def body(x: str, rank: int, y: str | None) -> str:
        var, mean = (along_channels(ops, value, ops.stat_dtype, rank) for value in (ops.var, ops.mean))
        scale, bias = (along_channels(ops, value, ops.param_dtype, rank) for value in (ops.scale, ops.bias))
        std = ops.op("Sqrt", ops.op("Add", var, ops.eps_constant(compute_dtype(ops))))
        return ops.op("Add", ops.op("Mul", ops.op("Sub", x, mean), ops.op("Div", scale, std)), bias, output=y)

    emit_in(compute_dtype(ops), ops, body)


def _exported(given: Operands) -> Any:
    """``aten.batch_norm``, which exporters write as BatchNormalization."""
    import torch

    from normswap.norms.torch.export import cast
    from normswap.norms.torch.tensors import HALF

    to = given.param_dtype if given.dtype in HALF else given.dtype
    parameters = (given.weight, given.bias, given.running_mean, given.running_var)
    values = (cast(value, given.param_dtype, to) for value in parameters)
    return torch.ops.aten.batch_norm.default(given.x, *values, False, 0.0, given.eps, False)


class Population(Norm):
    """BatchNorm in inference mode: an affine map with frozen statistics.

    References:
        Ioffe & Szegedy 2015, algorithm 2.
    """

    name = "population"
    meaning = "eval-mode BatchNorm"
    equals = "eval"
    formula = Formula(over=())
    forms = by_name(Form("BatchNormalization", _batch_normalization), Form("primitives", _primitives))

    def refuse(self, layer: NormLayer) -> str | None:
        """Refuse a layer without stored statistics."""
        return no_stored_statistics(layer)

    def torch_kernel(self) -> Kernel:
        """Give torch's own eval mode."""
        from normswap.norms.torch import Kernel
        from normswap.norms.torch.eager import native_population

        return Kernel({"native": native_population}, _exported)
