"""HTML: one page that needs nothing else, with the layers' errors as bars and the outputs that are images as images.

``page.html`` beside this file is the page.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

import numpy as np

from normswap.layer import Array
from normswap.report import WITNESSES, Check, Picture, Report, Witness
from normswap.reports import pages
from normswap.reports.checks import described, remarks, spelled_forms, summary
from normswap.reports.formats.text import tally
from normswap.reports.outcome import Outcome, worst
from normswap.reports.pixels import Scale, difference_of, difference_pixels, image_pixels, scale_of

__all__ = ["render"]

_FAILURES = 3  # of a witness that are told on top; the tables below have all
_OUTPUTS = 6  # shown as images
_LEAST = -4  # decade at which bars begin
_MEANS: dict[Witness, str] = {
    "structure": "Outside the converted layers nothing may change: every other operator, attribute and tensor is "
    "compared, byte for byte.",
    "probes": "Each converted layer is cut out and run alone on crafted inputs (a variance near eps, a mean far above "
    "the spread, a constant channel, NaN, ...), and held to float64 arithmetic within a derived rounding bound.",
    "end to end": "The whole converted model is run beside the original, whose BatchNorms compute the stated meaning "
    "by other kernels. It may be off by a margin times what rounding alone moves the original.",
}


def render(outcomes: Sequence[Outcome], created: datetime) -> str:
    """Return the outcomes as a page."""
    return pages.render(
        Path(__file__).with_name("page.html"),
        created,
        outcomes=[_Told(outcome) for outcome in outcomes],
        tally=tally(outcomes),
        code=worst(outcomes),
    )


class _Told:
    """One outcome, as the page tells it."""

    MEANS = _MEANS

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.code = outcome.exit_code
        self.report = outcome.report
        if self.report is None:
            return
        report = self.report
        failed = {witness: [check for check in report.failed if check.witness == witness] for witness in WITNESSES}
        self.failures = [
            (witness, [described(check) for check in checks[:_FAILURES]], len(checks) - _FAILURES)
            for witness, checks in failed.items()
            if checks
        ]
        self.differences = failed["structure"] if len(failed["structure"]) > _FAILURES else []
        self.witnesses = [(witness, _state(report, witness), summary(report, witness)) for witness in WITNESSES]
        self.layers = _Bars(_layers(report))
        self.outputs = _Bars([_Row.of(check, report) for check in report.of("end to end")])
        self.allowed = [f"{check.witness}: {described(check)}" for check in report.allowed]
        self.forms = spelled_forms(report.forms)
        self.left = _by_reason(report)
        self.shown = list(islice(_shown(report), _OUTPUTS))
        self.not_shown = len({picture.name for picture in report.pictures}) - len(self.shown)


def _state(report: Report, witness: Witness) -> str:
    checks = report.of(witness)
    if checks:
        return "failed" if any(check.witness == witness for check in report.failed) else "held"
    return "not run, though needed" if witness in report.needed else "not run"


@dataclass(frozen=True)
class _Row:
    """A line of a table: one comparison, or a layer that none was made of."""

    name: str
    state: str
    check: Check | None = None

    @classmethod
    def of(cls, check: Check, report: Report) -> _Row:
        allowed = check in report.allowed
        return cls(check.name, "held" if check.ok else "allowed to differ" if allowed else "failed", check)

    @property
    def remarks(self) -> str:
        """What there is to say of the comparison beside its numbers."""
        return "" if self.check is None else remarks(self.check)

    @property
    def ratio(self) -> float | None:
        """Error as a multiple of what was allowed, None where nothing numerical was compared."""
        if self.check is None or self.check.error is None or self.check.bound is None:
            return None
        return math.inf if math.isnan(self.check.ratio) else self.check.ratio

    def rank(self) -> tuple[int, float]:
        """Where it stands among others: failures first, the worst of them on top, then what was not seen."""
        if self.state == "failed":
            return 0, -math.inf if self.ratio is None else -self.ratio
        return (1 if self.state in ("not seen", "allowed to differ") else 2), 0.0


def _layers(report: Report) -> list[_Row]:
    """Return a line for each planned layer: first those that failed, worst first, then in the model's order."""
    waiting: dict[str, list[Check]] = {}
    for check in report.of("probes"):
        waiting.setdefault(check.name, []).append(check)
    unseen = "not seen" if "probes" in report.needed else "not probed"
    rows = [
        _Row.of(waiting[name].pop(0), report) if waiting.get(name) else _Row(name, unseen) for name in report.planned
    ]
    rows += [
        _Row.of(check, report) for checks in waiting.values() for check in checks
    ]  # of a layer that nobody planned
    return sorted(rows, key=_Row.rank)


class _Bars:
    """The lines of a table on one logarithmic axis, from 0.0001 times what is allowed to a decade that holds all."""

    WIDTH = 200  # pixels

    def __init__(self, rows: Sequence[_Row]) -> None:
        self.rows = rows
        ratios = [row.ratio for row in rows if row.ratio is not None]
        finite = [ratio for ratio in ratios if math.isfinite(ratio) and ratio > 0]
        self._most = max(1, math.ceil(math.log10(max(finite, default=1.0))))
        self.numerical = bool(ratios)
        self.says = any(row.check or row.state == "not seen" for row in rows)
        self.bound = self.at(1.0)

    def at(self, ratio: float) -> float:
        """Return how long the bar of a ratio is; of one that is not 0, long enough to be seen."""
        if not ratio:
            return 0.0
        decade = self._most if math.isinf(ratio) else math.log10(ratio)
        share = (decade - _LEAST) / (self._most - _LEAST)
        return round(self.WIDTH * min(max(share, 0.01), 1.0), 1)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Both ends of the axis and what to write there."""
        raised = "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(digit)] for digit in str(self._most)) if self._most > 1 else ""
        return [(0.0, "10⁻⁴"), (self.WIDTH, f"10{raised}")]


def _by_reason(report: Report) -> list[tuple[str, list[str]]]:
    names: dict[str, list[str]] = {}
    for name, reason in report.left.items():
        names.setdefault(reason, []).append(name)
    return list(names.items())


@dataclass(frozen=True)
class _Run:
    """One way of running the converted model, beside the original: its samples as images."""

    how: str
    bound: float | None
    most: float
    undefined: bool
    images: list[tuple[str, str, str, float]]  # original, converted, difference, the largest of it


@dataclass(frozen=True)
class _Output:
    """An output that is an image, and the scale that its values are shown on."""

    name: str
    scale: Scale
    shape: tuple[int, ...]
    runs: list[_Run]  # the one that is furthest off first


def _shown(report: Report) -> Iterator[_Output]:
    for name in dict.fromkeys(picture.name for picture in report.pictures):
        pictures = [picture for picture in report.pictures if picture.name == name]
        scale = scale_of(pictures[0].expected)
        runs = [_run(picture, scale) for picture in pictures]
        runs.sort(key=lambda run: (not run.undefined, -run.most))
        yield _Output(name, scale, pictures[0].expected.shape, runs)


def _run(picture: Picture, scale: Scale) -> _Run:
    samples = list(zip(picture.expected, picture.found, strict=True))
    differences = [difference_of(expected, found) for expected, found in samples]
    most = max(map(_largest, differences))
    images = [
        (
            pages.png(image_pixels(expected, scale)),
            pages.png(image_pixels(found, scale)),
            pages.png(difference_pixels(difference, picture.bound, most)),
            _largest(difference),
        )
        for (expected, found), difference in zip(samples, differences, strict=True)
    ]
    undefined = any(not np.isfinite(array.astype(np.float64)).all() for array in (picture.expected, picture.found))
    return _Run(picture.how, picture.bound, most, undefined, images)


def _largest(difference: Array) -> float:
    return float(difference.max(where=np.isfinite(difference), initial=0.0))
