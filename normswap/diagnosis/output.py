"""Write a diagnosis to a file, whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from normswap.diagnosis import Diagnosis
from normswap.errors import ReportError
from normswap.files import check_writable, write_whole
from normswap.reports.formats import time_stamp

__all__ = ["check_page", "write_page"]


def check_page(path: str, sources: Sequence[str]) -> None:
    """Raise before any work if the page could not be written in the end.

    Raises:
        ReportError: If it has another suffix than .html, or needs a package that is not installed.
        ModelWriteError: If the file cannot be written, or is one of what is read.
    """
    if Path(path).suffix.lower() != ".html":
        raise ReportError(f"{path}: a diagnosis is written as .html; --json prints it for machines")
    check_writable(path, [Path(source) for source in sources if Path(source).exists()], force=True)
    _page()


def write_page(diagnosis: Diagnosis, model: str, path: str) -> None:
    """Write the page; a file of that name is replaced."""
    write_whole(Path(path), _page().render(diagnosis, model, time_stamp()))


def _page() -> ModuleType:
    try:
        from normswap.diagnosis import page
    except ImportError as error:
        raise ReportError(f"the page of a diagnosis takes {error.name}; pip install 'normswap[diagnose]'") from error
    return page
