"""Words: how counts, names and lists are worded, and how foreign text is escaped.

The names in a model are chosen by whoever made it. In a terminal, a log or a page, some characters move the cursor,
begin a new line that looks like one of normswap's, or reverse the text that follows. Others cannot be written in UTF-8
at all. Everything that is printed goes through ``visible``.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

__all__ = [
    "counted",
    "inert",
    "json_number",
    "nearest",
    "shared",
    "short_number",
    "shortened",
    "some",
    "three_digits",
    "visible",
    "written",
]

_NAMED = 3  # names that are listed before the rest is counted
_Reason = TypeVar("_Reason")

_HIDDEN = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # control characters, line ends among them
    "\u2028\u2029"  # line and paragraph separators
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks that change the direction of writing
    "\u00ad\u200b\u2060-\u2064\ufeff"  # without width; joiners stay, because emoji and some scripts need them
    "\ud800-\udfff"  # lone surrogates, which stand for bytes of a file name that are not UTF-8
    "\ufffe\uffff"  # not characters, and not allowed in XML
    "]"
)
_ACTS = re.compile(r"\s*(::|##|PASS|FAIL|TROUBLE)")  # at the beginning of a line


def visible(text: str) -> str:
    r"""Return text on one line, with control and invisible characters escaped as Python escapes them.

    >>> print(visible("conv\n::error::x \x1b[2J, größe, 模型"))
    conv\n::error::x \x1b[2J, größe, 模型
    """
    return _HIDDEN.sub(lambda found: ascii(found[0])[1:-1], text)


def written(lines: Iterable[str]) -> str:
    """Return lines as text, each through ``visible``, so that a name cannot begin a line."""
    return "\n".join(map(visible, lines))


def inert(line: str) -> str:
    """Mark a line that begins with a name where the name looks like a verdict or a workflow command of GitHub.

    >>> inert("::error::x"), inert("PASS: all is well"), inert("conv::1")
    ('| ::error::x', '| PASS: all is well', 'conv::1')
    """
    return f"| {line}" if _ACTS.match(line) else line


def shortened(text: str, most: int) -> str:
    """Return a text of more than ``most`` characters without its middle, and say how much was left out.

    >>> shortened("a" * 50 + "b" * 50, 20)
    'aaaaaaaaaa [80 characters left out] bbbbbbbbbb'
    """
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} [{len(text) - 2 * half} characters left out] {text[len(text) - half :]}"


def counted(number: int, what: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "tensor"), counted(2, "tensor")
    ('1 tensor', '2 tensors')
    """
    return f"{number} {what}{'s' * (number != 1)}"


def some(names: Sequence[str]) -> str:
    """Return the first names of a list, and how many more there are.

    >>> some(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def shared(reasons: Mapping[str, _Reason]) -> list[tuple[list[str], _Reason]]:
    """Return the names that have a reason in common, with that reason, in the order of their first names.

    >>> shared({"a": "not selected", "b": "rank 2", "c": "not selected"})
    [(['a', 'c'], 'not selected'), (['b'], 'rank 2')]
    """
    names: dict[_Reason, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return [(found, reason) for reason, found in names.items()]


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that names the most similar known word; empty where none is similar.

    >>> nearest("htlm", ["text", "html"])
    "; the nearest is 'html'"
    """
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.4)
    return f"; the nearest is {close[0]!r}" if close else ""


def json_number(value: float | None) -> float | str | None:
    """Return a number as JSON can hold it: a string where it is NaN or infinite."""
    return value if value is None or math.isfinite(value) else str(value)


def short_number(value: float | None) -> str:
    """Return a number for a table: two digits, and an exponent only where it is needed; empty for None.

    >>> short_number(12345.6), short_number(0.000123), short_number(float("inf"))
    ('12,346', '0.00012', '∞')
    """
    if value is None:
        return ""
    if math.isinf(value):
        return "∞"
    return f"{value:,.0f}" if 10 <= value < 1e5 else f"{value:.2g}"


def three_digits(value: float | None) -> str:
    """Return a number for a table: three digits; a question mark for NaN, empty for None."""
    return "" if value is None else "?" if math.isnan(value) else f"{value:.3g}"
