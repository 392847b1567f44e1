"""Recalibration: what came of giving a model new running statistics, for people and for machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normswap.report import Check
from normswap.reports.checks import grouped
from normswap.words import counted, json_number, visible

__all__ = ["Moved", "Recalibration"]


@dataclass(frozen=True, eq=False)
class Moved:
    """How far one layer's running statistics moved.

    Attributes:
        name: Of the layer.
        samples: Number of samples that its new statistics are of.
        elements: Number of elements of each channel.
        shift: Largest shift of a mean over the channels, in standard deviations as stored before: |new - old| /
            sqrt(old variance + eps).
        least: Smallest ratio of new to old variance over the channels, eps added to both.
        most: Largest such ratio.
        staleness: Mean over the channels of KL(new || old), in nats: how wrong the old ones were about these data.
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
        sequential: Whether they were gathered layer by layer.
        passes: How often the data were gone through.
        notes: What a reader must know.
        written: The file that was written, None where none was asked for or something does not hold.
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
        """The largest number of samples that a layer's statistics are of."""
        return max((moved.samples for moved in self.moved), default=0)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, without the model; numbers that JSON has no name for become strings."""
        return {
            "ok": self.ok,
            "samples": self.samples,
            "variance": self.variance,
            "momentum": self.momentum,
            "sequential": self.sequential,
            "passes": self.passes,
            "written": None if self.written is None else str(self.written),
            "layers": [
                {
                    "name": moved.name,
                    "samples": moved.samples,
                    "elements": moved.elements,
                    "mean_shift": json_number(moved.shift),
                    "variance_ratio": [json_number(moved.least), json_number(moved.most)],
                    "staleness_nats": json_number(moved.staleness),
                }
                for moved in self.moved
            ],
            "left": dict(self.left),
            "checks": [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in self.checks],
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """Return it for people: a line for each layer, then what was checked, then notes."""
        how = "layer by layer, each as in eval mode" if self.sequential else "under the statistics of each batch"
        wide = max([5, *(len(moved.name) for moved in self.moved)])
        passes = f" in {self.passes} passes" if self.passes > 1 else ""
        lines = [
            f"{counted(len(self.moved), 'BatchNorm layer')} recalibrated from {counted(self.samples, 'sample')}, "
            f"gathered {how}{passes}",
            f"{'layer':<{wide}}  samples  mean moved by   variance times  was stale by",
        ]
        for moved in self.moved:
            ratio = f"{moved.least:.2g} to {moved.most:.2g}"
            figures = f"{moved.samples:>7}  {moved.shift:>9.2g} std  {ratio:>15}  {moved.staleness:>7.2g} nats"
            lines.append(f"{moved.name:<{wide}}  {figures}")
        lines += [f"  FAILED: {check.detail}" for check in self.checks if not check.ok]
        lines += [f"  left as they are: {said}" for said in grouped(self.left)]
        lines += [f"  note: {note}" for note in self.notes]
        lines.append(f"PASS: {self.checks[0].detail}" if self.ok else "FAIL: more or less than the statistics changed")
        return "\n".join(map(visible, lines))
