"""instance: statistics of each sample and channel, as train-mode BatchNorm fed one sample at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from normswap.layer import NormLayer
from normswap.norms.base import Form, Norm, by_name, single_elements
from normswap.norms.formula import Formula
from normswap.norms.onnx import OnnxOps, emit_two_pass

if TYPE_CHECKING:
    import torch

    from normswap.norms.torch import Kernel
    from normswap.norms.torch.export import Operands

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
    Form("two-pass primitives", emit_two_pass),
)

# Elements of a sample from which a call for each pays in channels_last: with a backward pass, and without.
_LARGE_SAMPLE = {True: 2**15, False: 2**18}


def _on_cpu(x: torch.Tensor, gradients: bool) -> str:
    """Choose the fastest form by memory format, type and size."""
    from normswap.norms.torch.tensors import HALF, is_channels_last

    if is_channels_last(x):
        if x.shape[0] == 1 or x.numel() >= _LARGE_SAMPLE[gradients] * x.shape[0]:
            return "per_sample"
        return "group_norm" if gradients else "two_pass"
    return "native" if x.dtype in HALF else "group_norm"


def _exported(given: Operands) -> Any:
    """``aten.instance_norm``, which exporters write as InstanceNormalization; no runtime has it in float64."""
    import torch

    from normswap.norms.torch.export import cast, two_pass

    if given.dtype == torch.float64:
        return two_pass(given)
    x = cast(given.x, given.dtype, torch.float32)
    weight, bias = (cast(value, given.param_dtype, torch.float32) for value in (given.weight, given.bias))
    y = torch.ops.aten.instance_norm.default(x, weight, bias, None, None, True, 0.0, given.eps, False)
    return cast(y, torch.float32, given.dtype)


class Instance(Norm):
    """InstanceNorm with the BatchNorm's weight, bias and eps.

    References:
        Ulyanov, Vedaldi & Lempitsky 2016, Instance Normalization.
    """

    name = "instance"
    meaning = "train-mode BatchNorm fed one sample at a time"
    equals = "instance"
    formula = Formula(over=("spatial",))
    forms = _FORMS

    def refuse(self, layer: NormLayer) -> str | None:
        """Refuse rank 2 and one-element maps, whose normalized value is the bias whatever the input."""
        reason = single_elements(layer)
        return None if reason is None else f"{reason}, so that instance statistics would leave only the bias"

    def torch_kernel(self) -> Kernel:
        """Give torch's own kernel, which is slow and forgets channels_last, and faster ones."""
        from normswap.norms.torch import Kernel
        from normswap.norms.torch.eager import group_norm, native_instance, own_statistics, per_sample, two_pass

        kernels = {"native": native_instance, "group_norm": group_norm, "per_sample": per_sample, "two_pass": two_pass}
        forms = {name: own_statistics(compute, self.formula) for name, compute in kernels.items()}
        return Kernel(forms, _exported, _on_cpu, needs_spatial=True)
