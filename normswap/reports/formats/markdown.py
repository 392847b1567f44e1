"""Markdown, for a job's summary or a comment: the verdict on top, the witnesses, what failed, what was left."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from normswap.report import WITNESSES, Check, Report
from normswap.reports.checks import grouped, remarks, spelled_forms, summary
from normswap.reports.formats.text import tally
from normswap.reports.outcome import Outcome
from normswap.words import shortened, visible

__all__ = ["render"]

_SHOWN = 20  # failures; a summary has little room, and the other formats have all
_LONGEST = 1000  # characters of a name or sentence
_MARKS = ("✅", "❌", "⚠️")


def render(outcomes: Sequence[Outcome], created: datetime) -> str:
    """Return the outcomes as GitHub-flavoured Markdown."""
    parts = [f"## normswap: {tally(outcomes)}"] if len(outcomes) != 1 else []
    parts += [_told(outcome) for outcome in outcomes]
    return "\n\n".join(parts) + "\n"


def _told(outcome: Outcome) -> str:
    mark = _MARKS[outcome.exit_code]
    lines = [f"### {mark} {_plain(outcome.name)} → {_plain(outcome.to)}", "", f"**{_plain(outcome.verdict)}**", ""]
    lines += [f"{_code(outcome.before)} → {_code(outcome.after)}"]
    return "\n".join(lines if outcome.report is None else [*lines, "", *_report(outcome.report)])


def _report(report: Report) -> list[str]:
    lines = ["| witness | result |", "|---|---|"]
    lines += [f"| {witness} | {_plain(summary(report, witness))} |" for witness in WITNESSES]
    lines += [f"| inputs | {_plain(report.inputs)} |"]
    for word, checks in (("failed", report.failed), ("allowed to differ", report.allowed)):
        if checks:
            lines += ["", f"| {word} | where | error | allowed | |", "|---|---|--:|--:|---|"]
            lines += map(_row, checks[:_SHOWN])
        if len(checks) > _SHOWN:
            lines += ["", f"... and {len(checks) - _SHOWN} more."]
    said = [*spelled_forms(report.forms), *(f"left as they are: {group}" for group in grouped(report.left))]
    said += report.notes
    if said:
        lines += ["", "<details><summary>What was left or not compared</summary>", ""]
        lines += [*(f"- {_plain(sentence)}" for sentence in said), "", "</details>"]
    return lines


def _row(check: Check) -> str:
    numbers = " | ".join("" if n is None else f"{n:.2g}" for n in (check.error, check.bound))
    return f"| {check.witness} | {_code(check.name)} | {numbers} | {_plain(remarks(check))} |"


def _plain(text: str) -> str:
    """Keep names and sentences from being read as markup, or from ending a cell."""
    text = re.sub(r"([\\`*_{}\[\]<>|#~&$])", r"\\\1", shortened(visible(text), _LONGEST).strip())
    return re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", text)  # which would begin a list, or underline a heading


def _code(text: str) -> str:
    """Show a name as it is."""
    if re.search(r"[`|]|^\s*$", text):  # which end a code span, or a cell even within one
        return f"<code>{_plain(text)}</code>"
    return f"`{shortened(visible(text), _LONGEST)}`"
