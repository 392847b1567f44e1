"""JSON, for machines: the same envelope for every command, then the command's own part; ``schemas`` describes it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from normswap.reports.document import Document
from normswap.version import __version__

__all__ = ["VERSION", "enveloped", "render"]

VERSION = 1  # grows when a reader of the old form would be misled; new keys alone do not change it


def render(document: Document, created: datetime) -> str:
    """Return a document as JSON; numbers that are NaN or infinite are strings."""
    return json.dumps(enveloped(document, created), indent=2, allow_nan=False) + "\n"


def enveloped(document: Document, created: datetime) -> dict[str, Any]:
    """Return a document as plain data: the envelope, then what the command found."""
    return {
        "version": VERSION,
        "normswap": __version__,
        "created": created.isoformat(),
        "command": document.command,
        "verdict": document.verdict,
        "exit_code": document.exit_code,
        **document.data,
    }
