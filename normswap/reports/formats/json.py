"""JSON, for machines: a version, and all that the reports hold; ``schema.json`` beside this file describes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from normswap.reports.outcome import Outcome, worst

__all__ = ["VERSION", "document", "render"]

VERSION = 1  # grows when a reader of the old form would be misled; new keys alone do not change it


def render(outcomes: Sequence[Outcome], created: datetime) -> str:
    """Return the outcomes as a JSON document; numbers that JSON has no name for become strings."""
    return json.dumps(document(outcomes, created), indent=2, allow_nan=False) + "\n"


def document(outcomes: Sequence[Outcome], created: datetime) -> dict[str, Any]:
    """Return the outcomes as plain data."""
    from normswap import __version__

    return {
        "version": VERSION,
        "normswap": __version__,
        "created": created.isoformat(),
        "exit_code": worst(outcomes),
        "outcomes": [
            {
                "name": outcome.name,
                "before": outcome.before,
                "after": outcome.after,
                "to": outcome.to,
                "ok": outcome.ok,
                "verdict": outcome.verdict,
                "trouble": outcome.trouble,
                "written": outcome.written,
                "report": None if outcome.report is None else outcome.report.to_dict(),
            }
            for outcome in outcomes
        ],
    }
