"""Shards: the moments that one of several runs collected, in an .npz file that another run merges."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from normswap.backends.inputs import read_arrays
from normswap.errors import ModelReadError, SelectionError
from normswap.files import as_write_error, check_writable, folder_beside
from normswap.recalibration.collecting import Seen
from normswap.recalibration.processes import merged
from normswap.recalibration.selection import Selection
from normswap.statistics.moments import Moments
from normswap.words import counted

__all__ = ["Shard", "merge_shards", "parse_shard", "read_shard", "write_shard"]

_VERSION = 1
_HEAD = "normswap"  # name of the array that describes the others


@dataclass(frozen=True, eq=False)
class Shard:
    """What one run collected.

    Attributes:
        model: SHA-256 of the model's file.
        layers: Names of all layers that are to be recalibrated, in the order of the model.
        index: Which of the shards it is, from 1 on.
        count: How many shards there are.
        seen: What was collected.
    """

    model: str
    layers: tuple[str, ...]
    index: int
    count: int
    seen: Seen


def parse_shard(text: str) -> tuple[int, int]:
    """Read ``i/n``.

    Raises:
        SelectionError: If it does not have that form, or i is not one of 1 to n.
    """
    index, sign, count = text.partition("/")
    if not sign or not index.isdecimal() or not count.isdecimal() or not 1 <= int(index) <= int(count):
        raise SelectionError(f"--shard {text}: expected i/n with i from 1 to n, such as 1/4")
    return int(index), int(count)


def write_shard(shard: Shard, path: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Write a shard whole or not at all.

    Raises:
        ModelWriteError: If the file exists and ``force`` is not given, or cannot be written.
    """
    path = Path(path)
    check_writable(path, (), force=force)
    head = {
        "version": _VERSION,
        "model": shard.model,
        "layers": shard.layers,
        "shard": [shard.index, shard.count],
        "seen": list(shard.seen.moments),
        "notes": shard.seen.notes,
    }
    arrays: dict[str, Any] = {_HEAD: np.frombuffer(json.dumps(head).encode(), np.uint8)}
    arrays |= {str(number): moments.to_array() for number, moments in enumerate(shard.seen.moments.values())}
    with as_write_error(path), folder_beside(path) as folder:
        aside = Path(folder) / path.name
        with aside.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        os.replace(aside, path)
    return path


def read_shard(path: str | os.PathLike[str]) -> Shard:
    """Read what ``write_shard`` wrote.

    Raises:
        ModelReadError: If the file is not a shard, is damaged, or is of another version.
    """
    arrays = read_arrays(path)
    if _HEAD not in arrays:
        raise ModelReadError(
            f"{path}: expected moments written with --shard, found arrays {', '.join(arrays) or 'none'}"
        )
    try:
        head = json.loads(arrays[_HEAD].tobytes())
        version = head["version"]
        if version == _VERSION:
            moments = {name: Moments.from_array(arrays[str(number)]) for number, name in enumerate(head["seen"])}
            index, count = map(int, head["shard"])
            seen = Seen(moments, notes=tuple(map(str, head["notes"])))
            return Shard(str(head["model"]), tuple(map(str, head["layers"])), index, count, seen)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelReadError(f"{path}: expected moments written with --shard; the file is damaged: {error}") from error
    raise ModelReadError(f"{path}: its moments are of version {version}, expected {_VERSION}; collect them again")


def merge_shards(chosen: Selection, model: str, paths: Sequence[str | os.PathLike[str]]) -> Seen:
    """Merge what all shards of one model collected, in their order.

    Args:
        chosen: The model and its layers.
        model: SHA-256 of its file.
        paths: One file for each shard.

    Raises:
        ModelReadError: If a file is not a shard.
        SelectionError: If a shard belongs to another model, other layers or another number of shards, occurs twice, or
            is missing.
    """
    shards: dict[int, Shard] = {}
    named: dict[int, str | os.PathLike[str]] = {}
    count = 0
    for path in paths:
        shard = read_shard(path)
        count = count or shard.count
        if shard.model != model:
            raise SelectionError(
                f"{path}: its moments are of another model than the one given; give the one they are of"
            )
        if shard.layers != tuple(chosen.names):
            raise SelectionError(
                f"{path}: its moments are of {counted(len(shard.layers), 'layer')}, expected the "
                f"{len(chosen.layers)} selected; give the --only and --skip that it was collected with"
            )
        if shard.count != count:
            raise SelectionError(f"{path}: it is one of {shard.count} shards, {paths[0]} one of {count}")
        if shard.index in shards:
            raise SelectionError(f"{path}: it is shard {shard.index}/{count}, as {named[shard.index]} is")
        wrong = [
            layer.name
            for layer in chosen.layers
            if (found := shard.seen.moments.get(layer.name)) is not None
            and (found.eps != layer.eps or found.mean.shape != (layer.num_features,))
        ]
        if wrong:
            raise ModelReadError(f"{path}: its moments of {wrong[0]} do not fit that layer; the file is damaged")
        shards[shard.index], named[shard.index] = shard, path
    missing = [index for index in range(1, count + 1) if index not in shards]
    if missing:
        raise SelectionError(
            f"{counted(len(missing), 'shard')} of {count} missing: {', '.join(f'{i}/{count}' for i in missing[:4])}; "
            "give the files of all"
        )
    parts = [shards[index].seen for index in sorted(shards)]
    notes = dict.fromkeys(note for part in parts for note in part.notes)
    return Seen(merged([part.moments for part in parts]), notes=tuple(notes))
