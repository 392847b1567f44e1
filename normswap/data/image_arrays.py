"""Which arrays are images."""

from __future__ import annotations

from normswap.layer import Array
from normswap.norms.rounding import UNIT_ROUNDOFF

__all__ = ["is_floating", "is_image"]


def is_image(value: Array) -> bool:
    """Whether an array is (N, 1 or 3, H, W), with at least two pixels each way."""
    return (
        value.ndim == 4
        and value.shape[0] > 0
        and value.shape[1] in (1, 3)
        and min(value.shape[2:]) > 1
        and (value.dtype.kind in "iu" or is_floating(value))
    )


def is_floating(value: Array) -> bool:
    """Whether an array holds floating-point numbers."""
    return value.dtype.kind == "f" or value.dtype.name in UNIT_ROUNDOFF  # NumPy has no kind for bfloat16
