"""Workflow commands of GitHub Actions: the text in a group that folds, then an annotation for each failure.

References:
    docs.github.com, Workflow commands for GitHub Actions: ``::error file={name},title={title}::{message}``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from normswap.reports.document import Document, Section
from normswap.reports.formats import text
from normswap.words import counted, shortened, visible

__all__ = ["render"]

_LONGEST = 2000  # characters of a message; more than the longest name that anybody reads
_MOST = 10  # annotations of a kind that GitHub shows for a step


def render(document: Document, created: datetime) -> str:
    """Return a document as a log with annotations: errors for failures, warnings, and notices.

    There are not more of a kind than GitHub shows: first the verdict of each section, then single failures.
    """
    lines = []
    for section in document.sections:
        lines += [f"::group::{_data(f'{section.title}: {section.phrase}')}"]
        lines += map(_inert, text.written(replace(document, sections=[section])).splitlines())
        lines += ["::endgroup::"]
    lines += _verdicts("notice", [section for section in document.sections if not section.exit_code])
    wrong = [section for section in document.sections if section.exit_code]
    lines += _verdicts("error", wrong)
    room = _MOST - len(wrong)
    for section in wrong:
        shown = section.failures[: max(room, 0)]
        lines += [_command("error", section, failure) for failure in shown]
        room -= len(shown)
    warnings = [(section, warning) for section in document.sections for warning in section.warnings]
    lines += [_command("warning", section, warning) for section, warning in warnings[:_MOST]]
    return "\n".join(lines) + "\n"


def _verdicts(kind: str, sections: Sequence[Section]) -> list[str]:
    """Return an annotation for each section; where there are too many, the last one names the rest."""
    shown = sections if len(sections) <= _MOST else sections[: _MOST - 1]
    lines = [_command(kind, section, section.phrase + _count(section)) for section in shown]
    if left := sections[len(shown) :]:
        message = f"{counted(len(left), 'more pair')}: {', '.join(section.name for section in left)}"
        lines.append(f"::{kind} title=normswap::{_data(message)}")
    return lines


def _count(section: Section) -> str:
    return f"; {counted(len(section.failures), 'comparison')} failed" if section.failures else ""


def _command(kind: str, section: Section, message: str) -> str:
    file = f"file={_property(section.file)}," if section.file else ""
    return f"::{kind} {file}title={_property(f'normswap: {section.title}')}::{_data(message)}"


def _inert(line: str) -> str:
    """Keep a line that holds a name of a model from being taken for a command, in either syntax of commands."""
    line = re.sub(r"#(?=\W*\[)", "# ", line)  # ##[...] is one wherever it stands, also with a joiner in it
    return f"| {line}" if line.lstrip().startswith("::") else line


def _data(message: str) -> str:
    message = shortened(visible(message), _LONGEST)
    return message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")
