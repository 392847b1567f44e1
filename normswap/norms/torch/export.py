"""Targets by ATen operators alone, the same for every shape, which exporters know as the standard operators."""

from __future__ import annotations

from typing import Any

import torch

from normswap.norms.torch.tensors import HALF, compute_dtype

__all__ = ["export_form"]


def export_form(
    x: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    eps: float,
    *,
    target: str,
    prior: float,
    by_sample: bool,
    rank: int,
    dtype: torch.dtype,
    param_dtype: torch.dtype,
) -> Any:
    """Compute a target; on ``fx.Proxy`` arguments, add its operators to the graph.

    instance is ``aten.instance_norm``, which exporters write as InstanceNormalization, except in float64, for which
    no runtime has a kernel. batch-stat is two passes, the batch axis reduced by itself: OpenCV 5 takes a mean over
    (0, 2, 3) for a normalization of each sample. population is ``aten.batch_norm``. blend is two passes as well; it
    counts the samples of a batch by a sum of ones, since sizes are no tensors.

    Args:
        x: Tensor or proxy of shape (N, C, *spatial).
        weight: Tensor or proxy of shape (C,), or None for 1.
        bias: As weight, or None for 0.
        running_mean: As weight, for population and blend.
        running_var: As weight, for population and blend.
        eps: Added to the variance, in units of x squared.
        target: A key of normswap.NORMS.
        prior: As how many samples stored statistics count, for blend.
        by_sample: Whether each sample is taken by itself.
        rank: Number of dimensions of x.
        dtype: Of x.
        param_dtype: Of weight, bias and running statistics.
    """
    aten, compute, spatial = torch.ops.aten, compute_dtype(dtype), list(range(2, rank))

    def cast(value: Any, of: torch.dtype, to: torch.dtype) -> Any:
        return value if value is None or of == to else aten.to.dtype(value, to)

    def of_samples(value: Any) -> Any:
        return aten.mean.dim(value, spatial, True) if spatial else value

    def pooled(value: Any) -> Any:
        return value if by_sample else aten.mean.dim(value, [0], True)

    def column(value: Any) -> Any:
        return aten.view.default(value, [1, -1] + [1] * len(spatial))

    if target == "population":
        to = param_dtype if dtype in HALF else dtype
        values = (cast(value, param_dtype, to) for value in (weight, bias, running_mean, running_var))
        return aten.batch_norm.default(x, *values, False, 0.0, eps, False)
    x, weight, bias = cast(x, dtype, compute), cast(weight, param_dtype, compute), cast(bias, param_dtype, compute)
    if target == "instance" and compute != torch.float64:
        y = aten.instance_norm.default(x, weight, bias, None, None, True, 0.0, eps, False)
        return cast(y, compute, dtype)
    means = of_samples(x)
    mean = pooled(means)
    centred = aten.sub.Tensor(x, mean)
    var = pooled(of_samples(aten.mul.Tensor(centred, centred)))
    if target == "blend":
        # A 1 for each sample, NaN and infinity included, summed: no runtime has to know a shape for that.
        samples = aten.sum.dim_IntList(aten.pow.Tensor_Scalar(means, 0), [0], True) if not by_sample else None
        total = prior + 1 if samples is None else aten.add.Scalar(samples, prior)

        def blended(own: Any, stored: Any) -> Any:
            stored = aten.mul.Scalar(column(cast(stored, param_dtype, compute)), prior)
            if samples is None:
                return aten.div.Scalar(aten.add.Tensor(own, stored), total)
            return aten.div.Tensor(aten.add.Tensor(aten.mul.Tensor(own, samples), stored), total)

        std = aten.sqrt.default(aten.add.Scalar(blended(var, running_var), eps))
        k = aten.reciprocal.default(std) if weight is None else aten.div.Tensor(column(weight), std)
        lift = aten.mul.Tensor(aten.sub.Tensor(mean, blended(mean, running_mean)), k)
        lift = lift if bias is None else aten.add.Tensor(lift, column(bias))
        y = aten.add.Tensor(aten.mul.Tensor(centred, k), lift)
        return cast(y, compute, dtype)
    std = aten.sqrt.default(aten.add.Scalar(var, eps))
    if weight is None:
        y = aten.div.Tensor(centred, std)
    else:
        y = aten.mul.Tensor(centred, aten.div.Tensor(column(weight), std))
    if bias is not None:
        y = aten.add.Tensor(y, column(bias))
    return cast(y, compute, dtype)
