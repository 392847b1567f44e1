"""Pieces of targets as ATen operators alone, the same for every shape, which exporters know as the standard operators.

They take tensors; on ``fx.Proxy`` arguments they add operators to the graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch

from normswap.norms.torch.tensors import compute_dtype

__all__ = ["Export", "Mix", "Operands", "Pool", "cast", "column", "over_batch", "two_pass"]


class Operands(NamedTuple):
    """What a target is computed of; tensors may be proxies.

    Attributes:
        x: Tensor of shape (N, C, *spatial).
        weight: Tensor of shape (C,), or None for 1.
        bias: As weight, or None for 0.
        running_mean: As weight, for targets that read the stored statistics.
        running_var: As weight, for targets that read the stored statistics.
        eps: Added to the variance, in units of x squared.
        rank: Number of dimensions of x.
        dtype: Of x.
        param_dtype: Of weight, bias and running statistics.
    """

    x: Any
    weight: Any
    bias: Any
    running_mean: Any
    running_var: Any
    eps: float
    rank: int
    dtype: torch.dtype
    param_dtype: torch.dtype


Export: TypeAlias = Callable[[Operands], Any]  # a target as ATen operators

# (a value of shape (N, C, 1, ..., 1), its rank) -> its mean over more axes, which broadcasts against x
Pool: TypeAlias = Callable[[Any, int], Any]
# the mean of each sample -> ((a statistic of x, the stored one as a column) -> the one to use)
Mix: TypeAlias = Callable[[Any], Callable[[Any, Any], Any]]


def cast(value: Any, of: torch.dtype, to: torch.dtype) -> Any:
    """Convert where there is something to convert."""
    return value if value is None or of == to else torch.ops.aten.to.dtype(value, to)


def column(value: Any, rank: int) -> Any:
    """Shape (C,) so that it broadcasts against (N, C, *spatial)."""
    return torch.ops.aten.view.default(value, [1, -1] + [1] * (rank - 2))


def over_batch(value: Any, _rank: int) -> Any:
    """Pool over the batch axis."""
    return torch.ops.aten.mean.dim(value, [0], True)


def two_pass(given: Operands, *, pool: Pool | None = None, mix: Mix | None = None) -> Any:
    """Compute the mean, then the mean square about it.

    The batch axis is reduced by itself: OpenCV 5 takes a mean over (0, 2, 3) for a normalization of each sample.

    Args:
        given: What it is computed of.
        pool: Averages further what was averaged over the spatial axes, for statistics over more axes than these.
        mix: Turns the statistics of x and the stored ones into those to use. With m in place of the mean a,
            y = (x - a) k + ((a - m) k + bias), so that x is not read once more.
    """
    rank, dtype, param_dtype = given.rank, given.dtype, given.param_dtype
    aten, compute, spatial = torch.ops.aten, compute_dtype(dtype), list(range(2, rank))
    x = cast(given.x, dtype, compute)
    weight, bias = (cast(value, param_dtype, compute) for value in (given.weight, given.bias))

    def of_samples(value: Any) -> Any:
        return aten.mean.dim(value, spatial, True) if spatial else value

    def pooled(value: Any) -> Any:
        return value if pool is None else pool(value, rank)

    means = of_samples(x)
    mean = pooled(means)
    centred = aten.sub.Tensor(x, mean)
    var = pooled(of_samples(aten.mul.Tensor(centred, centred)))
    if mix is not None:
        used = mix(means)

        def stored(value: Any) -> Any:
            return column(cast(value, param_dtype, compute), rank)

        std = aten.sqrt.default(aten.add.Scalar(used(var, stored(given.running_var)), given.eps))
        k = aten.reciprocal.default(std) if weight is None else aten.div.Tensor(column(weight, rank), std)
        lift = aten.mul.Tensor(aten.sub.Tensor(mean, used(mean, stored(given.running_mean))), k)
        lift = lift if bias is None else aten.add.Tensor(lift, column(bias, rank))
        return cast(aten.add.Tensor(aten.mul.Tensor(centred, k), lift), compute, dtype)
    std = aten.sqrt.default(aten.add.Scalar(var, given.eps))
    if weight is None:
        y = aten.div.Tensor(centred, std)
    else:
        y = aten.mul.Tensor(centred, aten.div.Tensor(column(weight, rank), std))
    if bias is not None:
        y = aten.add.Tensor(y, column(bias, rank))
    return cast(y, compute, dtype)
