"""Values of a settings file: what a key of each kind may hold, and what an option makes of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from normswap.data import SCALES
from normswap.norms import Parameter
from normswap.options import Kind, Tolerance

__all__ = ["READINGS", "Reading", "described", "of_parameter"]


@dataclass(frozen=True)
class Reading:
    """How the value of a key is read.

    Attributes:
        expected: What it may be, for people.
        read: Makes of it what the option takes; raises ValueError or OverflowError if it cannot.
    """

    expected: str
    read: Callable[[Any], Any]


def described(value: Any) -> str:
    """Show a value in a sentence."""
    if isinstance(value, dict):
        return "a table"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def of_parameter(parameter: Parameter) -> Reading:
    """Return how a parameter of a target is read; a number in quotes is none in a settings file."""

    def read(value: Any) -> Any:
        if isinstance(value, str) is not (parameter.type is str):
            raise ValueError
        return parameter.read(value)

    return Reading(parameter.expected, read)


def _string(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError
    return value


def _strings(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError
    return tuple(map(_string, value))


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:  # for Python, true and false are numbers
        raise ValueError
    return value


def _scale(value: Any) -> str:
    if not isinstance(value, str) or value not in SCALES:
        raise ValueError
    return value


def _size(value: Any) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError
    width, height = map(_whole, value)
    if not width or not height:
        raise ValueError
    return width, height


def _margin(value: Any) -> Tolerance:
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise ValueError
    return Tolerance(margin=float(value))


def _shapes(value: Any) -> Mapping[str, tuple[int, ...]]:
    if not isinstance(value, dict):
        raise ValueError
    shapes = {}
    for name, dims in value.items():
        if not isinstance(dims, list) or not all(type(dim) is int and dim > 0 for dim in dims):
            raise ValueError
        shapes[name] = tuple(dims)
    return shapes


_STRING = Reading("a string", _string)
READINGS: dict[Kind, Reading] = {
    "text": _STRING,
    "target": _STRING,
    "model": _STRING,
    "path": _STRING,
    "names": Reading("a list of strings", _strings),
    "flag": Reading("true or false", _flag),
    "whole": Reading("a whole number, 0 or more", _whole),
    "margin": Reading("a number above 0", _margin),
    "shapes": Reading("a table of shapes, as { x = [1, 3, 256, 256] }", _shapes),
    "scale": Reading(f"one of {', '.join(map(repr, SCALES))}", _scale),
    "size": Reading("a width and a height, as [256, 192]", _size),
}
