"""Batches: samples of a model's inputs with their targets, regrouped to the size that is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from normswap.data.declared import spelled_shape
from normswap.errors import DataError
from normswap.layer import Array

__all__ = ["Batch", "check_counts", "paired", "regrouped"]


@dataclass(frozen=True, eq=False)
class Batch:
    """Some samples.

    Attributes:
        inputs: By input name; the first axis is samples, of all the same number.
        targets: What the outputs should be, by output name; empty where there are none.
        where: Where they are from, for a sentence.
    """

    inputs: Mapping[str, Array]
    targets: Mapping[str, Array] = field(default_factory=dict)
    where: str = ""

    def __post_init__(self) -> None:
        """Hold the arrays to one number of samples.

        Raises:
            DataError: If they have several.
        """
        check_counts({name: len(a) for name, a in (*self.inputs.items(), *self.targets.items())}, self.where)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def part(self, start: int, stop: int) -> Batch:
        """Return the samples from start to stop, as views."""
        return Batch(
            {name: array[start:stop] for name, array in self.inputs.items()},
            {name: array[start:stop] for name, array in self.targets.items()},
            self.where,
        )


def check_counts(counts: Mapping[str, int], where: str) -> None:
    """Hold arrays, of which the numbers of samples are given by name, to one number.

    Raises:
        DataError: If they have several.
    """
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise DataError(
            f"{where}: expected one number of samples in all arrays, found that {found}; the first axis of each is "
            "samples"
        )


def regrouped(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Yield the same samples in the same order, ``size`` at a time; the last batch has what is left.

    Raises:
        DataError: If samples of different shapes or types would share a batch.
    """
    held: list[Batch] = []
    for batch in batches:
        if held:
            _check_alike(held[0], batch)
        held.append(batch)
        if sum(map(len, held)) < size:
            continue
        joined = _joined(held)
        end = len(joined) - len(joined) % size
        for start in range(0, end, size):
            yield joined.part(start, start + size)
        held = [joined.part(end, len(joined))] if end < len(joined) else []
    if held:
        yield _joined(held)


def paired(inputs: Iterable[Batch], targets: Iterable[Batch]) -> Iterator[Batch]:
    """Yield batches of inputs with those of targets, which were regrouped to the same size.

    Raises:
        DataError: If there are more of one than of the other.
    """
    others = iter(targets)
    samples = 0
    for batch in inputs:
        other = next(others, None)
        if batch.targets:
            raise DataError(
                f"{batch.where}: expected targets apart from the inputs, found some with them too; leave one "
                "of them out"
            )
        found = 0 if other is None else len(other)
        if other is None or found != len(batch):
            raise _mismatch(samples, len(batch), found)
        yield Batch(batch.inputs, other.inputs, batch.where)
        samples += len(batch)
    other = next(others, None)
    if other is not None:
        raise _mismatch(samples, 0, len(other))


def _mismatch(before: int, inputs: int, targets: int) -> DataError:
    fewer = "targets" if targets < inputs else "inputs"
    return DataError(
        f"expected a target for each input, found that the {fewer} end after {before + min(inputs, targets)} samples "
        "and the others do not; give as many targets as inputs, in the same order"
    )


def _joined(batches: list[Batch]) -> Batch:
    first = batches[0]
    if len(batches) == 1:
        return first
    return Batch(
        {name: np.concatenate([batch.inputs[name] for batch in batches]) for name in first.inputs},
        {name: np.concatenate([batch.targets[name] for batch in batches]) for name in first.targets},
        first.where,
    )


def _check_alike(one: Batch, other: Batch) -> None:
    """Hold two batches that are to be joined to the same arrays, with the same shapes and types."""
    pairs = ((one.inputs, other.inputs), (one.targets, other.targets))
    if any(ours.keys() != theirs.keys() for ours, theirs in pairs):
        raise DataError(
            f"{other.where}: expected the arrays of {one.where}, {', '.join((*one.inputs, *one.targets))}, found "
            f"{', '.join((*other.inputs, *other.targets))}; give the same ones with every sample"
        )
    for ours, theirs in pairs:
        for name, array in ours.items():
            found = theirs[name]
            if array.shape[1:] != found.shape[1:]:
                shapes = [spelled_shape(shown.shape[1:]) for shown in (array, found)]
                raise DataError(
                    f"{other.where}: expected samples of {name} as {shapes[0]}, as in {one.where}, found {shapes[1]}, "
                    "which cannot share a batch; give images one --size, or read samples with --batch-size 1"
                )
            if array.dtype != found.dtype:
                raise DataError(
                    f"{other.where}: expected {name} as {array.dtype.name}, as in {one.where}, found "
                    f"{found.dtype.name}; save all of them in one type"
                )
