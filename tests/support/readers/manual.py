"""Read the examples out of README, CONTRIBUTING and docs; ``python tests/support/readers/manual.py first`` prints one.

``first`` is the command that installs normswap and converts a model, ``second`` the one that installs what the tests
need and runs them. CI runs both as they are printed, so this file needs nothing but Python.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

__all__ = ["CONTRIBUTING", "DOCS", "MANUAL", "README", "Example", "blocks", "commands", "examples"]

_ROOT = Path(__file__).parents[3]
README = _ROOT / "README.md"
CONTRIBUTING = _ROOT / "CONTRIBUTING.md"
DOCS = _ROOT / "docs"
MANUAL = (README, *sorted(DOCS.rglob("*.md")))


class Example(NamedTuple):
    """A block of code and where it stands."""

    path: Path
    text: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(_ROOT).as_posix()}: {self.text.strip().splitlines()[0]}"


def blocks(path: Path, language: str) -> list[str]:
    """Return the code blocks of one language in a file, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def examples(language: str) -> list[Example]:
    """Return the code blocks of one language in README and docs, each text once."""
    found = [Example(path, text) for path in MANUAL for text in blocks(path, language)]
    return list({example.text: example for example in found}.values())


def commands() -> dict[str, str]:
    """Return the two commands that do everything on a fresh machine."""
    return {"first": blocks(README, "sh")[0], "second": blocks(CONTRIBUTING, "sh")[0]}


if __name__ == "__main__":
    sys.stdout.write(commands()[sys.argv[1]])
