"""A diagnosis: the verdict, and all that it rests on, as text and as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from normswap.diagnosis.fewest import Fewest
from normswap.diagnosis.layers import Given, LayerFinding
from normswap.diagnosis.verdict import ADVICE, Verdict
from normswap.layer import Array, Floats
from normswap.words import counted, json_number, visible

__all__ = ["Diagnosis", "ModeFinding", "spelled"]

VERSION = 1  # of to_dict; a change that is more than a further key raises it


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
        samples: How many were seen.
        source: Where they are from.
        measure: What errors are measured by.
        notes: What a reader must know.
        fewest: Layers whose conversion does nearly all, where a conversion is advised; None elsewhere.
        complete: Whether all data were seen; False after an interrupt.
        strip: Of the first samples, the images: input, each mode's output, target; empty where they are none.
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
        """Return it as plain data, of which ``schema.json`` tells; numbers that are not finite are strings."""
        return {
            "version": VERSION,
            "advice": self.verdict.advice,
            "mode": self.verdict.mode,
            "why": self.verdict.why,
            "thin": list(self.verdict.thin),
            "train": self.train,
            "samples": self.samples,
            "source": self.source,
            "measure": self.measure,
            "complete": self.complete,
            "notes": list(self.notes),
            "fewest": None
            if self.fewest is None
            else {
                "layers": list(self.fewest.names),
                "of": self.fewest.of,
                "distance": json_number(self.fewest.distance),
            },
            "modes": [
                {
                    "name": mode.name,
                    "error": json_number(mode.error),
                    "error_std": json_number(mode.error_std),
                    "distance": json_number(mode.distance),
                    "trouble": mode.trouble,
                }
                for mode in self.modes
            ],
            "layers": [
                {
                    "name": found.layer.name,
                    "trained": _mismatch(found.trained),
                    "eval": _mismatch(found.eval),
                    "remarks": list(found.remarks),
                }
                for found in self.layers
            ],
        }

    def to_text(self) -> str:
        """Return it for people: the verdict, then the numbers that it rests on."""
        lines = [f"{self.verdict.advice}: {ADVICE[self.verdict.advice]}", f"  {self.verdict.why}"]
        lines += [f"  thin: {sentence}" for sentence in self.verdict.thin]
        lines += ["", *self._table_of_modes(), "", *self._table_of_layers()]
        if self.fewest is not None:
            fewest = self.fewest
            lines += [
                "",
                f"fewest layers: {len(fewest.names)} of {fewest.of}, converted alone, come to within "
                f"{fewest.distance:.1%} of converting all:",
                f"  {fewest.options}",
            ]
        lines += ["", f"train mode: {self.train}", f"data: {self.source} ({counted(self.samples, 'sample')})"]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(map(visible, lines))

    def _table_of_modes(self) -> list[str]:
        width = max(len("way of running it"), *(len(mode.name) for mode in self.modes))
        errors = any(mode.error is not None for mode in self.modes)
        head = f"{self.measure:>10}{'+-':>10}" if errors else ""
        lines = [f"{'way of running it':<{width}}{head}{'from train mode':>18}"]
        for mode in self.modes:
            if mode.trouble:
                lines.append(f"{mode.name:<{width}}  not run: {mode.trouble}")
                continue
            cells = "".join(f"{spelled(n):>10}" for n in (mode.error, mode.error_std)) if errors else ""
            lines.append(f"{mode.name:<{width}}{cells}{mode.distance:>18.1%}")
        return lines

    def _table_of_layers(self) -> list[str]:
        heads = ("mismatch of stored statistics, in nats", "layer (mean over its channels)")
        width = max(map(len, (*heads, *(found.layer.name for found in self.layers))))
        lines = [
            f"{heads[0]:<{width}}  {'batch statistics':>18}  {'eval mode':>18}",
            f"{heads[1]:<{width}}  " + "  ".join([f"{'spread':>8}  {'stale by':>8}"] * 2),
        ]
        for found in self.layers:
            cells = [value for given in (found.trained, found.eval) for value in (given.spread, given.staleness)]
            remarks = "; ".join(found.remarks)
            lines.append(
                f"{found.layer.name:<{width}}  {'  '.join(f'{spelled(n):>8}' for n in cells)}  {remarks}".rstrip()
            )
        return lines


def _mismatch(given: Given) -> dict[str, Any] | None:
    if given.mismatch is None:
        return None
    return {
        "spread": json_number(given.spread),
        "staleness": json_number(given.staleness),
        "channels": {
            "spread": _plainly(given.mismatch.spread),
            "staleness": _plainly(given.mismatch.staleness),
        },
    }


def _plainly(values: Floats) -> list[float | str | None]:
    return [json_number(float(f"{value:.6g}")) for value in values]


def spelled(value: float | None) -> str:
    """Spell a number for a table: three digits, nothing for none, a question mark for NaN."""
    return "" if value is None else "?" if np.isnan(value) else f"{value:.3g}"
