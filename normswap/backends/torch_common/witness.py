"""Third witness, the torch half: one BatchNorm under a target's stated meaning, by native train-mode kernels."""

from __future__ import annotations

from collections.abc import Callable

import torch

from normswap.layer import NormLayer
from normswap.norms import Norm
from normswap.plan import Plan
from normswap.tolerance import UNIT_ROUNDOFF

__all__ = ["native", "stated_meaning"]


def native(
    norm: Norm,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    eps: float,
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the BatchNorm that a call without a module stands for: torch's own train-mode kernel.

    Evaluation mode is written out instead, since its native kernel is the one that a conversion uses.
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

    return trained if norm.trains else frozen


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
        original: The BatchNorm, in train mode if the target means that, else in evaluation.
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
    if noise and plan.norm.trains and x.ndim > 1:
        axes = list(range(2, x.ndim)) if by_sample else [0, *range(2, x.ndim)]
        wide = x.cpu().double()  # which not every device has
        var = wide.var(axes, correction=0, keepdim=True) if axes else torch.zeros_like(wide)
        weight = 1.0 if layer.weight is None else torch.from_numpy(layer.per_channel(layer.weight, x.ndim))
        y = (y.cpu() + wobble() * (wide * weight).abs() / (var + layer.eps).sqrt()).to(y)
    return y
