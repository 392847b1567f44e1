"""Statistics of each sample of a tensor, by two passes, with reductions that every device has."""

from __future__ import annotations

import math

import torch

from normswap.backends.values import SampleStatistics
from normswap.errors import CannotRunError

__all__ = ["statistics_of"]


def statistics_of(name: str, x: torch.Tensor) -> SampleStatistics:
    """Compute mean and variance of each sample and channel, in float32, or float64 where x is.

    Two passes of torch's own mean, because ``torch.var_mean`` takes 2 to 60 times as long on a CPU.

    Args:
        name: Of the layer that is given x.
        x: Shape (N, C, *spatial), whatever memory format.

    Raises:
        CannotRunError: If x is no such tensor.
    """
    elements = math.prod(x.shape[2:])
    if x.ndim < 2 or not elements:
        raise CannotRunError(f"{name}: its input has shape {tuple(x.shape)}, expected (N, C, ...) and some elements")
    x = x.detach()
    x = x if x.dtype in (torch.float32, torch.float64) else x.float()
    if x.ndim == 2:
        mean, var = x, torch.zeros_like(x)
    else:
        spatial = tuple(range(2, x.ndim))
        mean = x.mean(spatial, keepdim=True)
        var = (x - mean).square_().mean(spatial)
    return SampleStatistics(mean.flatten(1).cpu().numpy(), var.cpu().numpy(), elements)
