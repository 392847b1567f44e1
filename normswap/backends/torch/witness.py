"""Third witness, the torch half: one BatchNorm under a target's stated meaning, by torch's own kernels."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from normswap.layer import NormLayer
from normswap.norms import Norm
from normswap.norms.rounding import UNIT_ROUNDOFF
from normswap.plan import Plan

__all__ = ["blended", "native", "stated_meaning"]


def native(
    norm: Norm,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    eps: float,
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the BatchNorm that a call without a module stands for, by torch's own kernel.

    It is in train mode, or for a blend in evaluation mode. Evaluation mode itself is written out instead, since its
    native kernel is the one that a conversion uses.
    """

    def trained(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.batch_norm(x, None, None, weight, bias, True, 0.0, eps)

    def frozen(x: torch.Tensor) -> torch.Tensor:
        assert running_mean is not None and running_var is not None, "population refuses others"
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        column = (1, -1) + (1,) * (x.ndim - 2)
        mean, var = (value.to(wide).reshape(column) for value in (running_mean, running_var))
        y = (x.to(wide) - mean) / torch.sqrt(var + eps)
        y = y if weight is None else y * weight.to(wide).reshape(column)
        y = y if bias is None else y + bias.to(wide).reshape(column)
        return y.to(x.dtype)

    def mixed(x: torch.Tensor) -> torch.Tensor:
        assert running_mean is not None and running_var is not None, "the plan refuses others"
        mean, var = blended(norm, x, running_mean, running_var)
        scale, shift = (None if value is None else value.to(mean) for value in (weight, bias))
        return torch.nn.functional.batch_norm(x, mean, var, scale, shift, False, 0.0, eps)

    if norm.trains:
        return trained
    return frozen if math.isinf(norm.prior) else mixed


def blended(
    norm: Norm, x: torch.Tensor, running_mean: torch.Tensor, running_var: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Blend stored statistics with those of a batch, or of one sample by itself, in the computing type.

    Args:
        norm: Says as how many samples the stored ones count.
        x: What is fed at once, shape (N, C, *spatial).
        running_mean: Stored mean, shape (C,).
        running_var: Stored variance, shape (C,).
    """
    wide = x.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    var, mean = torch.var_mean(wide, [0, *range(2, x.ndim)], correction=0)
    samples = len(x)
    return (
        (norm.prior * running_mean.to(wide) + samples * mean) / (norm.prior + samples),
        (norm.prior * running_var.to(wide) + samples * var) / (norm.prior + samples),
    )


def stated_meaning(
    plan: Plan,
    layer: NormLayer,
    original: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    *,
    noise: float = 0.0,
    seed: int = 0,
) -> torch.Tensor:
    """Run an original BatchNorm as the target means it.

    Args:
        plan: Names the target.
        layer: The layer, for its weight and eps.
        original: The BatchNorm with the statistics that the target means for what it is given: a batch, or for
            some targets a sample.
        x: Its input, shape (N, C, *spatial).
        noise: Where above 0, x is multiplied by ``1 + noise * u * r``, with r in (-1, 1) and u the unit roundoff of
            its type, which is what rounding elsewhere may do; and the output gets ``noise * u * r * |x w| /
            sqrt(v + eps)`` more, which is what its own kernel may do.
        seed: Of that noise.
    """
    generator = torch.Generator().manual_seed(seed)
    size = noise * UNIT_ROUNDOFF.get(str(x.dtype).removeprefix("torch."), UNIT_ROUNDOFF["float32"])

    def wobble() -> torch.Tensor:
        drawn = torch.rand(x.shape, generator=generator, dtype=torch.float32)
        return (drawn * 2 - 1) * size

    if noise:
        x = (x.cpu() * (1 + wobble().double())).to(x)
    by_sample = plan.norm.by_sample
    y = torch.cat([original(x[i : i + 1]) for i in range(len(x))]) if by_sample and len(x) else original(x)
    if noise and not math.isinf(plan.norm.prior) and x.ndim > 1 and x.numel():
        wide = x.cpu().double()  # which not every device has
        _, var = (torch.from_numpy(value) for value in plan.norm.moments(wide.numpy(), layer))
        weight = 1.0 if layer.weight is None else torch.from_numpy(layer.per_channel(layer.weight, x.ndim))
        y = (y.cpu() + wobble() * (wide * weight).abs() / (var + layer.eps).sqrt()).to(y)
    return y
