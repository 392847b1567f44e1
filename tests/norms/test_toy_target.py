"""A target is one class and one entry: nothing else is added for the one in support/models/toy_target.py."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from support import ROOT
from support.models.cases import CASES, build
from support.models.modules import MODULES
from support.models.toy_target import Together

import normswap
from normswap import NORMS, SelectionError
from normswap.backends import backend_for
from normswap.cli import main
from normswap.norms import make_norm
from normswap.plan import make_plan

CASE = "opset 17, training_mode=0"
# The options of the command line are made when it is imported, so the entry comes first.
COMMANDS = """
import sys
from normswap import NORMS
from support.models.toy_target import Together
NORMS["together"] = Together()
from normswap.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def _entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NORMS, "together", Together())


def model_of(kind: str) -> tuple[Any, Any]:
    """A model, and inputs for it; for ONNX they are generated."""
    if kind == "onnx":
        return build(CASES[CASE].text), None
    return MODULES["BatchNorm2d"].build(), MODULES["BatchNorm2d"].inputs()


@pytest.mark.parametrize("kind", ["onnx", "module"])
def test_it_converts_and_passes_every_witness(kind: str) -> None:
    model, inputs = model_of(kind)
    report = normswap.convert(model, Together(), inputs=inputs).report
    assert report.ok, report.to_text()
    assert {check.witness for check in report.checks} >= {"structure", "probes", "end to end"}
    assert report.verdict.startswith("equal to BatchNorm whose channels share statistics, 2 together")
    assert report.parameters == {"neighbours": 2}


@pytest.mark.parametrize("kind", ["onnx", "module"])
def test_its_mutant_fails_with_probes_and_end_to_end_and_is_explained(kind: str) -> None:
    model, inputs = model_of(kind)
    backend = backend_for(model)
    before = backend.load(model)
    plan = make_plan(Together(), backend.find(before))
    wrong = backend.rewrite(before, replace(plan, norm=Together(wrong=True)))
    report = normswap.verify(before, wrong, Together(), inputs=inputs)
    assert not any(check.ok for check in (*report.of("probes"), *report.of("end to end")))
    causes = {check.cause for check in report.of("probes")}
    assert causes == {"looks as if the statistics were taken over each channel by itself"}
    for other in ("instance", "batch-stat"):  # and it is not taken for another target
        right = backend.rewrite(before, plan)
        assert not normswap.verify(before, right, other, inputs=inputs).ok


def test_it_is_made_by_name_and_its_parameter_is_its_own() -> None:
    made = make_norm("together", neighbours="4")
    assert isinstance(made, Together)
    assert made.parameters == {"neighbours": 4}
    with pytest.raises(SelectionError, match="neighbours: belongs to the target together and does nothing with"):
        make_norm("instance", neighbours=4)


def test_the_commands_know_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(build(CASES[CASE].text), "a.onnx")
    assert main(["convert", "a.onnx", "--to", "together", "-o", "b.onnx", "--format", "json"]) == 0
    assert '"target": "together"' in capsys.readouterr().out
    assert main(["inspect", "a.onnx", "--to", "together"]) == 0
    assert "share statistics" in " ".join(capsys.readouterr().out.split())
    Path("normswap.toml").write_text(
        '[[pairs]]\nbefore = "a.onnx"\nafter = "b.onnx"\nto = "together"\nneighbours = 2\n'
    )
    assert main(["verify"]) == 0
    assert "share statistics" in " ".join(capsys.readouterr().out.split())
    assert main(["inspect", "a.onnx", "--to", "togather"]) == 2
    assert "the nearest is 'together'" in capsys.readouterr().err


def test_its_parameter_is_an_option_of_the_command_line(tmp_path: Path) -> None:
    onnx.save(build(CASES[CASE].text), tmp_path / "a.onnx")

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        return subprocess.run(
            [sys.executable, "-c", COMMANDS, *argv],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    shown = run("convert", "--help").stdout
    assert "|together]" in shown
    assert "--neighbours S" in shown and "For together: how many channels share statistics." in " ".join(shown.split())
    done = run("convert", "a.onnx", "--to", "together", "--neighbours", "1", "-o", "b.onnx")
    assert done.returncode == 0, done.stderr
    assert "whose channels share statistics, 1 together" in done.stdout
    refused = run("convert", "a.onnx", "--to", "together", "--neighbours", "0", "-o", "c.onnx")
    assert refused.returncode == 2 and "a whole number, 1 or more" in refused.stderr
