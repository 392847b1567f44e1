"""DATA: batches for a model from .npz and .npy files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from normswap.backends.inputs import read_arrays
from normswap.errors import ModelReadError
from normswap.layer import Array

__all__ = ["Data", "batches_of"]

_BATCH_SIZE = 8


@dataclass(frozen=True, eq=False)
class Data:
    """Batches, arrays by input name, as often as they are iterated over."""

    arrays: dict[str, Array]
    batch_size: int
    source: str

    def __len__(self) -> int:
        """Count the batches."""
        return -(-len(next(iter(self.arrays.values()))) // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield {name: array[start : start + self.batch_size] for name, array in self.arrays.items()}


def batches_of(data: str | os.PathLike[str], *, inputs: Sequence[Any] = (), batch_size: int | None = None) -> Data:
    """Read a file whose arrays have the samples as their first axis.

    Args:
        data: An .npz file, arrays by input name, or an .npy file for a model with one input.
        inputs: What the model says of its inputs; a ``name`` each. None of them takes what the file holds beside.
        batch_size: Samples in each batch, 8 if None.

    Raises:
        ModelReadError: If it is no such file.
    """
    if Path(data).suffix == ".npy":
        try:
            arrays = {inputs[0].name if inputs else "input": np.load(data, allow_pickle=False)}
        except (OSError, ValueError, EOFError) as error:
            raise ModelReadError(f"{data}: expected an .npy file: {error}") from error
    else:
        arrays = read_arrays(data)
    names = {value.name for value in inputs}
    arrays = {name: array for name, array in arrays.items() if name in names} or arrays
    lengths = {len(array) if array.ndim else 0 for array in arrays.values()}
    if len(lengths) != 1 or not max(lengths):
        raise ModelReadError(f"{data}: expected arrays with one number of samples, found {sorted(lengths)}")
    return Data(arrays, batch_size or _BATCH_SIZE, f"given: {os.fspath(data)}")
