"""DATA: batches for a model from files, images or Python, with their targets, read as they are needed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from normswap.data.batches import Batch, paired, regrouped
from normswap.data.declared import INPUT, TARGET, Declared, Named, Scale, Side, Tally, dictated_batch
from normswap.data.files import Files, check_paired, open_files
from normswap.data.images import SCALES, parse_size, scale_of, size_of
from normswap.data.loaders import Loader, is_loader
from normswap.errors import DataError
from normswap.layer import Array
from normswap.words import counted

__all__ = [
    "BATCH_SIZE",
    "SCALES",
    "Data",
    "Declared",
    "Named",
    "Scale",
    "batches_of",
    "is_loader",
    "parse_size",
    "scale_of",
    "size_of",
]

BATCH_SIZE = 8  # where neither the model nor the user says


class Data:
    """Batches to feed a model with; iterating over them reads them anew, so that memory does not grow with them.

    Iteration yields arrays by input name, ``pairs`` those and the targets by output name, none where there are none.
    An array may be the caller's own: it must not be written to. Of two passes at the same time, ``notes`` are those
    of the one that began last.

    Attributes:
        source: Where the inputs are from, for the report.
        targets: Where targets are from that were given separately, empty where none were.
        batch_size: Samples in each batch, None for batches as the caller's loader makes them.
        samples: How many there are; None where that is not known before the first pass has ended.
        once: Whether they can be read only once; a second pass raises DataError.
    """

    def __init__(
        self, inputs: Files | Loader, targets: Files | Loader | None, batch_size: int | None, dictated: int | None
    ) -> None:
        """Combine sources.

        Args:
            inputs: Of inputs, and perhaps of targets with them.
            targets: Of targets given separately.
            batch_size: Samples in each batch, None for those that a loader makes.
            dictated: The only batch size that the model takes, None where it takes any.

        Raises:
            DataError: If the batch size is not the one that the model takes, or none at all.
        """
        if batch_size is not None and batch_size < 1:
            raise DataError(f"--batch-size {batch_size}: expected 1 or more")
        if dictated is not None and batch_size != dictated:
            raise DataError(
                f"--batch-size {batch_size}: expected {dictated}, the only number of samples that the model takes; "
                "export it with a dynamic batch axis for others"
            )
        self.source = inputs.source
        self.targets = "" if targets is None else targets.source
        self.batch_size = batch_size
        self.samples = inputs.samples
        self.once = inputs.once or (targets is not None and targets.once)
        self._inputs, self._targets, self._dictated = inputs, targets, dictated
        self._tally = Tally()

    def __len__(self) -> int:
        """Count the batches of a pass.

        Raises:
            TypeError: If that is not known; it is what ``len`` raises.
        """
        if self.batch_size is None and self._inputs.given is not None:
            return self._inputs.given
        if self.batch_size is None or self.samples is None:
            raise TypeError("the number of batches is not known before they are read")
        return self.samples // self.batch_size if self._dictated else -(-self.samples // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return (inputs for inputs, _ in self.pairs())

    def pairs(self) -> Iterator[tuple[dict[str, Array], dict[str, Array]]]:
        """Yield inputs with their targets, by input and by output name.

        Raises:
            DataError: If something is damaged, does not fit the model, has no partner, or there are no samples.
        """
        tally = self._tally = Tally()
        batches = self._grouped(self._inputs, tally)
        if self._targets is not None:
            batches = paired(batches, self._grouped(self._targets, tally))
        samples = found = 0
        for batch in filter(len, batches):
            samples += len(batch)
            if self._dictated is not None and len(batch) < self._dictated:
                tally.add(f"left out the last {{sample}}: the model takes batches of {self._dictated}", len(batch))
                continue
            found += 1
            yield dict(batch.inputs), dict(batch.targets)
        if not found:
            least = self._dictated or 1
            raise DataError(f"{self.source}: expected at least {counted(least, 'sample')}, found {samples}; give more")
        self.samples = samples

    def batched(self, batch_size: int) -> Data:
        """Return the same data in batches of another size.

        Raises:
            DataError: If the model dictates its own.
        """
        return Data(self._inputs, self._targets, batch_size, self._dictated)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done to the data of the last pass, or found in them, one sentence each."""
        return self._tally.notes()

    def _grouped(self, source: Files | Loader, tally: Tally) -> Iterator[Batch]:
        batches = source.batches(self.batch_size, tally)
        return batches if self.batch_size is None else regrouped(batches, self.batch_size)


def batches_of(
    data: Any,
    *,
    inputs: Sequence[Declared] = (),
    targets: Any = None,
    outputs: Sequence[Declared] = (),
    batch_size: int | None = None,
    scale: str | Scale | None = None,
    size: str | tuple[int, int] | None = None,
) -> Data:
    """Read data as batches for a model; files are opened and held to what the model says, no sample is read yet.

    Data are

    - an .npz file, arrays by input name, or whatever name where there is one array and one input; an .npy file;
    - a folder of those, each a batch or, with one axis less, one sample; or of PNG or JPEG images;
    - arrays or tensors, alone or by name in a dictionary, of all samples;
    - an iterable, a DataLoader say, of batches: arrays, dictionaries of them, or tuples (input, target); or a function
      that returns one. An iterator can be read once. Passes that differ raise DataError.

    Targets are read by the same rules, and paired with inputs by position, those in folders by file name.

    Args:
        data: The inputs.
        inputs: What the model says of its inputs; where it says nothing, data are passed on under their own names.
        targets: What the outputs should be, where data do not say it.
        outputs: What the model says of the outputs that targets are for; where it says nothing, they are not checked.
        batch_size: Samples in each batch. By default what the model dictates, then what an iterable gives, then 8.
        scale: What 0 and 255 of images, and of uint8 arrays for a model of floats, become: a pair or a key of SCALES.
        size: Width and height that images are resized to, a pair or text such as ``256x192``.

    Raises:
        DataError: If files are missing, damaged, or do not fit the model, or an option would do nothing.
    """
    scale, size = scale_of(scale), size_of(size)
    dictated = dictated_batch(inputs)
    ours = Side(INPUT, tuple(inputs), (*(value.name for value in outputs), TARGET))
    theirs = Side(TARGET, tuple(outputs), tuple(value.name for value in inputs))
    sources = [_source(data, ours, theirs, scale, size)]
    if targets is not None:
        sources.append(_source(targets, theirs, None, scale, size))
    files = [source for source in sources if isinstance(source, Files)]
    if len(files) == len(sources):
        if scale is not None and not any(source.scaled for source in files):
            raise DataError(
                "--scale is for images, and for uint8 arrays where the model takes floats, and does nothing with these "
                "data; leave it out"
            )
        if len(files) == 2:
            check_paired(*files)
    if size is not None and not any(source.images for source in files):
        raise DataError("--size is for images and does nothing with these data; leave it out")
    if batch_size is None:
        own = len(sources) == 1 and isinstance(sources[0], Loader) and not sources[0].whole
        batch_size = dictated or (None if own else BATCH_SIZE)
    return Data(sources[0], sources[1] if len(sources) > 1 else None, batch_size, dictated)


def _source(
    data: Any, side: Side, targets: Side | None, scale: Scale | None, size: tuple[int, int] | None
) -> Files | Loader:
    if isinstance(data, (str, os.PathLike)):
        return open_files(data, side, scale, size)
    return Loader(data, side, targets, scale)
