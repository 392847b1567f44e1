"""FORMATS: how outcomes are written, for people and for machines. A new format is one file here and one entry below."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path

from normswap.errors import ReportError
from normswap.files import as_write_error, check_folder, folder_beside, write_whole
from normswap.reports.outcome import Outcome
from normswap.words import nearest

__all__ = ["FORMATS", "check_reports", "render", "time_stamp", "write_reports"]

FORMATS: dict[str, str] = {  # name, which is also the module's -> suffix of files; "" where it is for a log alone
    "text": ".txt",
    "json": ".json",
    "junit": ".xml",
    "markdown": ".md",
    "html": ".html",
    "github": "",
}
_BY_SUFFIX = {suffix: name for name, suffix in FORMATS.items() if suffix}


def render(name: str, outcomes: Sequence[Outcome], created: datetime | None = None) -> str:
    """Write outcomes in one of FORMATS; the same outcomes give the same text but for the time stamp.

    Args:
        name: Of the format.
        outcomes: One for each pair of models.
        created: The time stamp; ``time_stamp()`` if None.

    Raises:
        ReportError: If the format is unknown, or needs a package that is not installed.
    """
    text: str = _module(name).render(outcomes, created or time_stamp())
    return text


def check_reports(paths: Iterable[str], sources: Iterable[str] = ()) -> None:
    """Raise for a report that could not be written in the end, before any work.

    Args:
        paths: Of the reports.
        sources: What must not be written over: the models.

    Raises:
        ReportError: If no format has the suffix or it needs a package that is not installed, a report is asked for
            twice or is one of the sources, or SOURCE_DATE_EPOCH is no time.
        ModelWriteError: If no file of that name can be made.
    """
    time_stamp()
    read = {Path(source).resolve() for source in sources}
    seen: set[Path] = set()
    for path in map(Path, paths):
        _module(_format_of(path))
        check_folder(path)
        if path.resolve() in read:
            raise ReportError(f"{path}: is a model that is read, which no report replaces; name another file")
        if path.resolve() in seen:
            raise ReportError(f"{path}: is asked for twice; name each report once")
        seen.add(path.resolve())
        with as_write_error(path), folder_beside(path):
            pass  # that it can be made says more than any permission


def write_reports(paths: Iterable[str], outcomes: Sequence[Outcome], created: datetime | None = None) -> None:
    """Write a file for each path, in the format of its suffix, each whole or not at all.

    Raises:
        ReportError: If no format has the suffix, or it needs a package that is not installed.
        ModelWriteError: If a file cannot be written.
    """
    created = created or time_stamp()
    for path in map(Path, paths):
        write_whole(path, render(_format_of(path), outcomes, created))


def _format_of(path: Path) -> str:
    name = _BY_SUFFIX.get(path.suffix.lower())
    if name is None:
        known = ", ".join(f"{suffix} ({name})" for suffix, name in _BY_SUFFIX.items())
        raise ReportError(f"{path}: no report format has the suffix {path.suffix!r}; known are {known}")
    return name


def _module(name: str):  # type: ignore[no-untyped-def]  # a module that has render(outcomes, created)
    if name not in FORMATS:
        raise ReportError(f"unknown report format {name!r}{nearest(name, FORMATS)}; known are {', '.join(FORMATS)}")
    try:
        return importlib.import_module(f"normswap.reports.formats.{name}")
    except ImportError as error:
        raise ReportError(f"a report as {name} takes {error.name}; pip install 'normswap[{name}]'") from error


def time_stamp() -> datetime:
    """Return the time that reports are stamped with: that of SOURCE_DATE_EPOCH where there is one, else now.

    Raises:
        ReportError: If SOURCE_DATE_EPOCH is no number of seconds, or beyond the calendar.

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
            f"SOURCE_DATE_EPOCH: expected the seconds since 1970 of a time, found {given!r}; set it so, or unset it"
        ) from error
