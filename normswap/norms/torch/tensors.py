"""Shapes, memory formats and types of a kernel's tensors."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["HALF", "along_channels", "cast", "compute_dtype", "flat", "is_channels_last", "memory_format", "parameters"]

HALF = (torch.float16, torch.bfloat16)


def flat(x: Tensor) -> Tensor:
    """(N, C, *spatial) as (N, C, L), which no kernel takes for channels_last."""
    return x.flatten(2) if x.dim() > 2 else x.unsqueeze(2)


def along_channels(parameter: Tensor, rank: int) -> Tensor:
    """Shape (C,) so that it broadcasts against (N, C, *spatial)."""
    return parameter.view(1, -1, *(1,) * (rank - 2))


def memory_format(x: Tensor) -> torch.memory_format:
    """The memory format that y shall have; a slice of channels_last is channels_last."""
    if x.dim() not in (4, 5) or x.is_contiguous() or x.stride(1) != 1:
        return torch.contiguous_format
    return torch.channels_last if x.dim() == 4 else torch.channels_last_3d


def is_channels_last(x: Tensor) -> bool:
    """Whether y shall be in a channels_last format."""
    return memory_format(x) != torch.contiguous_format


def cast(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert where there is something to convert."""
    return value if value.dtype == dtype else value.to(dtype)  # to() alone takes ten times as long to do nothing


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type in which statistics are computed, never half."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def parameters(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Give weight and bias as tensors of the computing type, float32 where x is in half precision.

    With half or no parameters torch's kernels hold the statistics, too, in half precision, and y is off by hundreds of
    times what rounding allows.
    """
    dtype = compute_dtype(x.dtype)
    weight = x.new_ones(x.shape[1], dtype=dtype) if weight is None else cast(weight, dtype)
    bias = x.new_zeros(x.shape[1], dtype=dtype) if bias is None else cast(bias, dtype)
    return weight, bias
