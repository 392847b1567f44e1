"""How much work a piece of code does, counted and not timed, so that a test of growth is the same on every machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

__all__ = ["counting_calls"]

_T = TypeVar("_T")


def counting_calls(function: Callable[[], _T]) -> tuple[_T, int]:
    """Run a function; return what it gives, and how many Python functions and generator steps it called."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        given = function()
    finally:
        sys.setprofile(before)
    return given, calls
