"""HTML: one page that needs nothing else, with errors as bars, outputs as images, and drawings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from normswap.reports import pages
from normswap.reports.blocks import Bar, Block, Table, Text
from normswap.reports.document import COMMANDS, Document, Section, Tone

__all__ = ["render"]

_LEAST = -4  # decade at which bars of ratios begin
_TONES: tuple[Tone, ...] = ("pass", "fail", "trouble")  # by exit code
_WORDS = ("PASS", "FAIL", "TROUBLE")
_MARKS: dict[Tone, str] = {"pass": "✔", "fail": "✘", "trouble": "⚠"}


def render(document: Document, created: datetime) -> str:
    """Return a document as a page."""
    code = document.exit_code
    checks = COMMANDS[document.command].checks
    tone: Tone = _TONES[code] if code < len(_TONES) else "trouble"
    whole = _Part(document.verdict, _WORDS[_TONES.index(tone)], tone, _MARKS[tone], document.verdict, code)
    return pages.render(
        created,
        command=document.command,
        about=document.about,
        exit_code=code,
        whole=whole,
        sections=[_part(section, checks) for section in document.sections],
        scales_of=_scales_of,
    )


class _Part(NamedTuple):
    """A section as the template has it."""

    name: str
    word: str
    tone: Tone
    mark: str
    verdict: str
    exit_code: int
    to: str = ""
    facts: Sequence[tuple[str, Text]] = ()
    blocks: Sequence[Block] = ()


def _part(section: Section, checks: bool) -> _Part:
    mark = _MARKS[section.tone] if checks else ""
    of = section
    return _Part(of.name, of.word, of.tone, mark, of.verdict, of.exit_code, of.to, of.facts, of.page())


class _Ratios:
    """A logarithmic scale, from 0.0001 times what is allowed to a decade that holds all ratios."""

    WIDTH = 200  # pixels

    def __init__(self, ratios: Sequence[float]) -> None:
        finite = [ratio for ratio in ratios if math.isfinite(ratio) and ratio > 0]
        self._most = max(1, math.ceil(math.log10(max(finite, default=1.0))))
        self.bound = self.at(1.0)

    def at(self, ratio: float) -> float:
        """Return the length of a bar; if the ratio is not 0, long enough to be seen."""
        if not ratio:
            return 0.0
        decade = self._most if math.isinf(ratio) else math.log10(ratio)
        share = (decade - _LEAST) / (self._most - _LEAST)
        return round(self.WIDTH * min(max(share, 0.01), 1.0), 1)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Both ends of the axis, with their labels."""
        raised = "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(digit)] for digit in str(self._most)) if self._most > 1 else ""
        return [(0.0, "10⁻⁴"), (self.WIDTH, f"10{raised}")]


class _Shares:
    """A linear scale from 0 to the largest value."""

    WIDTH = 200  # pixels
    bound = None

    def __init__(self, values: Sequence[float]) -> None:
        self._most = max((value for value in values if math.isfinite(value)), default=0.0)

    def at(self, value: float) -> float:
        """Return the length of a bar."""
        share = value / self._most if self._most > 0 and value > 0 else 0.0
        return round(self.WIDTH * min(share, 1.0), 1) if math.isfinite(share) else 0.0


def _scales_of(table: Table) -> list[_Ratios | _Shares | None]:
    """Return the scale of each column that holds bars."""
    scales: list[_Ratios | _Shares | None] = []
    for index, column in enumerate(table.columns):
        values = [cell.value for row in table.rows if isinstance(cell := row.cells[index], Bar)]
        scales.append(
            _Ratios(values) if column.kind == "ratio" else _Shares(values) if column.kind == "share" else None
        )
    return scales
