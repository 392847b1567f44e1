"""instance: statistics of each sample and channel, as train-mode BatchNorm fed one sample at a time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from normswap.layer import Floats, NormLayer
from normswap.norms.base import Form, Norm, OnnxOps, batch_moments, by_name, emit_two_pass

if TYPE_CHECKING:
    from normswap.kernels import Kernel

__all__ = ["Instance"]


def _as_given(ops: OnnxOps) -> None:
    """InstanceNormalization in the layer's own type where one type serves all."""
    if ops.dtype in ("float32", "float16") and ops.param_dtype == ops.dtype:
        ops.eps_attribute("InstanceNormalization", ops.x, ops.scale, ops.bias, output=ops.y)
    else:
        _in_float32(ops)


def _in_float32(ops: OnnxOps) -> None:
    """InstanceNormalization in float32, between Casts where something is of another type."""
    x = ops.cast(ops.x, ops.dtype, "float32")
    scale, bias = (ops.cast(value, ops.param_dtype, "float32") for value in (ops.scale, ops.bias))
    same = ops.dtype == "float32"
    y = ops.eps_attribute("InstanceNormalization", x, scale, bias, output=ops.y if same else None)
    if not same:
        ops.cast(y, "float32", ops.dtype, output=ops.y)


_FORMS = by_name(
    # InstanceNormalization has a float64 kernel in no runtime.
    Form("InstanceNormalization", _as_given, dtypes=("float32", "float16", "bfloat16")),
    Form("InstanceNormalization in float32", _in_float32, dtypes=("float16",)),
    Form("two-pass primitives", lambda ops: emit_two_pass(ops, over_batch=False)),
)


class Instance(Norm):
    """InstanceNorm with the BatchNorm's weight, bias and eps.

    References:
        Ulyanov, Vedaldi & Lempitsky 2016, Instance Normalization.
    """

    name = "instance"
    meaning = "train-mode BatchNorm fed one sample at a time"
    equals = "instance"
    by_sample = True
    forms = _FORMS

    def refuse(self, layer: NormLayer) -> str | None:
        """Refuse rank 2 and one-element maps, whose normalized value is the bias whatever the input."""
        if layer.shape is None:
            return None
        if len(layer.shape) < 3:
            return (
                f"its input has rank {len(layer.shape)}, one value per sample and channel, "
                "so that instance statistics would leave only the bias"
            )
        spatial = [dim for dim in layer.shape[2:] if isinstance(dim, int)]
        if len(spatial) == len(layer.shape) - 2 and math.prod(spatial) == 1:
            return (
                "its input has one spatial element per sample and channel, "
                "so that instance statistics would leave only the bias"
            )
        return None

    def moments(self, x: Floats, layer: NormLayer) -> tuple[Floats, Floats]:
        """Mean and biased variance over the spatial axes."""
        return batch_moments(x, tuple(range(2, x.ndim)))

    def count(self, shape: tuple[int, ...]) -> int:
        """The number of spatial elements."""
        return math.prod(shape[2:])

    def torch_kernel(self) -> Kernel:
        """See normswap.kernels."""
        from normswap.kernels import INSTANCE

        return INSTANCE
