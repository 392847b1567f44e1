"""The fewest layers that have to be converted: greedy by measured effect, on the first batch."""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from normswap.layer import Array
from normswap.statistics.collect import Collection

__all__ = ["TOLERANCE", "Fewest", "fewest_layers"]

TOLERANCE = 0.05  # distance from the full conversion, as a share of the spread of its outputs


@dataclass(frozen=True)
class Fewest:
    """Layers whose conversion alone does nearly what that of all does.

    Attributes:
        names: In the order in which they were added, the greatest effect first.
        distance: Root mean square distance from the full conversion, as a share of the spread of its outputs.
        of: How many layers the full conversion has.
    """

    names: tuple[str, ...]
    distance: float
    of: int

    @property
    def options(self) -> str:
        """What to paste behind ``normswap convert``: globs that match these names alone, quoted as shells have it."""
        return " ".join("--only '{}'".format(glob.escape(name).replace("'", "'\"'\"'")) for name in self.names)


def fewest_layers(
    model: Any,
    mode: str,
    names: Sequence[str],
    arrays: Mapping[str, Array],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Fewest:
    """Convert layer after layer, the one that brings the outputs nearest to the full conversion's first.

    The order is that of the effects of each layer alone, measured once, so L layers take at most 2 L runs. A
    search over all subsets might find a smaller set.

    Args:
        model: As a Collection takes it, its layers in eval mode.
        mode: What they are converted to: ``instance`` or ``batch-stat``.
        names: All layers.
        arrays: One batch.
        progress: Called with (done, total) before each run.
    """
    total = 2 * len(names)
    wanted = _run(model, mode, names, arrays)
    scale = float(np.std(np.concatenate([value.ravel() for value in wanted]))) or 1.0

    def distance(converted: Sequence[str], done: int) -> float:
        progress(done, total)
        found = _run(model, mode, converted, arrays)
        squares = [np.square(one - other).mean() for one, other in zip(found, wanted, strict=True)]
        return float(np.sqrt(np.mean(squares))) / scale

    alone = {name: distance([name], done) for done, name in enumerate(names)}
    order = sorted(names, key=alone.__getitem__)
    for count in range(1, len(order) + 1):
        off = distance(order[:count], len(names) + count - 1) if count > 1 else alone[order[0]]
        if off <= TOLERANCE:
            return Fewest(tuple(order[:count]), off, len(names))
    return Fewest(tuple(order), 0.0, len(names))


def _run(model: Any, mode: str, converted: Sequence[str], arrays: Mapping[str, Array]) -> list[Array]:
    outputs = Collection(model, mode, layers=[], switch=converted).add(arrays)
    return [value.astype(np.float64) for value in outputs.values() if value.dtype.kind in "fV"]
