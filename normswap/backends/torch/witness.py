"""Third witness, the torch half: one BatchNorm under a target's stated meaning, by torch's own kernels."""

from __future__ import annotations

from collections.abc import Callable

import torch

from normswap.layer import NormLayer
from normswap.norms import Norm
from normswap.norms.formula import Formula
from normswap.norms.rounding import UNIT_ROUNDOFF
from normswap.plan import Plan

__all__ = ["given_statistics", "native", "stated_meaning"]


def native(
    norm: Norm,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    eps: float,
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the BatchNorm that a call without a module stands for, by torch's own kernel.

    It is in train mode, or in eval mode with given statistics. Eval mode with the stored ones is written out, since its
    native kernel is the one that a conversion uses.
    """

    def trained(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.batch_norm(x, None, None, weight, bias, True, 0.0, eps)

    def frozen(x: torch.Tensor) -> torch.Tensor:
        assert running_mean is not None and running_var is not None, "the plan refuses others"
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        column = (1, -1) + (1,) * (x.ndim - 2)
        mean, var = (value.to(wide).reshape(column) for value in (running_mean, running_var))
        y = (x.to(wide) - mean) / torch.sqrt(var + eps)
        y = y if weight is None else y * weight.to(wide).reshape(column)
        y = y if bias is None else y + bias.to(wide).reshape(column)
        return y.to(x.dtype)

    def given(x: torch.Tensor) -> torch.Tensor:
        mean, var = given_statistics(norm.formula, x, running_mean, running_var)
        scale, shift = (None if value is None else value.to(mean) for value in (weight, bias))
        return torch.nn.functional.batch_norm(x, mean, var, scale, shift, False, 0.0, eps)

    return {"train": trained, "eval": frozen, "given": given}[norm.formula.native]


def given_statistics(
    formula: Formula, x: torch.Tensor, running_mean: torch.Tensor | None, running_var: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the mean and the variance that eval mode is given in the place of the stored ones.

    Args:
        formula: Says which channels share statistics, and with which weights the stored ones are mixed in.
        x: The batch, or one sample of it, shape (N, C, *spatial).
        running_mean: Stored mean, shape (C,), for a mixture.
        running_var: Stored variance, shape (C,), for a mixture.

    Returns:
        Mean and variance, shape (C,), in the computing type.
    """
    wide = x.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    groups = formula.groups_of(x.shape[1])
    parts = wide.reshape(len(x), groups, -1, *x.shape[2:])
    var, mean = torch.var_mean(parts, [0, *range(2, x.ndim + 1)], correction=0)
    mean, var = (value.repeat_interleave(x.shape[1] // groups) for value in (mean, var))
    if formula.weights is None:
        return mean, var
    assert running_mean is not None and running_var is not None, "the plan refuses others"
    of_own, of_stored = formula.weights(len(x))
    return (
        of_own * mean + of_stored * running_mean.to(wide),
        of_own * var + of_stored * running_var.to(wide),
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
        original: The BatchNorm with the statistics that the target means for what it is given: a batch, or a sample.
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
    alone = plan.norm.formula.alone
    y = torch.cat([original(x[i : i + 1]) for i in range(len(x))]) if alone and len(x) else original(x)
    if noise and plan.norm.formula.over and x.ndim > 1 and x.numel():
        wide = x.cpu().double()  # which not every device has
        _, var = (torch.from_numpy(value) for value in plan.norm.moments(wide.numpy(), layer))
        weight = 1.0 if layer.weight is None else torch.from_numpy(layer.per_channel(layer.weight, x.ndim))
        y = (y.cpu() + wobble() * (wide * weight).abs() / (var + layer.eps).sqrt()).to(y)
    return y
