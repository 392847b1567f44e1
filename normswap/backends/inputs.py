"""End-to-end inputs of any framework: what the caller gives, read as DATA is, or what is generated."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from normswap.backends.generated import BATCH
from normswap.backends.protocols import Backend
from normswap.backends.values import Feed, Inputs
from normswap.data import Scale, batches_of, is_loader, scale_of, size_of
from normswap.errors import CannotRunError, DataError, ModelReadError
from normswap.layer import Array
from normswap.words import counted

__all__ = ["InputSource", "feeds_as_declared", "feeds_of", "read_arrays"]


class InputSource:
    """Where end-to-end inputs come from; data are read once, for however many models of one signature.

    Args:
        inputs: None to generate them; a path or a loader, of which the first batch is taken; or what the framework
            passes to a model, taken as it is.
        shapes: Shapes of generated inputs, by input name.
        seed: Of generated inputs.
        batch: Samples of generated inputs, where their number is open.
        scale: What 0 and 255 of images become, a pair or a key of SCALES.
        size: Width and height that images are brought to, a pair or text such as ``256x192``.

    Raises:
        DataError: If a scale or size is unknown, or does nothing with these inputs.
    """

    def __init__(
        self,
        inputs: Any = None,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        seed: int = 0,
        batch: int = BATCH,
        *,
        scale: str | Scale | None = None,
        size: str | tuple[int, int] | None = None,
    ) -> None:
        for name, option in (("scale", scale), ("size", size)):
            if option is not None and not _is_data(inputs):
                raise DataError(f"--{name} is for images and does nothing without them; give --inputs, or leave it out")
        self.given = inputs is not None
        self._inputs, self._shapes, self._seed, self._batch = inputs, dict(shapes or {}), seed, batch
        self._scale = scale_of(scale)
        self._size = size_of(size)
        self._first: _FirstBatch | None = None

    def feeds(self, backend: Backend, model: Any) -> list[Feed]:
        """Return inputs of a model to try in turn: those given, else generated ones.

        Raises:
            CannotRunError: If they do not fit the model, or none can be generated.
            DataError: If data are damaged or do not fit the model.
            ModelReadError: If an .npz file cannot be read.
        """
        inputs = backend.inputs(model)
        if not self.given:
            return list(inputs.generate(self._shapes, self._seed, self._batch))
        if not _is_data(self._inputs):
            return [Feed(inputs.bind(self._inputs), "given by the caller")]
        if self._first is None:
            self._first = self._read(inputs)
        return [Feed(inputs.fit(self._first.arrays), self._first.source)]

    def _read(self, inputs: Inputs) -> _FirstBatch:
        """Read the first batch of data; an .npz file whose arrays fit as they are is one batch, whatever its size."""
        path, raw = self._inputs, self._scale is None and self._size is None
        if raw and isinstance(path, (str, os.PathLike)) and Path(path).suffix.lower() == ".npz":
            arrays = read_arrays(path)
            if not inputs.declared or {value.name for value in inputs.declared} <= set(arrays):
                try:
                    inputs.fit(arrays)
                    return _FirstBatch(arrays, f"given: {os.fspath(path)}")
                except CannotRunError:
                    if not inputs.declared:
                        raise
        return self._first_batch(inputs)

    def _first_batch(self, inputs: Inputs) -> _FirstBatch:
        data = batches_of(self._inputs, inputs=inputs.declared, scale=self._scale, size=self._size)
        first = next(iter(data))
        samples = len(next(iter(first.values())))
        of = "" if samples == data.samples else f", of which the first {counted(samples, 'sample')}"
        return _FirstBatch(first, "; ".join([f"given: {data.source}{of}", *data.notes]))


@dataclass(frozen=True, eq=False)
class _FirstBatch:
    arrays: Mapping[str, Array]
    source: str


def _is_data(inputs: Any) -> bool:
    return isinstance(inputs, (str, os.PathLike)) or is_loader(inputs)


def feeds_of(
    backend: Backend,
    model: Any,
    inputs: Any = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    seed: int = 0,
    batch: int = BATCH,
) -> list[Feed]:
    """Return inputs of one model to try in turn; arguments and exceptions are those of InputSource."""
    return InputSource(inputs, shapes, seed, batch).feeds(backend, model)


def feeds_as_declared(backend: Backend, model: Any, other: Inputs, *, seed: int, batch: int) -> list[Feed]:
    """Generate inputs for a model that declares none, as the model ``other`` of another framework declares them."""
    feeds = list(_refitted(backend.inputs(model), other, seed, batch))
    return feeds or feeds_of(backend, model, seed=seed, batch=batch)


def _refitted(inputs: Inputs, other: Inputs, seed: int, batch: int) -> Iterator[Feed]:
    for feed in other.generate({}, seed, batch):
        try:
            arrays = inputs.fit(other.to_arrays(feed.arrays))
        except CannotRunError:
            continue
        yield Feed(arrays, f"{feed.source}, as the converted model declares them")


def read_arrays(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Read the arrays of an .npz file in their order; pickled objects are refused.

    Raises:
        ModelReadError: If it is not such a file.
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
