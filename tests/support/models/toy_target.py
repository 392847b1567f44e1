"""A target that the package does not have: statistics of the batch over pairs of neighbouring channels."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from normswap.layer import NormLayer
from normswap.norms import Norm
from normswap.norms.base import Form, by_name
from normswap.norms.formula import Formula
from normswap.norms.onnx import OnnxOps, emit_two_pass
from normswap.norms.parameters import Parameter, whole_number_from
from normswap.norms.torch import Kernel
from normswap.norms.torch.export import two_pass

__all__ = ["Together"]

NEIGHBOURS = Parameter(
    name="neighbours",
    type=int,
    expected="a whole number, 1 or more",
    read=whole_number_from(1),
    help="For together: how many channels share statistics.",
    metavar="S",
    default=2,
)


def pool(ops: OnnxOps, value: str, rank: int, *, size: int) -> str:
    """Average over the batch, then over neighbours, and give each channel the average of its neighbours."""
    assert ops.channels is not None, "refused otherwise"
    parts = ops.op("Reshape", ops.reduce_mean(value, [0]), ops.ints([1, -1, size]))
    repeated = ops.op("Concat", *[ops.reduce_mean(parts, [2])] * size, axis=2)
    return ops.op("Reshape", repeated, ops.ints([1, ops.channels, *[1] * (rank - 2)]))


def pool_in_aten(value: Any, rank: int, *, size: int) -> Any:
    aten = torch.ops.aten
    parts = aten.unflatten.int(aten.mean.dim(value, [0], True), 1, [-1, size])
    repeated = aten.expand.default(aten.mean.dim(parts, [2], True), [-1, -1, size, *[-1] * (rank - 2)])
    return aten.flatten.using_ints(repeated, 1, 2)


class Together(Norm):
    """Statistics of the batch over neighbouring channels."""

    name = "together"
    takes = (NEIGHBOURS,)

    def __init__(self, neighbours: int = 2, wrong: bool = False) -> None:
        self.neighbours: int = NEIGHBOURS.value(neighbours)
        self.meaning = f"BatchNorm whose channels share statistics, {neighbours} together"
        self.formula = Formula(
            over=("batch", "channel", "spatial"), groups=lambda channels: channels // self.neighbours
        )
        self.used = 1 if wrong else self.neighbours  # a mutant gives each channel statistics of its own
        self.forms = by_name(Form("together", lambda ops: emit_two_pass(ops, pool=partial(pool, size=self.used))))

    def refuse(self, layer: NormLayer) -> str | None:
        if layer.num_features is None or layer.num_features % self.neighbours:
            return f"its {layer.num_features} channels are not divided by {self.neighbours}"
        return None

    def torch_kernel(self) -> Kernel:
        export = partial(two_pass, pool=partial(pool_in_aten, size=self.used))
        kernel = Kernel({}, export)
        return replace(kernel, eager={"native": kernel._exported})
