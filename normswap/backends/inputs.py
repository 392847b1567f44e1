"""End-to-end inputs of any framework: arrays from files, and random data where none are given."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import ml_dtypes
import numpy as np

from normswap.errors import CannotRunError, ModelReadError
from normswap.layer import Array
from normswap.runtimes import OWN

__all__ = ["BATCH", "BATCH_ELSEWHERE", "drawn", "read_arrays", "samples_for"]

BATCH = 2  # samples of generated inputs
# The same where other runtimes run as well: OpenCV 5.0.0 takes the statistics of a batch for those of each sample from
# a batch of 3 or 4 on, depending on the shape, and computes a batch of 2 rightly.
BATCH_ELSEWHERE = 4


def samples_for(runtimes: Sequence[str]) -> int:
    """Return how many samples generated inputs have where these runtimes run as well."""
    return BATCH_ELSEWHERE if set(runtimes) - set(OWN) else BATCH


def read_arrays(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Read the arrays of an .npz file in their order; pickled objects are refused.

    Raises:
        ModelReadError: If it is no such file.
    """
    try:
        with Path(path).open("rb") as file:  # opened here, since np.load leaves it open when the archive is damaged
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ModelReadError(f"{path}: expected an .npz file of arrays by input name, found one array")
            with archive:
                return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ModelReadError(f"{path}: expected an .npz file of arrays by input name: {error}") from error


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
