"""The sample repository: the action passes its good file and fails each of its three bad ones, for the right reason."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import yaml
from support import ROOT
from support.readers.runner import Step, run_action

EXAMPLE = ROOT / "examples" / "ci"
EQUAL = "equal to train-mode BatchNorm fed one sample at a time"
TRAINED, CONVERTED = ("file=models/generator.onnx,title=normswap%3A " + name for name in ("trained", "converted"))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sample, its models made."""
    folder = tmp_path_factory.mktemp("sample") / "a team's repository"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__", "models"))
    (folder / ".git").mkdir()
    subprocess.run([sys.executable, "make_models.py"], cwd=folder, timeout=120, check=True)
    return folder


def verified(sample: Path, wrong: str | None = None) -> Step:
    """Run the action as the sample's workflow does, with a wrong file in the place of the good one."""
    workflow = yaml.safe_load((sample / ".github" / "workflows" / "normswap.yml").read_text())
    (given,) = (step["with"] for step in workflow["jobs"]["verify"]["steps"] if "/normswap@" in step.get("uses", ""))
    deployed = sample / "models" / "generator.onnx"
    good = deployed.read_bytes()
    try:
        if wrong is not None:
            shutil.copy(sample / "models" / "wrong" / wrong, deployed)
        return run_action(sample, {**given, "report": "normswap.xml\nnormswap.json"})
    finally:
        deployed.write_bytes(good)


def test_the_good_file_passes(sample: Path) -> None:
    step = verified(sample)
    assert step.code == 0, step.log
    assert step.annotations == [
        f"::notice {TRAINED} -> instance::{EQUAL}, end to end on these inputs alone",
        f"::notice {CONVERTED} -> instance::{EQUAL}",
    ]
    assert step.outputs["verdict"] == "equal"
    assert step.summary.startswith("## normswap: 2 pairs: 2 equal")


WRONG: dict[str, tuple[bool, list[str]]] = {  # whether the trained pair fails too, and what the log has to say
    "left_in_eval_mode.onnx": (
        True,
        [
            r"looks as if population was computed instead \(eval-mode BatchNorm\)",
            rf"::error {CONVERTED} -> instance::structure: /down/down.0\S*: the layer was left as it was",
        ],
    ),
    "folded_by_an_optimizer.onnx": (
        True,
        [
            rf"::error {TRAINED} -> instance::end to end: output \(as written\): error",
            rf"::error {CONVERTED} -> instance::structure: /down/down.0\S*: it reads 'down.0.0.weight_bias'",
        ],
    ),
    "eps_dropped.onnx": (
        False,
        [rf"::notice {TRAINED} -> instance::", rf"::error {CONVERTED} -> instance::probes: /down/down.0\S*: error"],
    ),
}


@pytest.mark.parametrize(("name", "expected"), WRONG.items(), ids=WRONG)
def test_a_wrong_file_fails_for_the_right_reason(name: str, expected: tuple[bool, list[str]], sample: Path) -> None:
    step = verified(sample, name)
    both, words = expected
    assert step.code == 1, step.log
    assert step.outputs["verdict"] == "different"
    trained, converted = json.loads((sample / "normswap.json").read_text(encoding="utf-8"))["outcomes"]
    assert (trained["ok"], converted["ok"]) == (not both, False)
    for pattern in words:
        assert re.search(pattern, step.log), pattern
    assert f"::error {CONVERTED} -> instance::NOT shown equal" in step.log
    assert sum(line.startswith("::error") for line in step.annotations) <= 10, "GitHub shows no more"
    assert step.summary.startswith(f"## normswap: 2 pairs: {'2 different' if both else '1 equal, 1 different'}")


def test_there_are_no_more_wrong_files_and_the_readme_has_them_all(sample: Path) -> None:
    assert {path.name for path in (sample / "models" / "wrong").iterdir()} == WRONG.keys()
    rows = re.findall(r"^\| `(\w+\.onnx)` \|.*\| (\S+?)[:;,]?\s.*\| (\S+?)[:;,]?\s.*\|$", readme(), re.MULTILINE)
    assert {name: trained == "different" for name, trained, _ in rows} == {
        name: both for name, (both, _) in WRONG.items()
    }


def test_eps_dropped_is_as_wrong_as_the_readme_says(sample: Path) -> None:
    """It is within what rounding explains on ordinary images, and NaN on a black one."""
    verified(sample, "eps_dropped.onnx")
    trained, converted = json.loads((sample / "normswap.json").read_text(encoding="utf-8"))["outcomes"]
    worst = max(trained["report"]["checks"], key=lambda check: check["error"])
    assert f"error {worst['error']:.0e} where {worst['bound']:.0e} is allowed" in readme()
    failed = [check for check in converted["report"]["checks"] if not check["ok"]]
    assert {check["witness"] for check in failed} == {"probes"}
    assert len(failed) == len(converted["report"]["planned"])
    black = np.zeros((1, 3, 32, 32), np.float32)
    for path, finite in (("generator.onnx", True), ("wrong/eps_dropped.onnx", False)):
        session = onnxruntime.InferenceSession(sample / "models" / path, providers=["CPUExecutionProvider"])
        (made,) = session.run(None, {"image": black})
        assert bool(np.isfinite(np.asarray(made)).all()) is finite


def readme() -> str:
    return (EXAMPLE / "README.md").read_text(encoding="utf-8")
