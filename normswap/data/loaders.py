"""Data that the caller has in Python: arrays, tensors, or whatever can be iterated over, a DataLoader, say."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from normswap.data.batches import Batch
from normswap.data.declared import TARGET, Scale, Side, Tally, chosen, fitted, is_sample
from normswap.errors import DataError, first_line
from normswap.layer import Array
from normswap.words import counted

__all__ = ["Loader", "is_loader"]


class Loader:
    """Samples that the caller gives.

    An item is a batch as one array or tensor, a mapping of them by name, or a tuple or list of them in the order of
    the model's inputs, with the target behind them; in a mapping a target is called ``target``, or as the model's
    output is. What has one axis less than the model takes is one sample.

    Attributes:
        source: Where the data are from, for the report.
        samples: How many there are, None where that is not known.
        given: How many batches the caller has made of them, None where that is not known, or it is one whole.
        whole: Whether the caller gives arrays of all samples, which are no batches.
        once: Whether they can be read only once.
    """

    source = "given by the caller"

    def __init__(self, data: Any, inputs: Side, targets: Side | None, scale: Scale | None) -> None:
        """Find out how to read the data; no sample is read yet.

        Args:
            data: The caller's.
            inputs: What the data are, or come first.
            targets: What may come with them, None where nothing may.
            scale: What 0 and 255 of uint8 become where the model takes floats.

        Raises:
            DataError: If they cannot be iterated over.
        """
        self._data, self._inputs, self._targets, self._scale = data, inputs, targets, scale
        self._first: int | None = None  # checksum of the first item of the first pass
        self._all: int | None = None  # and of all of them
        self._used = False
        self.whole = _is_array(data) or isinstance(data, Mapping)
        self.once = isinstance(data, Iterator)
        self.samples = _samples(data) if self.whole else None
        self.given = None if self.whole else _length(data)
        if isinstance(data, tuple):
            raise DataError(
                f"{self.source}: expected batches, found a tuple, which could be several or one with its target; give "
                "a list, such as [(input, target)] or [first, second]"
            )
        if not (self.whole or self.once or callable(data) or _is_iterable(data)):
            raise DataError(
                f"{self.source}: expected arrays, or batches of them to iterate over, found {type(data).__name__}; "
                "give a path, a list, a DataLoader, or a function that returns an iterator"
            )

    def batches(self, size: int | None, tally: Tally) -> Iterator[Batch]:
        """Yield the caller's batches, or slices of ``size`` samples of arrays that are whole.

        Raises:
            DataError: If an item is not a batch, does not fit, or is another than in an earlier pass.
        """
        if self.once and self._used:
            raise DataError(
                f"{self.source}: expected data that can be read again, found an iterator, which was read once; give a "
                "list, a DataLoader, or a function that returns a new iterator"
            )
        self._used = True
        checksum = 0
        for index, item in enumerate(self._items(size)):
            batch = self._batch(item, f"batch {index} of the data", tally)
            for array in (*batch.inputs.values(), *batch.targets.values()):
                checksum = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, checksum)
            if index == 0:
                self._first = self._same(self._first, checksum)
            yield batch
        self._all = self._same(self._all, checksum)

    def _same(self, before: int | None, now: int) -> int:
        if before not in (None, now):
            raise DataError(
                f"{self.source}: expected the same samples in each pass, found others; turn off what shuffles or "
                "augments them, such as shuffle=True of a DataLoader"
            )
        return now

    def _items(self, size: int | None) -> Iterable[Any]:
        """Begin a pass."""
        data = self._data
        if self.whole and self.samples and size:
            slices = [slice(start, start + size) for start in range(0, self.samples, size)]
            if isinstance(data, Mapping):
                return ({name: a[part] if _is_array(a) else a for name, a in data.items()} for part in slices)
            return (data[part] for part in slices)
        if self.whole:
            return [data]
        if not _is_iterable(data):
            begun: Iterable[Any] = data()
            return begun
        return iter(data) if hasattr(data, "__iter__") else (data[index] for index in range(len(data)))

    def _batch(self, item: Any, where: str, tally: Tally) -> Batch:
        """Make a batch of an item, held to what the model says."""
        ours, theirs = self._parts(item, where)
        inputs = {name: _as_array(value, where) for name, value in chosen(ours, self._inputs, where).items()}
        targets = {}
        if theirs and self._targets is not None:
            targets = {name: _as_array(value, where) for name, value in chosen(theirs, self._targets, where).items()}
        if not self.whole and all(is_sample(array.shape, self._inputs.of(name)) for name, array in inputs.items()):
            inputs = {name: array[None] for name, array in inputs.items()}
            targets = {name: array[None] for name, array in targets.items()}
        return Batch(
            self._fitted(inputs, self._inputs, where, tally), self._fitted(targets, self._targets, where, tally), where
        )

    def _fitted(self, arrays: Mapping[str, Array], side: Side | None, where: str, tally: Tally) -> dict[str, Array]:
        declared = side or self._inputs
        return {name: fitted(array, declared.of(name), where, tally, self._scale) for name, array in arrays.items()}

    def _parts(self, item: Any, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Take an item apart into inputs and targets, both by name."""
        if isinstance(item, Mapping):
            if self._targets is None:
                return dict(item), {}
            names = [name for name in self._targets.names if name in item] or [TARGET]
            theirs = {name: item[name] for name in names if name in item and name not in self._inputs.names}
            return {name: value for name, value in item.items() if name not in theirs}, theirs
        if not isinstance(item, (tuple, list)):
            return {"": item}, {}
        expected = len(self._inputs.declared) or 1
        if len(item) != expected and (self._targets is None or len(item) != expected + 1):
            takes = (
                f"{counted(expected, self._inputs.word)}{f' ({self._inputs.listed})' if self._inputs.declared else ''}"
            )
            behind = "" if self._targets is None else ", with a target behind or without"
            raise DataError(
                f"{where}: expected {takes}{behind}, found {counted(len(item), 'value')}; give a dictionary of arrays "
                f"by {self._inputs.word} name"
            )
        ours = dict(zip(self._inputs.names or [self._inputs.word], item[:expected], strict=True))
        target = item[expected] if len(item) > expected else {}
        return ours, dict(target) if isinstance(target, Mapping) else {"": target}


def is_loader(value: Any) -> bool:
    """Whether a value gives batches, and is not an array itself, arrays by name, or a tuple or list of them."""
    if value is None or _is_array(value) or isinstance(value, (str, bytes, Mapping, tuple, list, set)):
        return False
    return isinstance(value, Iterator) or callable(value) or _is_iterable(value)


def _is_array(value: Any) -> bool:
    """Whether a value is an array or a tensor of torch, which is not imported to ask."""
    return hasattr(value, "__array__") and hasattr(value, "shape")


def _is_iterable(data: Any) -> bool:
    """Whether data can be iterated over; data sets of torch have indices and a length alone."""
    return hasattr(data, "__iter__") or (hasattr(data, "__getitem__") and hasattr(data, "__len__"))


def _length(data: Any) -> int | None:
    try:
        return len(data)
    except (TypeError, NotImplementedError):  # a DataLoader of an IterableDataset has a __len__ that raises
        return None


def _samples(data: Any) -> int | None:
    """Count the samples of an array, or of arrays by name."""
    arrays = filter(_is_array, data.values() if isinstance(data, Mapping) else [data])
    return next((int(array.shape[0]) for array in arrays if array.shape), None)


def _as_array(value: Any, where: str) -> Array:
    """Return an array, or a tensor's elements as one."""
    try:
        if hasattr(value, "detach") and hasattr(value, "cpu"):
            tensor = value.detach().cpu()
            if str(tensor.dtype) == "torch.bfloat16":  # which NumPy lacks
                return np.asarray(tensor.float().numpy().astype(ml_dtypes.bfloat16))
            return np.asarray(tensor.numpy())
        if _is_array(value) or isinstance(value, (bool, int, float)):
            return np.asarray(value)
    except (TypeError, RuntimeError) as error:  # a sparse tensor, say
        raise DataError(
            f"{where}: expected dense arrays or tensors, found one that is not: {first_line(error)}"
        ) from error
    raise DataError(
        f"{where}: expected arrays or tensors, a tuple, list or dictionary of them, found {type(value).__name__}; "
        "convert what the loader yields"
    )
