"""Reports as files: the format of a suffix, what is refused before any work, each file whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from normswap.errors import ReportError
from normswap.files import as_write_error, check_folder, folder_beside, write_whole
from normswap.reports.document import Document
from normswap.reports.formats import FORMATS, check_format, render, time_stamp

__all__ = ["check_reports", "write_reports"]

_BY_SUFFIX = {form.suffix: name for name, form in FORMATS.items() if form.suffix}


def check_reports(command: str, form: str, paths: Iterable[str], sources: Iterable[str] = ()) -> None:
    """Raise, before any work, for a report that could not be printed or written in the end.

    A report replaces a file that exists, except for what is read.

    Args:
        command: Name of the command.
        form: Format of what is printed.
        paths: Reports to be written.
        sources: Files that are read: models, weights, data.

    Raises:
        ReportError: If a format cannot be written, a report is asked for twice or is one of the sources, or
            SOURCE_DATE_EPOCH is not a time.
        ModelWriteError: If a file of that name cannot be made.
    """
    time_stamp()
    check_format(form, command)
    read = {Path(source).resolve() for source in sources}
    seen: set[Path] = set()
    for path in map(Path, paths):
        check_format(_format_of(path), command)
        check_folder(path)
        if path.resolve() in read:
            raise ReportError(f"{path}: is one of the files that are read; choose another path for the report")
        if path.resolve() in seen:
            raise ReportError(f"{path}: is asked for twice; name each report once")
        seen.add(path.resolve())
        with as_write_error(path), folder_beside(path):
            pass  # making it is a surer test than any permission


def write_reports(paths: Iterable[str], document: Document, created: datetime | None = None) -> None:
    """Write a file for each path, in the format of its suffix, each whole or not at all.

    Raises:
        ReportError: If no format has the suffix, or it cannot be written.
        ModelWriteError: If a file cannot be written.
    """
    created = created or time_stamp()
    for path in map(Path, paths):
        write_whole(path, render(_format_of(path), document, created))


def _format_of(path: Path) -> str:
    name = _BY_SUFFIX.get(path.suffix.lower())
    if name is None:
        known = ", ".join(f"{suffix} ({name})" for suffix, name in _BY_SUFFIX.items())
        raise ReportError(f"{path}: no report format has the suffix {path.suffix!r}; known are {known}")
    return name
