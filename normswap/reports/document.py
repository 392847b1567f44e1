"""Document: what a command found, in parts that every format can write.

Texts in it are as they were found: a format escapes them, for what it is read by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

from normswap.reports.pixels import Pixels

__all__ = [
    "COMMANDS",
    "Bar",
    "Block",
    "Case",
    "Cell",
    "Code",
    "Column",
    "Command",
    "Document",
    "Drawing",
    "Facts",
    "Fold",
    "Gallery",
    "Image",
    "Items",
    "Paragraph",
    "Row",
    "Section",
    "State",
    "Swatch",
    "Table",
    "Text",
    "Tone",
]

Tone: TypeAlias = Literal["pass", "fail", "trouble", "note"]


class Command(NamedTuple):
    """What a command's documents hold.

    Attributes:
        checks: Whether they hold checks, things that pass or fail.
        schema: Name of the file in ``schemas`` that describes them as JSON.
        drawings: Whether their pages hold drawings, which take matplotlib.
    """

    checks: bool
    schema: str
    drawings: bool = False


COMMANDS = {
    "inspect": Command(checks=False, schema="inspect"),
    "convert": Command(checks=True, schema="verify"),
    "verify": Command(checks=True, schema="verify"),
    "diagnose": Command(checks=False, schema="diagnose", drawings=True),
    "recalibrate": Command(checks=True, schema="recalibrate"),
}


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


@dataclass(frozen=True)
class Case:
    """One thing that was checked, as a test report has it.

    Attributes:
        group: What it belongs to: a witness, say.
        name: What was checked.
        state: How it came out.
        message: What there is to know of that.
    """

    group: str
    name: str
    state: Literal["held", "failure", "error", "skipped"]
    message: str


def _no_blocks() -> Sequence[Block]:
    return ()


@dataclass(frozen=True)
class Section:
    """What was found about one model or pair of models.

    Attributes:
        name: What people call it.
        models: The models, as they were named.
        exit_code: How it came out.
        word: The same for people: PASS, say.
        tone: The same as a colour.
        verdict: The same in a phrase.
        lines: All of it as lines of a text.
        to: Name of the target; empty where there is none.
        file: The file that it is about; empty where it is about none.
        facts: What was compared or run.
        summary: What matters most, for a place with little room.
        page: Gives all of it, for a place with room; called when it is shown.
        cases: What was checked.
        properties: Labels of the cases.
        log: What goes with the cases.
        failures: What failed, a sentence each.
        warnings: What a reader must not miss, a sentence each.
    """

    name: str
    models: Sequence[str]
    exit_code: int
    word: str
    tone: Tone
    verdict: str
    lines: Sequence[str | Table]
    to: str = ""
    file: str = ""
    facts: Sequence[tuple[str, Text]] = ()
    summary: Sequence[Block] = ()
    page: Callable[[], Sequence[Block]] = _no_blocks
    cases: Sequence[Case] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    log: Sequence[str] = ()
    failures: Sequence[str] = ()
    warnings: Sequence[str] = ()

    @property
    def phrase(self) -> str:
        """How it came out, in a phrase that needs no mark or colour."""
        return self.verdict if self.word in ("PASS", "FAIL", "TROUBLE") else f"{self.word}: {self.verdict}"

    @property
    def title(self) -> str:
        """What it is called, with the target."""
        return f"{self.name} -> {self.to}" if self.to else self.name


@dataclass(frozen=True)
class Document:
    """What a command found.

    Attributes:
        command: Name of the command, a key of COMMANDS.
        verdict: How it came out, in a phrase.
        exit_code: The exit code of the command.
        sections: What was found, by model or pair of models.
        about: What the command does, for readers who never heard of it.
        data: The command's own part of JSON.
    """

    command: str
    verdict: str
    exit_code: int
    sections: Sequence[Section]
    about: str
    data: Mapping[str, Any]
