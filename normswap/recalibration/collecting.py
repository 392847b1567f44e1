"""Collecting for a recalibration: in one pass as in training, or layer by layer as in eval mode."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from normswap.errors import CannotRunError
from normswap.recalibration.options import RecalibrationOptions
from normswap.recalibration.processes import merged_over_processes, rank_and_size, share_of
from normswap.recalibration.selection import Selection
from normswap.recalibration.statistics import statistics_of
from normswap.report import Progress
from normswap.statistics.collect import Collection
from normswap.statistics.moments import Moments

__all__ = ["Seen", "collected", "collected_sequentially"]


_MODE = "batch-stat"  # the layers' mode while statistics are collected in one pass


@dataclass(frozen=True, eq=False)
class Seen:
    """What was collected for a recalibration.

    Attributes:
        moments: Moments of the layers that ran, by name.
        passes: Number of passes over the data.
        notes: What a reader must know.
    """

    moments: Mapping[str, Moments]
    passes: int = 1
    notes: tuple[str, ...] = ()


def collected(
    chosen: Selection,
    batches: Iterable[Any],
    *,
    share: tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> Seen:
    """Collect in one pass, while the chosen layers normalize with the statistics of each batch.

    Args:
        chosen: The model and its layers.
        batches: See ``recalibrate``.
        share: (i, n) takes every n-th batch from the i-th on, and returns the moments of these alone; None shares
            the batches among the processes of torch.distributed, if it was started, and merges their moments.
        progress: See ``recalibrate``.
    """
    collection = Collection(chosen.model, _MODE, layers=chosen.names, switch=chosen.names)
    own = share_of(batches, share or rank_and_size())

    def take() -> Mapping[str, Moments]:
        collection.add_all(own, stage="collection statistics", progress=progress)
        return collection.moments

    moments = take() if share is not None else merged_over_processes(take)
    kept = [f"{name} kept its own mode while statistics were collected: {why}" for name, why in collection.left.items()]
    return Seen(moments, notes=(*collection.notes, *kept))


def collected_sequentially(chosen: Selection, batches: Iterable[Any], options: RecalibrationOptions) -> Seen:
    """Collect layer by layer, each with the chosen layers before it in eval mode and recalibrated.

    Arguments and exceptions are those of ``recalibrate``.
    """
    moments: dict[str, Moments] = {}
    waiting = chosen.names
    model, passes = chosen.model, 0
    while waiting:
        # The first pass looks at all of them, to learn the order in which they run.
        collection = Collection(model, "eval", layers=waiting[: 1 if passes else None], switch=chosen.names)
        stage = f"collecting statistics of layer {passes + 1} of {passes + len(waiting)}"

        def take(collection: Collection = collection, stage: str = stage) -> Mapping[str, Moments]:
            collection.add_all(share_of(batches, rank_and_size()), stage=stage, progress=options.progress)
            return collection.moments

        found = merged_over_processes(take)
        if not passes:
            waiting, notes = list(found), collection.notes
        passes += 1
        if not waiting:
            break
        if waiting[0] not in found:
            raise CannotRunError(f"{waiting[0]}: it ran in the first pass over the batches and not in a later one")
        names = [name for name in chosen.same_as(waiting[0]) if name in waiting]
        moments |= dict.fromkeys(names, found[waiting[0]])
        waiting = [name for name in waiting if name not in names]
        model = chosen.backend.recalibrated(
            model, statistics_of(chosen, {n: moments[n] for n in names}, options.momentum)
        )
    return Seen(moments, passes, notes)
