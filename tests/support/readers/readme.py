"""Read the examples out of README.md; ``python tests/support/readers/readme.py first`` prints its first command."""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).parents[3] / "README.md"


def blocks(language: str) -> list[str]:
    """Return the code blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)


def commands() -> dict[str, str]:
    """Return the two commands that do everything on a fresh machine."""
    first, second = blocks("sh")[:2]
    return {"first": first, "second": second}


if __name__ == "__main__":
    sys.stdout.write(commands()[sys.argv[1]])
