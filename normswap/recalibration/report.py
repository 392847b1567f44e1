"""Recalibration: what came of giving a model new running statistics. Data alone; ``reports`` words it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normswap.report import Check
from normswap.words import written

__all__ = ["Collected", "Moved", "Recalibration"]


@dataclass(frozen=True, eq=False)
class Moved:
    """How far the running statistics of one layer moved.

    Attributes:
        name: Of the layer.
        samples: Number of samples that its new statistics are taken of.
        elements: Number of elements of each channel.
        shift: Largest shift of a mean over the channels, in standard deviations as stored before: |new - old| /
            sqrt(old variance + eps).
        least: Smallest ratio of new to old variance over the channels, eps added to both.
        most: Largest such ratio.
        staleness: Mean over the channels of KL(new || old), in nats: how far the old statistics were from these data.
    """

    name: str
    samples: int
    elements: int
    shift: float
    least: float
    most: float
    staleness: float


@dataclass(frozen=True, eq=False)
class Recalibration:
    """What ``recalibrate`` returns.

    Attributes:
        model: The model with new running statistics, of the original's kind.
        moved: The layers that got them, in the order of the model.
        left: Why each other BatchNorm kept its own, by its name.
        checks: That nothing else changed, and that what was computed is what is stored.
        variance: What is stored as the variance: ``biased`` or ``unbiased``.
        momentum: Share of the new statistics where they were blended with the old; None where they replace them.
        sequential: Whether they were collected layer by layer.
        passes: Number of passes over the data.
        notes: What a reader must know.
        written: The file that was written; None where none was asked for or something does not hold.
    """

    model: Any
    moved: tuple[Moved, ...]
    left: Mapping[str, str]
    checks: tuple[Check, ...]
    variance: str
    momentum: float | None = None
    sequential: bool = False
    passes: int = 1
    notes: tuple[str, ...] = ()
    written: Path | None = None

    @property
    def ok(self) -> bool:
        """Whether some layer got new statistics, and nothing else changed."""
        return bool(self.moved) and bool(self.checks) and all(check.ok for check in self.checks)

    @property
    def samples(self) -> int:
        """The largest number of samples that the statistics of a layer are taken of."""
        return max((moved.samples for moved in self.moved), default=0)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, without the model; numbers that are NaN or infinite are strings.

        It is the part of ``normswap/reports/schemas/recalibrate.json`` that is the command's own.
        """
        from normswap.reports.recalibration import data_of

        return data_of(self)

    def to_text(self) -> str:
        """Return it for people: a line for each layer, then what was checked, then notes."""
        from normswap.reports.recalibration import lines_of

        return written(lines_of(self))


@dataclass(frozen=True)
class Collected:
    """The moments of a shard, written to a file.

    Attributes:
        shard: ``i/n``.
        samples: Number of samples that each layer's moments are of, by its name.
        notes: What a reader must know.
        written: The file.
    """

    shard: str
    samples: Mapping[str, int]
    notes: tuple[str, ...]
    written: Path
