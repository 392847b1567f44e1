"""group: statistics of each sample over groups of channels, as GroupNorm; a start for fine-tuning, no meaning kept."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from normswap.layer import NormLayer
from normswap.norms.base import Form, Norm, by_name, single_elements
from normswap.norms.formula import Formula
from normswap.norms.onnx import OnnxOps, along_channels, emit_in, emit_two_pass
from normswap.norms.parameters import Parameter, whole_number_from

if TYPE_CHECKING:
    import torch

    from normswap.norms.torch import Kernel

__all__ = ["Group"]

_GROUPS = Parameter(
    name="groups",
    type=int,
    expected="a whole number, 1 or more",
    read=whole_number_from(1),
    help="For group: number of groups of channels (for example 32).",
    metavar="G",
    missing=(
        "the number of groups that the channels of every layer are divided into; Wu & He 2018 use 32 (--groups 32), "
        "and 1 normalizes over all channels"
    ),
)


def _all_groups(groups: int, _channels: int) -> int:
    return groups


def _instance_normalization(ops: OnnxOps, *, groups: int) -> None:
    """InstanceNormalization of (N, G, C / G * L) with a scale of 1, then weight and bias for each channel.

    Not the operator GroupNormalization, which cancels in ONNX Runtime and is new in opset 18.
    """

    def body(x: str, rank: int, y: str | None) -> str:
        one, zero = (ops.cast(ops.ints([value] * groups), "int64", "float32") for value in (1, 0))
        flat = ops.op("Reshape", x, ops.ints([0, groups, -1]))
        normalized = ops.op("Reshape", ops.eps_attribute("InstanceNormalization", flat, one, zero), ops.op("Shape", x))
        scaled = ops.op("Mul", normalized, along_channels(ops, ops.scale, ops.param_dtype, rank))
        return ops.op("Add", scaled, along_channels(ops, ops.bias, ops.param_dtype, rank), output=y)

    emit_in("float32", ops, body)


def _over_groups(ops: OnnxOps, value: str, rank: int, *, groups: int) -> str:
    """Average (N, C, 1, ...) over each group of channels, and give every channel the average of its group."""
    assert ops.channels is not None, "refused otherwise"
    ones = [1] * (rank - 2)
    parts = ops.op("Reshape", value, ops.ints([0, groups, ops.channels // groups, *ones]))
    repeated = ops.op("Concat", *[ops.reduce_mean(parts, [2])] * (ops.channels // groups), axis=2)
    return ops.op("Reshape", repeated, ops.ints([0, ops.channels, *ones]))


def _over_groups_in_aten(value: Any, _rank: int, *, groups: int) -> Any:
    """Average (N, C, 1, ...) over each group of channels, and give every channel the average of its group."""
    import torch

    aten = torch.ops.aten
    parts = aten.unflatten.int(value, 1, [groups, -1])
    repeated = aten.expand_as.default(aten.mean.dim(parts, [2], True), parts)
    return aten.flatten.using_ints(repeated, 1, 2)


def _native(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float, *, groups: int) -> torch.Tensor:
    """Torch's group_norm, as (N, C, L), because its channels_last kernel cancels."""
    import torch

    from normswap.norms.torch.tensors import flat

    return torch.group_norm(flat(x), groups, weight, bias, eps).view_as(x)


class Group(Norm):
    """GroupNorm with the BatchNorm's weight, bias and eps.

    Args:
        groups: How many groups of neighbouring channels share statistics.

    Raises:
        SelectionError: If it is not a whole number, 1 or more.

    References:
        Wu & He 2018, Group Normalization.
    """

    name = "group"
    takes = (_GROUPS,)

    def __init__(self, groups: int) -> None:
        self.groups: int = _GROUPS.value(groups)
        plural = "s" * (self.groups != 1)
        self.meaning = (
            f"GroupNorm of {self.groups} group{plural} with the BatchNorm's weight, bias and eps, "
            "which equals no mode of the trained BatchNorm and is a start for fine-tuning"
        )
        self.formula = Formula(("channel", "spatial"), groups=partial(_all_groups, self.groups))
        self.forms = by_name(
            Form(
                "InstanceNormalization of groups",
                partial(_instance_normalization, groups=self.groups),
                dtypes=("float32", "float16", "bfloat16"),
                needs_channels=True,
            ),
            Form(
                "two-pass primitives of groups",
                partial(emit_two_pass, pool=partial(_over_groups, groups=self.groups)),
                needs_channels=True,
            ),
        )

    def refuse(self, layer: NormLayer) -> str | None:
        """Refuse channels that the groups do not divide, single elements, and what may have samples among them."""
        if layer.role == "instance":
            return "it is an InstanceNorm written with BatchNorm, which may hold samples where channels are"
        channels = layer.num_features
        if channels is None:
            return "its number of channels is known at run time only, so that it cannot be divided into groups"
        if channels % self.groups:
            divisors = [n for n in range(1, channels + 1) if channels % n == 0]
            nearest = min(divisors, key=lambda n: abs(n - self.groups))
            return f"its {channels} channels cannot be divided into {self.groups} groups; the nearest is {nearest}"
        if channels == self.groups and (reason := single_elements(layer)):
            return f"{reason}, and each channel is a group by itself, so that only the bias would be left"
        return None

    def torch_kernel(self) -> Kernel:
        """Give torch's group_norm."""
        from normswap.norms.torch import Kernel
        from normswap.norms.torch.eager import own_statistics
        from normswap.norms.torch.export import two_pass

        native = own_statistics(partial(_native, groups=self.groups), self.formula)
        return Kernel({"native": native}, partial(two_pass, pool=partial(_over_groups_in_aten, groups=self.groups)))
