"""README's examples, run; figures that differ from machine to machine are compared by their place alone."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from support import ROOT
from support.readers.readme import README, blocks, commands

from normswap.cli import command, main
from normswap.cli.settings import keys_of_pairs


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the fixtures in it."""
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # as Python does with the folder that it is started in
    return tmp_path


def masked(text: str) -> str:
    """Leave out what rounding decides: which layer is worst, and by how much."""
    text = re.sub(r"worst .*", "worst ...", text)
    text = re.sub(r"error \S+, allowed \S+ at \[.*?\]", "error ...", text)
    text = re.sub(r"\(\w+ of \d+ elements.*?\)", "(...)", text)
    text = re.sub(r"off by \S+ times", "off by ... times", text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def run(command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    words = shlex.split(command)
    assert words[0] == "normswap"
    code = main(words[1:])
    return code, capsys.readouterr().out


def test_the_first_run_prints_what_it_says(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = commands()["first"].strip().splitlines()[-1].strip()
    code, found = run(line.removeprefix(".venv/bin/"), capsys)
    assert code == 0
    assert masked(found) == masked(blocks("text")[0])
    assert (workplace / "lowlight_instance.onnx").exists()


@pytest.mark.parametrize("block", blocks("console"))
def test_console_examples(block: str, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = 0
    if "lowlight_instance.onnx" in block:  # what the first run has left
        assert main(["convert", "fixtures/lowlight.onnx", "--to", "instance", "-o", "lowlight_instance.onnx"]) == 0
        capsys.readouterr()
    for example in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, expected = example.partition("\n")
        if command == "echo $?":
            assert expected.strip() == str(code)
            continue
        code, found = run(command, capsys)
        assert masked(found) == masked(expected)


PYTHON = blocks("python")


@pytest.mark.parametrize("block", [block for block in PYTHON if "def test_" in block])
def test_examples_of_tests(block: str, workplace: Path) -> None:
    defined: dict[str, Any] = {}
    exec(compile(block, str(README), "exec"), defined)
    assert main(["convert", "fixtures/lowlight.onnx", "--to", "instance", "-o", "lowlight_instance.onnx"]) == 0
    found = [value for name, value in defined.items() if name.startswith("test_")]
    assert found
    for test in found:
        test()
        shutil.copy("fixtures/lowlight.onnx", "lowlight_instance.onnx")
        with pytest.raises(AssertionError, match="The models are not equivalent"):
            test()


@pytest.mark.parametrize("block", [block for block in PYTHON if "def test_" not in block])
def test_python_examples(block: str, workplace: Path) -> None:
    exec(compile(block, str(README), "exec"), {})
    written = re.findall(r"\"(?!fixtures/)(\w+\.onnx)\"", block)
    assert written
    assert all((workplace / name).exists() for name in written)


def test_ci_runs_both_commands() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert all(f"tests/support/readers/readme.py {name}" in script for name in commands())


def test_every_target_is_in_the_table() -> None:
    from normswap import NORMS

    for norm in NORMS.values():
        assert re.search(rf"^\| `{norm.name}` \|.*\| {re.escape(norm.meaning)} \|", README.read_text(), re.MULTILINE)


def test_settings_in_the_example_hold(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "fixtures/lowlight.onnx", "--to", "instance", "-o", "lowlight_instance.onnx"]) == 0
    (settings,) = blocks("toml")
    (workplace / "pyproject.toml").write_text(settings)
    assert main(["verify"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 pairs: 2 equal"


def test_every_key_of_a_pair_is_told() -> None:
    section = README.read_text().partition("## In CI")[2].partition("\n## ")[0]
    for key in keys_of_pairs():
        assert re.search(rf"^{key} = |`{key}( = \w+)?`", section, re.MULTILINE), key


def test_what_the_ci_examples_name_is_there() -> None:
    (step,), (repository,) = map(yaml.safe_load, blocks("yaml"))
    assert step["with"].keys() <= yaml.safe_load((ROOT / "action.yml").read_text())["inputs"].keys()
    hooks = {hook["id"] for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}
    assert {hook["id"] for hook in repository["hooks"]} <= hooks


@pytest.mark.parametrize("name", ["convert", "verify"])
def test_every_option_is_told(name: str) -> None:
    text = README.read_text().partition("## Command line")[2].partition("\n## ")[0]
    for parameter in command.commands[name].params:
        if isinstance(parameter, click.Option):
            spellings = (*parameter.opts, *parameter.secondary_opts)
            assert any(re.search(rf"(?<![\w-]){option}(?![\w-])", text) for option in spellings), spellings


def test_every_report_format_is_in_the_table_and_every_key_of_an_outcome_is_named() -> None:
    from normswap.reports.formats import FORMATS, time_stamp
    from normswap.reports.formats.json import enveloped
    from normswap.reports.outcome import Outcome
    from normswap.reports.verification import verification

    text = README.read_text()
    for name, (suffix, _) in FORMATS.items():
        assert re.search(rf"^\| `{name}` \| {f'`{re.escape(suffix)}`' if suffix else ''} ?\|", text, re.MULTILINE), name
    whole = enveloped(verification([Outcome("", "", "", "")]), time_stamp())
    section = text.partition("## Reports")[2].partition("\n## ")[0]
    assert all(f"`{key}`" in section for key in (*whole, *whole["outcomes"][0]))


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text()):
        assert (ROOT / target).exists(), target
