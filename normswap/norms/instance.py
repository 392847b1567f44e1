"""instance: statistics of each sample and channel, as train-mode BatchNorm fed one sample at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normswap.layer import NormLayer
from normswap.norms.base import Form, Norm, by_name, single_elements
from normswap.norms.onnx import OnnxOps, emit_two_pass

if TYPE_CHECKING:
    from normswap.norms.torch import Kernel

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
        said = single_elements(layer)
        return None if said is None else f"{said}, so that instance statistics would leave only the bias"

    def torch_kernel(self) -> Kernel:
        """See normswap.norms.torch."""
        from normswap.norms.torch import INSTANCE

        return INSTANCE
