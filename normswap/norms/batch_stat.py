"""batch-stat: statistics of the whole batch, as train-mode BatchNorm fed the same batch."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from normswap.layer import NormLayer
from normswap.norms.base import Form, Norm, by_name
from normswap.norms.formula import Formula
from normswap.norms.onnx import OnnxOps, emit_in, emit_two_pass, over_batch

if TYPE_CHECKING:
    from torch import Tensor

    from normswap.norms.torch import Kernel

__all__ = ["BatchStat"]


def _transposed_instance_normalization(ops: OnnxOps) -> None:
    """InstanceNormalization of (1, C, N * L): all that a channel has in the batch, as one map of one sample."""

    def body(x: str, rank: int, y: str | None) -> str:
        assert ops.channels is not None, "needs_channels"
        there_and_back = [1, 0, *range(2, rank)]
        turned = ops.op("Transpose", x, perm=there_and_back)
        flat = ops.op("Reshape", turned, ops.ints([1, ops.channels, -1]))
        scale, bias = (ops.cast(value, ops.param_dtype, "float32") for value in (ops.scale, ops.bias))
        normalized = ops.eps_attribute("InstanceNormalization", flat, scale, bias)
        shaped = ops.op("Reshape", normalized, ops.op("Shape", turned))
        return ops.op("Transpose", shaped, perm=there_and_back, output=y)

    emit_in("float32", ops, body)


_FORMS = by_name(  # never training_mode=1, which most runtimes refuse or compute as eval mode
    Form("two-pass primitives", lambda ops: emit_two_pass(ops, pool=over_batch)),
    Form(
        "transposed InstanceNormalization",
        _transposed_instance_normalization,
        dtypes=("float32", "float16", "bfloat16"),
        needs_channels=True,
    ),
)

_LARGE_MAP = 128  # elements of a channel of a sample from which group_norm, which takes each by itself, pays


def _on_cpu(x: Tensor, gradients: bool) -> str:
    """Choose the fastest form: torch's train mode, or its group_norm on contiguous float32."""
    from normswap.norms.torch.tensors import HALF, is_channels_last

    if is_channels_last(x) or x.dtype in HALF:
        return "native"
    # Over several samples, group_norm has no fast backward pass, and on small maps no fast forward pass.
    slow = x.shape[0] > 1 and (gradients or x.numel() < _LARGE_MAP * x.shape[0] * x.shape[1])
    return "native" if slow else "group_norm"


class BatchStat(Norm):
    """BatchNorm that normalizes with the statistics of the batch at test time too.

    References:
        Ioffe & Szegedy 2015, algorithm 1.
    """

    name = "batch-stat"
    meaning = "train-mode BatchNorm fed the same batch"
    equals = "batch-stat"
    formula = Formula(over=("batch", "spatial"))
    forms = _FORMS

    def refuse(self, layer: NormLayer) -> str | None:
        """Refuse an InstanceNorm in disguise: no batch statistics were ever meant."""
        if layer.role == "instance":
            return "it is an InstanceNorm written with BatchNorm, so that batch statistics were never its meaning"
        return None

    def torch_kernel(self) -> Kernel:
        """Give torch's own train mode, and a faster form of it."""
        from normswap.norms.torch import Kernel
        from normswap.norms.torch.eager import group_norm_pooled, native_batch_stat, own_statistics
        from normswap.norms.torch.export import over_batch, two_pass

        forms = {
            "native": own_statistics(native_batch_stat, self.formula),
            "group_norm": own_statistics(group_norm_pooled, self.formula),
        }
        return Kernel(forms, partial(two_pass, pool=over_batch), _on_cpu)
