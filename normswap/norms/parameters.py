"""Parameter: what a target takes besides its name, declared once for Python, the command line and settings files."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from normswap.errors import SelectionError

__all__ = ["Parameter", "choice_of", "number_from", "whole_number_from"]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a target.

    Attributes:
        name: As Python and settings files spell it; ``--name`` on a command line.
        type: Of its value: float, int or str.
        expected: What a value has to be, as the end of a sentence: "a number, 0 or more".
        read: Turns what was given (a string on a command line) into the value. Raises ValueError if it cannot.
        help: One sentence for ``--help``; it begins with the target.
        metavar: What stands for the value in help.
        choices: All values, where there are few.
        default: The value where none is given; None if one has to be given.
        missing: For a parameter without default: what it is and how to give it, as the end of a sentence.
    """

    name: str
    type: type[float] | type[int] | type[str]
    expected: str
    read: Callable[[Any], float | int | str]
    help: str
    metavar: str
    choices: tuple[str, ...] = ()
    default: float | int | str | None = None
    missing: str = ""

    @property
    def required(self) -> bool:
        """Whether a value has to be given."""
        return self.default is None

    def value(self, given: Any) -> Any:
        """Return the value that was given.

        Raises:
            SelectionError: If it is not what is expected.
        """
        try:
            return self.read(given)
        except (ValueError, OverflowError):
            raise SelectionError(f"{self.name}: expected {self.expected}, found {given!r}") from None


def number_from(low: float) -> Callable[[Any], float]:
    """Return a reader of finite numbers that are not below ``low``."""

    def read(given: Any) -> float:
        if isinstance(given, bool) or not isinstance(given, int | float | str):
            raise ValueError
        value = float(given)
        if not math.isfinite(value) or value < low:
            raise ValueError
        return value

    return read


def whole_number_from(low: int) -> Callable[[Any], int]:
    """Return a reader of whole numbers that are not below ``low``."""

    def read(given: Any) -> int:
        if isinstance(given, bool) or not isinstance(given, int | str):
            raise ValueError
        value = int(given)
        if value < low:
            raise ValueError
        return value

    return read


def choice_of(*choices: str) -> Callable[[Any], str]:
    """Return a reader of words that takes these alone."""

    def read(given: Any) -> str:
        if given not in choices:
            raise ValueError
        return str(given)

    return read
