"""One run of ``normswap recalibrate``: from data, for one shard of data, or from the moments of all shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normswap.backends.onnx_graph.graph.model import OnnxModel
from normswap.cli.source import is_checkpoint, source_of
from normswap.data import SCALES, batches_of, parse_size
from normswap.errors import SelectionError
from normswap.files import check_writable
from normswap.recalibration.gathering import gathered
from normswap.recalibration.report import Gathered, Recalibration
from normswap.recalibration.run import recalibrate, recalibrate_with
from normswap.recalibration.selection import Selection, check_output, selection
from normswap.recalibration.shards import Shard, merge_shards, parse_shard, write_shard
from normswap.report import Progress
from normswap.statistics.collect import gathering_backend

__all__ = ["Asked", "carried_out"]


@dataclass(frozen=True)
class Asked:
    """What was asked for, as the command line has it.

    Attributes:
        model: An .onnx file, or package.module:factory.
        output: The file to write: the model, weights, or the moments of a shard.
        weights: State dict for a factory.
        inputs: The data; not needed to merge.
        shards: Files of moments, to merge.
        shard: ``i/n``, which share of the data to gather from.
        merge: Whether to merge.
        batch_size: Samples in each batch; None for what the data are read in by default.
        scale: What 0 and 255 of images become, a key of SCALES.
        size: Width and height that images are brought to, as ``WxH``.
        momentum: See ``normswap.recalibrate``.
        sequential: See there.
        only: See there.
        skip: See there.
        force: Replace an existing file.
    """

    model: str
    output: str
    weights: str | None = None
    inputs: str | None = None
    shards: tuple[str, ...] = ()
    shard: str | None = None
    merge: bool = False
    batch_size: int | None = None
    scale: str | None = None
    size: str | None = None
    momentum: float | None = None
    sequential: bool = False
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    force: bool = False


def carried_out(asked: Asked, progress: Progress | None = None) -> Recalibration | Gathered:
    """Do what was asked for.

    Raises:
        SelectionError: If options contradict each other or would do nothing, beside what ``recalibrate`` raises.
    """
    _raise_for_idle(asked)
    if is_checkpoint(asked.model):
        raise SelectionError(
            f"{asked.model}: a checkpoint cannot be run on data; give the model as package.module:factory --weights"
        )
    source = source_of(asked.model, asked.weights)
    if asked.weights is not None:
        check_writable(asked.output, [Path(asked.weights)], force=asked.force)
    backend = gathering_backend(source)
    loaded = backend.load(source)
    if asked.merge:
        chosen = selection(loaded, only=asked.only, skip=asked.skip, momentum=asked.momentum)
        check_output(chosen, asked.output, force=asked.force)
        seen = merge_shards(chosen, _hash_of(chosen, asked.model), asked.shards)
        return recalibrate_with(chosen, seen, momentum=asked.momentum, output=asked.output, force=asked.force)
    assert asked.inputs is not None, "_raise_for_idle"
    batches = batches_of(
        asked.inputs,
        inputs=backend.declared(loaded),
        batch_size=asked.batch_size,
        scale=SCALES[asked.scale] if asked.scale else None,
        size=parse_size(asked.size) if asked.size else None,
    )
    if asked.shard is not None:
        index, count = parse_shard(asked.shard)
        chosen = selection(loaded, only=asked.only, skip=asked.skip)
        digest = _hash_of(chosen, asked.model)
        check_writable(asked.output, [Path(asked.model)], force=asked.force)
        seen = gathered(chosen, batches, share=(index - 1, count), progress=progress)
        shard = Shard(digest, tuple(chosen.names), index, count, seen)
        written = write_shard(shard, asked.output, force=asked.force)
        samples = {name: moments.samples for name, moments in seen.moments.items()}
        return Gathered(asked.shard, samples, tuple(seen.notes), written)
    return recalibrate(
        loaded,
        batches,
        momentum=asked.momentum,
        sequential=asked.sequential,
        only=asked.only,
        skip=asked.skip,
        output=asked.output,
        force=asked.force,
        progress=progress,
    )


def _raise_for_idle(asked: Asked) -> None:
    """Refuse options that are missing, or would do nothing beside others."""
    if asked.merge:
        if not asked.shards:
            raise SelectionError("--merge takes the files that --shard wrote; name all of them after MODEL")
        idle: dict[str, Any] = {"--inputs": asked.inputs, "--shard": asked.shard, "--batch-size": asked.batch_size}
        idle |= {"--scale": asked.scale, "--size": asked.size, "--sequential": asked.sequential}
        for name, given in idle.items():
            if given:
                raise SelectionError(f"{name} does nothing with --merge, which runs no model; leave it out")
        return
    if asked.shards:
        raise SelectionError(f"{asked.shards[0]}: files of moments are for --merge; give it, or leave them out")
    if asked.inputs is None:
        raise SelectionError("the data are missing from which statistics are gathered; give --inputs")
    if asked.shard is not None and asked.sequential:
        raise SelectionError(
            "--sequential takes each layer's statistics of all data before the next layer's are gathered, which shards "
            "cannot tell one another; leave one of them out"
        )
    if asked.shard is not None and asked.momentum is not None:
        raise SelectionError("--momentum is for the run that stores the statistics; give it with --merge")


def _hash_of(chosen: Selection, named: str) -> str:
    """Hash the model's file, by which shards of one model know each other."""
    if not isinstance(chosen.model, OnnxModel):
        raise SelectionError(
            f"{named}: shards are of .onnx files, which have a hash; run it under torchrun, or recalibrate an export"
        )
    return chosen.model.sha256()
