"""Random data for inputs that are generated: how many samples, and what is drawn."""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np

from normswap.errors import CannotRunError
from normswap.layer import Array
from normswap.runtimes import OWN

__all__ = ["BATCH", "BATCH_ELSEWHERE", "drawn", "samples_for"]

BATCH = 2  # samples of generated inputs
# The same where other runtimes run as well: OpenCV 5.0.0 takes the statistics of a batch for those of each sample from
# a batch of 3 or 4 on, depending on the shape, and computes a batch of 2 correctly.
BATCH_ELSEWHERE = 4


def samples_for(runtimes: Sequence[str]) -> int:
    """Return how many samples generated inputs have where these runtimes run as well."""
    return BATCH_ELSEWHERE if set(runtimes) - set(OWN) else BATCH


def drawn(rng: np.random.Generator, name: str, dtype: str, shape: tuple[int, ...]) -> Array:
    """Draw random data for the input ``name``; samples differ in mean and spread, as they do in the wild.

    Raises:
        CannotRunError: If an array of this shape cannot be made.
    """
    try:
        if dtype == "bool":
            return np.asarray(rng.integers(0, 2, shape), bool)
        kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
        if kind.kind in "iu":  # small, since it may be an index, a length or a count
            return np.asarray(rng.integers(1, 3, shape), kind)
        style = (shape[0], *(1,) * (len(shape) - 1)) if shape else ()
        data = rng.standard_normal(shape) * rng.uniform(0.3, 1.5, style) + rng.uniform(-1, 1, style)
        return np.asarray(data).astype(kind)
    except (MemoryError, OverflowError, ValueError) as error:
        raise CannotRunError(
            f"input {name!r}: no data of shape {'x'.join(map(str, shape))} can be made: {error}; "
            "give smaller ones with --shape or --inputs"
        ) from error
