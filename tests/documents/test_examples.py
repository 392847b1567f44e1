"""README's and docs' examples, run page by page, from top to bottom, in one folder.

Figures that differ from machine to machine are compared by their place alone.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import ROOT
from support.readers.console import FIRST, calls, masked
from support.readers.manual import MANUAL, README, blocks, commands, examples

import normswap.nn
from normswap.cli import main

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_RUN = ("sh", "console", "python", "text")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the first run leaves."""
    path = tmp_path_factory.mktemp("first") / FIRST
    assert main(["convert", str(ROOT / "fixtures" / "lowlight.onnx"), "--to", "instance", "-o", str(path)]) == 0
    return path


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder with the fixtures in it."""
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # as Python does with the folder that it is started in
    monkeypatch.setattr(normswap.nn, "LAYOUTS", dict(normswap.nn.LAYOUTS))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(f"{tmp_path}/"):
            del sys.modules[name]


def examples_of(path: Path) -> list[tuple[str, str]]:
    return [(kind, text) for kind, text in _BLOCK.findall(path.read_text(encoding="utf-8")) if kind in _RUN]


def pages() -> list[Path]:
    return [path for path in MANUAL if examples_of(path)]


def lines_of(block: str) -> list[str]:
    return re.sub(r" *\\\n *", " ", block).strip().splitlines()


def first_pages() -> dict[str, Path]:
    """The page where each line stands first: one that writes no file runs there alone."""
    pairs = [(line, path) for path in pages() for block in blocks(path, "sh") for line in lines_of(block)]
    return dict(reversed(pairs))


FIRST_PAGES = first_pages()


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_examples(path: Path, workplace: Path, first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if f"-o {FIRST}" not in path.read_text(encoding="utf-8"):
        shutil.copy(first, FIRST)
    printed = ""
    for kind, text in examples_of(path):
        if kind == "sh":
            printed = run_lines(text, capsys, path) or printed
        elif kind == "console":
            run_console(text, capsys)
        elif kind == "text":
            assert masked(printed) == masked(text)
        else:
            run_python(text, path)


def run_lines(text: str, capsys: pytest.CaptureFixture[str], path: Path | None = None) -> str:
    """Run lines that hold to what they say, and return what the last one prints."""
    found = ""
    if text == commands()["first"]:
        return run_lines(text.rpartition(".venv/bin/")[2], capsys)
    for line in lines_of(text):
        program, *words = shlex.split(line)
        assert program == "normswap", line
        if path is not None and FIRST_PAGES[line] != path and "-o" not in words:
            continue
        capsys.readouterr()
        assert main(words) == 0, line
        found = capsys.readouterr().out
    return found


def run_console(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = 0
    for call in calls(text):
        if call.command == "echo $?":
            assert call.printed.strip() == str(code)
            continue
        capsys.readouterr()
        code = main(call.words)
        assert masked(capsys.readouterr().out) == masked(call.printed)


def run_python(text: str, path: Path) -> None:
    """Run a block; one that begins with the name of a file becomes that file, and its tests are run and fail."""
    named = re.match(r"# (\w+\.py)\n", text)
    if named:
        Path(named[1]).write_text(text, encoding="utf-8")
    defined: dict[str, Any] = {"__name__": path.stem}
    exec(compile(text, str(path), "exec"), defined)
    for name in re.findall(r"\"(?!fixtures/)(\w+\.(?:onnx|ckpt))\"", text):
        assert Path(name).exists(), name
    for test in [value for name, value in defined.items() if name.startswith("test_")]:
        test()
        shutil.copy("fixtures/lowlight.onnx", FIRST)
        with pytest.raises(AssertionError, match="The models are not equivalent"):
            test()


def test_every_block_is_run_or_of_a_kind_that_is_not() -> None:
    """A block whose language is misspelled would never be run."""
    for path in MANUAL:
        kinds = {kind for kind, _ in _BLOCK.findall(path.read_text(encoding="utf-8"))}
        assert kinds <= {*_RUN, "toml", "yaml"}, path


def test_an_example_that_prints_something_else_fails(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = (example.text for example in examples("console") if "normswap inspect" in example.text)
    run_console(block, capsys)
    with pytest.raises(AssertionError):
        run_console(block.replace("9 eval", "8 eval"), capsys)
    with pytest.raises(AssertionError):
        run_lines("normswap verify fixtures/lowlight.onnx fixtures/lowlight.onnx --to instance\n", capsys)


def test_ci_runs_both_commands() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert all(f"tests/support/readers/manual.py {name}" in script for name in commands())


def test_readme_is_short_and_shows_every_command() -> None:
    from normswap.cli import command

    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150
    shown = "\n".join(blocks(README, "sh"))
    assert all(f"normswap {name} " in shown for name in command.commands)
