"""A diagnosis: the verdict, and all that it rests on. Data alone; ``reports`` words it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from normswap.diagnosis.fewest import Fewest
from normswap.diagnosis.layers import LayerFinding
from normswap.diagnosis.verdict import Verdict
from normswap.layer import Array
from normswap.words import written

__all__ = ["Diagnosis", "ModeFinding"]


@dataclass(frozen=True)
class ModeFinding:
    """One way of running the model.

    Attributes:
        name: ``eval``, ``recalibrated``, ``instance``, or ``batch-stat, N = 8``.
        error: Mean over samples of the error against the targets, as people read it; None without targets.
        error_std: Standard error of that mean; NaN for a single sample.
        distance: Mean over samples of the distance from train mode, as a share of the spread of its outputs.
        trouble: Why it was not run; empty where it was.
    """

    name: str
    error: float | None
    error_std: float | None
    distance: float
    trouble: str = ""


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What ``diagnose`` returns.

    Attributes:
        verdict: What to do, and why.
        modes: Each way of running the model, from the simplest fix to the one that changes most.
        layers: Each BatchNorm, in the model's order.
        train: The mode that stands for training, and why.
        samples: Number of samples that were seen.
        source: Where they are from.
        measure: What errors are measured by.
        notes: What a reader must know.
        fewest: Layers whose conversion does nearly what that of all does; None where no conversion is advised.
        complete: Whether all data were seen; False after an interrupt.
        strip: Images of the first samples: input, output of each mode, target; empty where these are not images.
    """

    verdict: Verdict
    modes: tuple[ModeFinding, ...]
    layers: tuple[LayerFinding, ...]
    train: str
    samples: int
    source: str
    measure: str
    notes: tuple[str, ...]
    fewest: Fewest | None = None
    complete: bool = True
    strip: Mapping[str, Array] = field(default_factory=dict, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data; numbers that are NaN or infinite are strings.

        It is the part of ``normswap/reports/schemas/diagnose.json`` that is the command's own.
        """
        from normswap.reports.diagnosis import data_of

        return data_of(self)

    def to_text(self) -> str:
        """Return it for people: the advice, then the numbers that it rests on."""
        from normswap.reports.diagnosis import lines_of

        return written(lines_of(self))
