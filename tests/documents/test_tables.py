"""What the documents list is what the code has: targets, options, settings, formats, errors, roles."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import click
import pytest
import yaml
from support import ROOT
from support.readers.manual import DOCS, README, blocks

from normswap import NORMS, errors
from normswap.cli import command, main
from normswap.cli.settings import keys_of_pairs
from normswap.layer import Role

REFERENCE = DOCS / "reference"


def reference(name: str) -> str:
    return (REFERENCE / f"{name}.md").read_text(encoding="utf-8")


def first_cells(text: str) -> set[str]:
    """The names in backticks in the first column of all tables."""
    rows = re.findall(r"^\|([^|]*)\|", text, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def test_every_target_is_in_the_tables() -> None:
    assert first_cells(reference("targets")) - {"--to"} == set(NORMS)
    assert set(NORMS) <= first_cells(README.read_text(encoding="utf-8"))
    for norm in NORMS.values():
        assert re.search(rf"^\| `{norm.name}` \|.*\| {re.escape(norm.meaning)} \|", reference("targets"), re.MULTILINE)


def test_every_parameter_of_a_target_is_described() -> None:
    for norm in NORMS.values():
        for parameter in norm.takes:
            assert f"`--{parameter.name}" in reference("targets"), parameter.name


def test_every_role_is_in_the_table() -> None:
    assert first_cells(reference("roles")) == set(get_args(Role))


def test_every_key_of_a_pair_is_in_the_table() -> None:
    assert first_cells(reference("settings")) == set(keys_of_pairs())


def test_every_error_is_in_the_table() -> None:
    raised = {name for name in errors.__all__ if name.endswith("Error")} - {"NormswapError"}
    assert first_cells(reference("refusals")) & set(errors.__all__) == raised


def test_settings_in_the_example_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    monkeypatch.chdir(tmp_path)
    assert main(["convert", "fixtures/lowlight.onnx", "--to", "instance", "-o", "lowlight_instance.onnx"]) == 0
    (settings,) = blocks(DOCS / "how-to" / "ci.md", "toml")
    (tmp_path / "pyproject.toml").write_text(settings)
    assert main(["verify"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 pairs: 2 equal"


def test_what_the_ci_examples_name_is_there() -> None:
    (step,), (repository,) = map(yaml.safe_load, blocks(DOCS / "how-to" / "ci.md", "yaml"))
    assert step["with"].keys() <= yaml.safe_load((ROOT / "action.yml").read_text())["inputs"].keys()
    hooks = {hook["id"] for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}
    assert {hook["id"] for hook in repository["hooks"]} <= hooks


@pytest.mark.parametrize("name", ["convert", "verify", "inspect", "diagnose", "recalibrate"])
def test_options_that_the_command_line_page_explains_are_options(name: str) -> None:
    section = reference("cli").partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    assert f"<!-- options: {name} -->" in section, "the site generates the table there"
    options = {
        spelled
        for parameter in command.commands[name].params
        if isinstance(parameter, click.Option)
        for spelled in (*parameter.opts, *parameter.secondary_opts)
    }
    explained = set(re.findall(r"`(--?[a-z][\w-]*)", section))
    assert explained <= options | {"--to"}


def test_every_command_has_a_section() -> None:
    assert set(re.findall(r"^<!-- options: (\w+) -->$", reference("cli"), re.MULTILINE)) == set(command.commands)


def test_every_report_format_is_in_the_table_and_every_key_of_an_outcome_is_named() -> None:
    from normswap.reports.formats import FORMATS, time_stamp
    from normswap.reports.formats.json import enveloped
    from normswap.reports.outcome import Outcome
    from normswap.reports.verification import verification

    text = reference("reports")
    for name, (suffix, _) in FORMATS.items():
        assert re.search(rf"^\| `{name}` \| {f'`{re.escape(suffix)}`' if suffix else ''} ?\|", text, re.MULTILINE), name
    whole = enveloped(verification([Outcome("", "", "", "")]), time_stamp())
    assert all(f"`{key}`" in text for key in (*whole, *whole["outcomes"][0]))


def test_every_schema_is_in_the_table() -> None:
    from normswap.reports.document import COMMANDS

    for name, found in COMMANDS.items():
        assert re.search(rf"^\| .*`{name}`.* \| \[{found.schema}\.json\]", reference("reports"), re.MULTILINE), name
