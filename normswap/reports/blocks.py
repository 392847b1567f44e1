"""Blocks: what a document shows: facts, sentences, tables, images and drawings, without a word on how.

Texts in them are as they were found. A format escapes them for whatever reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, TypeAlias

from normswap.reports.pixels import Pixels

__all__ = [
    "Bar",
    "Block",
    "Cell",
    "Code",
    "Column",
    "Drawing",
    "Facts",
    "Fold",
    "Gallery",
    "Image",
    "Items",
    "Paragraph",
    "Row",
    "State",
    "Swatch",
    "Table",
    "Text",
]


@dataclass(frozen=True)
class Code:
    """A name or a path, shown as it is."""

    kind: ClassVar = "code"
    text: str


@dataclass(frozen=True)
class Swatch:
    """A sample of a colour, in a legend."""

    kind: ClassVar = "swatch"
    colour: str


@dataclass(frozen=True)
class State:
    """How one thing came out, in a word."""

    kind: ClassVar = "state"
    word: str
    tone: Literal["held", "failed", "silent"]


@dataclass(frozen=True)
class Bar:
    """A number that is shown as the length of a bar, and is read elsewhere."""

    kind: ClassVar = "bar"
    value: float


Text: TypeAlias = "str | Code | Swatch | tuple[str | Code | Swatch, ...]"
Cell: TypeAlias = "Text | State | Bar | None"


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        head: What it holds.
        kind: How it is shown. Bars of ``ratio`` are on a logarithmic scale with a mark at 1, bars of ``share`` on a
            linear scale from 0.
    """

    head: str
    kind: Literal["text", "number", "result", "where", "ratio", "share"] = "text"


class Row(NamedTuple):
    """A line of a table."""

    cells: Sequence[Cell]
    failed: bool = False


@dataclass(frozen=True)
class Facts:
    """Labels, each with what it stands for."""

    kind: ClassVar = "facts"
    rows: Sequence[tuple[str, Text]]
    heading: str = ""


@dataclass(frozen=True)
class Items:
    """A list of sentences."""

    kind: ClassVar = "items"
    items: Sequence[Text]
    heading: str = ""
    failed: bool = False


@dataclass(frozen=True)
class Paragraph:
    """A paragraph."""

    kind: ClassVar = "paragraph"
    text: Text
    heading: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: What its rows are, in the plural.
        columns: Its columns, the name of a row first.
        rows: Its rows.
        heading: Heading above it.
        caption: What a reader must know of it.
    """

    kind: ClassVar = "table"
    name: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    heading: str = ""
    caption: str = ""


class Image(NamedTuple):
    """An image with what it shows in words, and a note below it."""

    pixels: Pixels
    alt: str
    note: str = ""


@dataclass(frozen=True)
class Gallery:
    """Images in rows and columns.

    Attributes:
        name: What the images are, in a word.
        columns: What each column shows.
        rows: The images, a column each.
        heading: Heading above it, which ``of``, a name, ends.
        of: Name of what is shown.
        intro: What a reader must know before.
        legend: What the colours mean.
    """

    kind: ClassVar = "gallery"
    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Image]]
    heading: str = ""
    of: str | None = None
    intro: Text = ""
    legend: Text = ""


@dataclass(frozen=True)
class Drawing:
    """A diagram, drawn as a PNG when a format shows it."""

    kind: ClassVar = "drawing"
    draw: Callable[[], bytes]
    alt: str
    heading: str = ""
    intro: Text = ""


@dataclass(frozen=True)
class Fold:
    """Blocks that are shown when a reader opens them."""

    kind: ClassVar = "fold"
    title: str
    blocks: Sequence[Facts | Items | Paragraph | Table | Gallery | Drawing]


Block: TypeAlias = "Facts | Items | Paragraph | Table | Gallery | Drawing | Fold"
