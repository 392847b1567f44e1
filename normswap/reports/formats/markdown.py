"""Markdown, for the summary of a job or a comment: the verdict on top, then what matters most."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from normswap.reports.blocks import Block, Cell, Code, Facts, Fold, Items, Paragraph, State, Table, Text
from normswap.reports.document import Document, Section, Tone
from normswap.words import shortened, visible

__all__ = ["render"]

_SHOWN = 20  # rows of a table; a summary has little room, and other formats have all
_LONGEST = 1000  # characters of a name or sentence
_MARKS: dict[Tone, str] = {"pass": "✅ ", "fail": "❌ ", "trouble": "⚠️ ", "note": ""}


def render(document: Document, created: datetime) -> str:
    """Return a document as GitHub-flavoured Markdown."""
    parts = [f"## normswap: {_plain(document.verdict)}"] if len(document.sections) != 1 else []
    return "\n\n".join([*parts, *map(_section, document.sections)]) + "\n"


def _section(section: Section) -> str:
    names = map(_plain, [section.name, section.to] if section.to else [section.name])
    parts = [
        f"### {_MARKS[section.tone]}{' → '.join(names)}",
        f"**{_plain(section.phrase)}**",
        " → ".join(map(_code, section.models)),
    ]
    return "\n\n".join([*parts, *_blocks(section.summary)])


def _blocks(blocks: Sequence[Block]) -> list[str]:
    return [text for block in blocks for text in _block(block)]


def _block(block: Block) -> list[str]:
    """Return a block as paragraphs; images and drawings are for a page."""
    if isinstance(block, Fold):
        title = f"<details><summary>{_plain(block.title)}</summary>"
        return [title, *_blocks(block.blocks), "</details>"]
    heading = [f"#### {_plain(block.heading)}"] if block.heading else []
    if isinstance(block, Table):
        return [*heading, *_table(block)]
    if isinstance(block, Items):
        return [*heading, "\n".join(f"- {_text(item)}" for item in block.items)]
    if isinstance(block, Facts):
        return [*heading, "\n".join(f"- {_plain(label)}: {_text(value)}" for label, value in block.rows)]
    return [*heading, _text(block.text)] if isinstance(block, Paragraph) else []


def _table(table: Table) -> list[str]:
    shown = [index for index, column in enumerate(table.columns) if column.kind not in ("ratio", "share")]
    columns = [table.columns[index] for index in shown]
    lines = [
        f"| {' | '.join(_escaped(column.head) for column in columns)} |",
        f"|{'|'.join('--:' if column.kind == 'number' else '---' for column in columns)}|",
    ]
    for row in table.rows[:_SHOWN]:
        lines.append(f"| {' | '.join(_cell(row.cells[index]) for index in shown)} |")
    more = len(table.rows) - _SHOWN
    return ["\n".join(lines), *([f"... and {more} more."] if more > 0 else [])]


def _cell(cell: Cell) -> str:
    if isinstance(cell, State):
        return _escaped(cell.word)
    if isinstance(cell, str):
        return _escaped(cell).strip()
    return _text(cell) if isinstance(cell, (Code, tuple)) else ""


def _text(text: Text) -> str:
    if isinstance(text, tuple):
        return "".join(_escaped(part) if isinstance(part, str) else _text(part) for part in text)
    return _code(text.text) if isinstance(text, Code) else _plain(text) if isinstance(text, str) else ""


def _plain(text: str) -> str:
    """Keep names and sentences from being read as markup, or from ending a cell."""
    text = _escaped(text).strip()
    return re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", text)  # which would begin a list, or underline a heading


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#~&$])", r"\\\1", shortened(visible(text), _LONGEST))


def _code(text: str) -> str:
    """Show a name as it is."""
    if re.search(r"[`|]|^\s*$", text):  # which end a code span, or a cell even within one
        return f"<code>{_plain(text)}</code>"
    return f"`{shortened(visible(text), _LONGEST)}`"
