"""How an option is declared: a field of a dataclass with a default, a help text and the way in which it is read."""

from __future__ import annotations

from dataclasses import Field, dataclass, field
from typing import Any, Literal

__all__ = ["Kind", "Option", "argument", "option", "option_of", "spelled"]

Kind = Literal[
    "text", "target", "model", "path", "names", "flag", "whole", "counts", "share", "margin", "measure", "shapes",
    "scale", "size",
]  # fmt: skip


@dataclass(frozen=True)
class Option:
    """An option as people meet it.

    Attributes:
        help: What it does.
        kind: How it is read from the command line and the settings file; None if it is for Python alone.
        python: What the documentation of the library adds to ``help``.
        spelled: Its name on the command line; None for that of the field, "" if it has none.
        metavar: Stands for its value in the help of the command line.
    """

    help: str
    kind: Kind | None = None
    python: str = ""
    spelled: str | None = None
    metavar: str | None = None


def option(default: Any, help: str, kind: Kind | None = None, **more: Any) -> Any:  # noqa: A002  # as click has it
    """Declare a field with a default; ``more`` are further attributes of Option."""
    return field(default=default, metadata=argument(help, kind, **more))


def argument(help: str, kind: Kind | None = None, **more: Any) -> dict[str, Any]:  # noqa: A002  # likewise
    """Return the metadata of a field without default, which type checkers want to see as ``field(metadata=...)``."""
    return {"option": Option(help, kind, **more)}


def option_of(declared: Field[Any]) -> Option:
    """Return how people meet a field."""
    found: Option = declared.metadata["option"]
    return found


def spelled(declared: Field[Any]) -> str:
    """Return the name of an option on the command line; "" if it is not there."""
    found = option_of(declared)
    if found.spelled is not None or found.kind is None:
        return found.spelled or ""
    name = declared.name.replace("_", "-")
    return f"--{name}/--no-{name}" if declared.default is True else f"--{name}"
