"""Text, for people: what each result says in lines; several have a heading each, and a line about all at the end."""

from __future__ import annotations

import io
from datetime import datetime

from normswap.reports.blocks import Code, Table
from normswap.reports.document import Document, Section
from normswap.words import inert, visible

__all__ = ["render", "written"]

_WIDTH = 200  # characters, in a file or a pipe: wide enough that names and reasons stay on one line


def render(document: Document, created: datetime) -> str:
    """Return a document as text."""
    return written(document)


def written(document: Document, width: int = _WIDTH, *, styled: bool = False) -> str:
    """Return a document as text, its tables as wide as a terminal and with its styles."""
    parts = [_section(section, width, styled) for section in document.sections]
    if len(parts) != 1:
        headings = [f"== {of.name}: {' -> '.join(of.models)}, {of.to}" for of in document.sections]
        parts = [f"{visible(heading)}\n{part}\n" for heading, part in zip(headings, parts, strict=True)]
        parts.append(visible(document.verdict))
    return "\n".join(parts) + "\n"


def _section(section: Section, width: int, styled: bool) -> str:
    lines = [_table(line, width, styled) if isinstance(line, Table) else visible(line) for line in section.lines]
    return "\n".join(lines)


def _table(table: Table, width: int, styled: bool) -> str:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        shown.add_column(Text(column.head), justify="right" if column.kind == "number" else "left", overflow="fold")
    for row in table.rows:
        texts = [cell.text if isinstance(cell, Code) else cell if isinstance(cell, str) else "" for cell in row.cells]
        shown.add_row(*(Text(visible(text)) for text in texts))
    file = io.StringIO()
    console = Console(
        file=file,
        width=width,
        force_terminal=styled,
        color_system="standard" if styled else None,
        highlight=False,
    )
    console.print(shown)
    return "\n".join(inert(line.rstrip()) for line in file.getvalue().splitlines())
