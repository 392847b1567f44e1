"""FORMATS: how a document is written. A new format is an entry here and a file with ``render(document, created)``."""

from __future__ import annotations

import importlib
import os
from datetime import datetime, timezone
from typing import NamedTuple

from normswap.errors import ReportError
from normswap.reports.document import COMMANDS, Document
from normswap.words import nearest

__all__ = ["FORMATS", "Format", "check_format", "render", "time_stamp"]


class Format(NamedTuple):
    """A format of reports.

    Attributes:
        suffix: Suffix of its files; empty where it is for a log alone.
        checks: Whether it holds nothing but checks, so that a command without checks has no use for it.
    """

    suffix: str
    checks: bool = False


FORMATS = {  # name, which is also the name of the module
    "text": Format(".txt"),
    "json": Format(".json"),
    "junit": Format(".xml", checks=True),
    "markdown": Format(".md"),
    "html": Format(".html"),
    "github": Format(""),
}


def render(name: str, document: Document, created: datetime | None = None) -> str:
    """Write a document in one of FORMATS; the same document gives the same text, except for the time stamp.

    Args:
        name: Name of the format.
        document: What to write.
        created: The time stamp; ``time_stamp()`` if None.

    Raises:
        ReportError: As ``check_format`` raises it.
    """
    check_format(name, document.command)
    module = importlib.import_module(f"normswap.reports.formats.{name}")
    text: str = module.render(document, created or time_stamp())
    return text


def check_format(name: str, command: str) -> None:
    """Raise for a format that cannot be written.

    Raises:
        ReportError: If the format is unknown, has no place for what the command finds, or takes a package that is not
            installed.
    """
    if name not in FORMATS:
        raise ReportError(f"unknown report format {name!r}{nearest(name, FORMATS)}; known are {', '.join(FORMATS)}")
    if FORMATS[name].checks and not COMMANDS[command].checks:
        others = ", ".join(other for other, form in FORMATS.items() if not form.checks)
        raise ReportError(
            f"{command} checks nothing that passes or fails, and a report as {name} holds only that; choose one of "
            f"{others}"
        )
    drawn = name == "html" and COMMANDS[command].drawings
    extra = "diagnose" if drawn else name
    try:
        importlib.import_module(f"normswap.reports.formats.{name}")
        if drawn:
            importlib.import_module("normswap.reports.drawings")
    except ImportError as error:
        raise ReportError(f"a report as {name} takes {error.name}; pip install 'normswap[{extra}]'") from error


def time_stamp() -> datetime:
    """Return the time that reports are stamped with: SOURCE_DATE_EPOCH where it is set, else the current time.

    Raises:
        ReportError: If SOURCE_DATE_EPOCH is not a number of seconds, or beyond the calendar.

    References:
        reproducible-builds.org, SOURCE_DATE_EPOCH specification 1.1.
    """
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not given:
        return datetime.now(timezone.utc).replace(microsecond=0)
    try:
        return datetime.fromtimestamp(int(given), timezone.utc)
    except (ValueError, OverflowError, OSError) as error:
        raise ReportError(
            f"SOURCE_DATE_EPOCH: expected a time in seconds since 1970, found {given!r}; correct it or unset it"
        ) from error
