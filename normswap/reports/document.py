"""Document: what a command found, in parts that every format can write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from normswap.reports.blocks import Block, Table, Text

__all__ = ["COMMANDS", "Case", "Command", "Document", "Section", "Tone"]

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
class Case:
    """One thing that was checked, as a test report has it.

    Attributes:
        group: What it belongs to, for example a witness.
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
        word: The same for people, for example PASS.
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
