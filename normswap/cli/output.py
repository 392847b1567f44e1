"""What commands print, and where: reports on standard output, trouble on standard error."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any, TextIO

import click

from normswap.reports.document import Document
from normswap.reports.files import write_reports
from normswap.reports.formats import render, text, time_stamp
from normswap.reports.outcome import TROUBLE, Outcome
from normswap.reports.verification import verification
from normswap.words import visible

__all__ = ["is_terminal", "prints_aside", "show", "show_outcomes", "trouble"]

_STYLES: dict[str, dict[str, Any]] = {
    "PASS": {"fg": "green", "bold": True},
    "FAIL": {"fg": "red", "bold": True},
    "TROUBLE": {"fg": "red", "bold": True},
}


def trouble(sentence: str) -> int:
    """Print what went wrong as one line, and return the exit code for it."""
    lines = [line.strip() for line in sentence.splitlines()]
    click.echo(f"normswap: {visible(' '.join(filter(None, lines)))}", err=True)
    return TROUBLE


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream goes to somebody who watches."""
    return stream is not None and stream.isatty()  # None where the process was started without one


def prints_aside() -> contextlib.redirect_stdout[TextIO]:
    """Keep what a user's code prints out of reports, which machines read."""
    return contextlib.redirect_stdout(sys.stderr)


def show(document: Document, report_format: str, reports: Sequence[str], troubles: Sequence[str] = ()) -> None:
    """Print what a command found, and write the reports that were asked for.

    Args:
        document: What it found.
        report_format: The format in which it is printed.
        reports: Files to write.
        troubles: What kept it from finding more, for standard error.
    """
    created = time_stamp()
    if report_format == "text" and troubles and len(document.sections) == 1:
        pass  # there is nothing else to print
    elif report_format == "text" and is_terminal(sys.stdout):
        _echo(text.written(document, shutil.get_terminal_size().columns, styled="NO_COLOR" not in os.environ))
    else:
        click.echo(render(report_format, document, created), nl=False)
    for sentence in troubles:
        trouble(sentence)
    write_reports(reports, document, created)


def show_outcomes(outcomes: Sequence[Outcome], command: str, report_format: str, reports: Sequence[str]) -> None:
    """Show how pairs of models came out."""
    named = len(outcomes) > 1
    troubles = [f"{of.name}: {of.trouble}" if named else of.trouble for of in outcomes if of.trouble]
    show(verification(outcomes, command), report_format, reports, troubles)


def _echo(written: str) -> None:
    """Print lines, the verdicts among them in colour."""
    for line in written.splitlines():
        style = next((style for word, style in _STYLES.items() if line.startswith(word)), None)
        click.secho(line, **style) if style else click.echo(line)
