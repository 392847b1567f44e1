"""Names and sentences of somebody else's, shown so that they can be read and do nothing.

The names in a model are its maker's. In a terminal, a log or a page some characters would move the cursor, begin a new
line that looks like ours, or turn the order of what follows; files and streams in UTF-8 cannot hold others at all.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

__all__ = ["nearest", "shortened", "visible"]

_HIDDEN = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # control characters, line ends among them
    "\u2028\u2029"  # line and paragraph separators
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks that change the direction of writing
    "\u00ad\u200b\u2060-\u2064\ufeff"  # of no width; the joiners stay, which emoji and scripts need
    "\ud800-\udfff"  # lone surrogates, which stand for bytes that are no UTF-8 in the names of files
    "\ufffe\uffff"  # no characters, and not allowed in XML
    "]"
)


def visible(text: str) -> str:
    r"""Return text on one line, with what would act or hide escaped as Python spells it.

    >>> print(visible("conv\n::error::x \x1b[2J, größe, 模型"))
    conv\n::error::x \x1b[2J, größe, 模型
    """
    return _HIDDEN.sub(lambda found: ascii(found[0])[1:-1], text)


def shortened(text: str, most: int) -> str:
    """Leave out the middle of a text where that is longer than ``most``, and say how much it was.

    >>> shortened("a" * 50 + "b" * 50, 20)
    'aaaaaaaaaa [80 characters left out] bbbbbbbbbb'
    """
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} [{len(text) - 2 * half} characters left out] {text[len(text) - half :]}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Name the known word that is nearest, as the end of a sentence; empty where none is near.

    >>> nearest("instanse", ["instance", "population"])
    "; the nearest is 'instance'"
    """
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.4)
    return f"; the nearest is {close[0]!r}" if close else ""
