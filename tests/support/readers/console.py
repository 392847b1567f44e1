"""Run the console examples of the documents; ``PYTHONPATH=tests python -m support.readers.console`` refreshes them.

An example whose output differs by more than rounding decides is written anew, in place.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from support import ROOT
from support.readers.manual import MANUAL, blocks

__all__ = ["FIRST", "Call", "calls", "masked"]

FIRST = "lowlight_instance.onnx"  # what the first run leaves, and other examples read


class Call(NamedTuple):
    """One command of an example and what it prints; ``echo $?`` prints the exit code of the one before."""

    command: str
    printed: str

    @property
    def words(self) -> list[str]:
        """The arguments of normswap."""
        words = shlex.split(self.command)
        assert words[0] == "normswap", self.command
        return words[1:]


def calls(block: str) -> Iterator[Call]:
    """Take a console block apart."""
    for call in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, printed = call.partition("\n")
        yield Call(command, printed)


def masked(text: str) -> str:
    """Leave out what rounding decides: which layer is worst, and by how much."""
    text = re.sub(r"worst .*", "worst ...", text)
    text = re.sub(r"error \S+, allowed \S+ at \[.*?\]", "error ...", text)
    text = re.sub(r"\(\w+ of \d+ elements.*?\)", "(...)", text)
    text = re.sub(r"off by \S+ times", "off by ... times", text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def _refreshed(block: str, run: Callable[[Call], tuple[int, str]]) -> str:
    code, parts = 0, []
    for call in calls(block):
        if call.command == "echo $?":
            printed = f"{code}\n"
        else:
            code, printed = run(call)
        kept = call.printed if masked(printed) == masked(call.printed) else printed.rstrip("\n") + "\n"
        parts.append(f"$ {call.command}\n{kept}")
    return "".join(parts)


def _runner(folder: Path) -> Callable[[Call], tuple[int, str]]:
    (folder / "fixtures").symlink_to(ROOT / "fixtures")

    def run(call: Call) -> tuple[int, str]:
        command = [sys.executable, "-m", "normswap", *call.words]
        environment = {"PYTHONPATH": f"{ROOT}:{folder}", "PATH": "/usr/bin:/bin", "COLUMNS": "200"}
        done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=False)
        return done.returncode, done.stdout

    return run


def _main() -> None:
    with tempfile.TemporaryDirectory() as name:
        run = _runner(Path(name))
        run(Call(f"normswap convert fixtures/lowlight.onnx --to instance -o {FIRST}", ""))
        for path in MANUAL:
            text = path.read_text(encoding="utf-8")
            for block in blocks(path, "console"):
                text = text.replace(block, _refreshed(block, run))
            if text != path.read_text(encoding="utf-8"):
                path.write_text(text, encoding="utf-8")
                sys.stdout.write(f"{path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    _main()
