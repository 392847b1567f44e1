"""What commands print, and where: reports on standard output, trouble on standard error."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

import click

from normswap.reports.formats import render, time_stamp, write_reports
from normswap.reports.outcome import TROUBLE, Outcome
from normswap.words import visible

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["console", "echo", "is_terminal", "prints_aside", "show", "trouble"]

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


def echo(text: str) -> None:
    """Print lines, those that are verdicts in colour on a terminal."""
    for line in text.splitlines():
        style = next((style for word, style in _STYLES.items() if line.startswith(word)), None)
        click.secho(line, **style) if style and is_terminal(sys.stdout) else click.echo(line)


def show(outcomes: Sequence[Outcome], form: str, reports: Sequence[str]) -> None:
    """Print the outcomes, write the reports that were asked for, and name trouble where trouble is looked for."""
    created = time_stamp()
    if form != "text":
        click.echo(render(form, outcomes, created), nl=False)
    elif len(outcomes) > 1 or outcomes[0].report is not None:
        echo(render(form, outcomes, created))
    for outcome in outcomes:
        if outcome.trouble:
            trouble(f"{outcome.name}: {outcome.trouble}" if len(outcomes) > 1 else outcome.trouble)
    write_reports(reports, outcomes, created)


def console() -> Console:
    """Return what prints tables of layers."""
    from rich.console import Console

    # Into a file or a pipe, wide enough that names and reasons are not broken.
    return Console(width=None if is_terminal(sys.stdout) else 200, highlight=False, emoji=False, markup=False)
