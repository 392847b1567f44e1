"""Text, for people: a line for each witness, then failures, then notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from normswap.reports.outcome import Outcome
from normswap.words import counted, visible

__all__ = ["render", "tally"]


def render(outcomes: Sequence[Outcome], created: datetime) -> str:
    """Return the outcomes as text; several have a heading each, and a line on all of them at the end."""
    if len(outcomes) == 1:
        return _told(outcomes[0]) + "\n"
    parts = [f"{visible(f'== {o.name}: {o.before} -> {o.after}, {o.to}')}\n{_told(o)}\n" for o in outcomes]
    return "\n".join([*parts, tally(outcomes) + "\n"])


def tally(outcomes: Sequence[Outcome]) -> str:
    """Count the outcomes by how they came out."""
    counts = Counter(outcome.exit_code for outcome in outcomes)
    said = [f"{counts[code]} {word}" for code, word in enumerate(("equal", "different", "in trouble")) if counts[code]]
    return f"{counted(len(outcomes), 'pair')}: {', '.join(said)}"


def _told(outcome: Outcome) -> str:
    return visible(f"TROUBLE: {outcome.trouble}") if outcome.report is None else outcome.report.to_text()
