"""action.yml and the pre-commit hook: their shape, and their scripts run as a runner would run them."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml
from support import ROOT
from support.models.small_models import ONE_LAYER, built
from support.readers.runner import Step, metadata, run_action

import normswap

SCRIPT = ROOT / "action" / "verify.py"
HOOKS = ROOT / ".pre-commit-hooks.yaml"
EXAMPLE = ROOT / "examples" / "ci"
NASTY = """it's "a" $(touch pwned) `touch pwned`; touch pwned & %0A::error:: ${HOME}.onnx"""
PAIRS = """
[[pairs]]
name = "good"
before = "model.onnx"
after = "instance.onnx"
to = "instance"
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A repository with a model and its conversion."""
    folder = tmp_path / "the workspace"
    folder.mkdir()
    onnx.save(built(ONE_LAYER), folder / "model.onnx")
    normswap.convert(folder / "model.onnx", to="instance", output=folder / "instance.onnx")
    return folder


def act(workspace: Path, given: dict[str, str], files: bool = True) -> Step:
    """Run the action where the job has installed normswap."""
    return run_action(workspace, {"install": "false", **given}, files=files)


def one_pair(after: str, before: str = "model.onnx", **more: str) -> dict[str, str]:
    return {"before": before, "after": after, "to": "instance", **more}


# ------------------------------------------------------------------------------------------------------- its shape


def schema_holds(name: str, *paths: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", name, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_hold_to_the_schemas_of_their_readers(tmp_path: Path) -> None:
    schema_holds("vendor.github-actions", ROOT / "action.yml")
    schema_holds("vendor.github-workflows", *EXAMPLE.glob(".github/workflows/*.yml"))
    bad = tmp_path / "action.yml"
    bad.write_text((ROOT / "action.yml").read_text().replace("using: composite", "using: nothing"))
    with pytest.raises(AssertionError):
        schema_holds("vendor.github-actions", bad)


@pytest.mark.parametrize(
    ("command", "path"),
    [("validate-manifest", HOOKS), ("validate-config", EXAMPLE / ".pre-commit-config.yaml")],
    ids=["manifest", "config"],
)
def test_pre_commit_takes_its_files(command: str, path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "pre_commit", command, str(path)], timeout=60, check=False)
    assert done.returncode == 0


def test_no_input_becomes_text_of_a_script() -> None:
    for step in metadata()["runs"]["steps"]:
        assert "${{" not in step.get("run", "")


def test_every_input_reaches_the_script_and_every_output_comes_from_it() -> None:
    action = metadata()
    used = set(re.findall(r"inputs\.([\w-]+)", yaml.safe_dump(action["runs"])))
    assert used == action["inputs"].keys()
    (step,) = (step for step in action["runs"]["steps"] if "run" in step)
    passed = {name: f"INPUT_{name.replace('-', '_').upper()}" for name in used - {"python"}}
    assert step["env"] == {variable: f"${{{{ inputs.{name} }}}}" for name, variable in passed.items()}
    script = ast.parse(SCRIPT.read_text())
    calls = [
        node for node in ast.walk(script) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "given"
    ]
    read = {call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)}
    options = next(
        ast.literal_eval(node.value)
        for node in script.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "OPTIONS"
    )
    assert read | set(options) | {"before", "after"} == passed.keys()
    for name, output in action["outputs"].items():
        assert output["value"] == f"${{{{ steps.{step['id']}.outputs.{name} }}}}"
        assert f'"{name}": ' in SCRIPT.read_text()


def test_actions_of_others_are_pinned() -> None:
    steps = metadata()["runs"]["steps"]
    for path in EXAMPLE.glob(".github/workflows/*.yml"):
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            steps += job["steps"]
    for step in steps:
        if "uses" in step:
            assert re.search(r"@v\d+(\.\d+)*$|@[0-9a-f]{40}$", step["uses"])


# ---------------------------------------------------------------------------------------------------- as a runner


def test_a_pair_that_holds(workspace: Path) -> None:
    step = act(workspace, one_pair("instance.onnx", report="all.xml\nall.json\n"))
    assert step.code == 0, step.log
    assert step.annotations == [
        "::notice file=instance.onnx,title=normswap%3A instance.onnx -> instance::"
        "equal to train-mode BatchNorm fed one sample at a time"
    ]
    assert step.outputs["verdict"] == "equal"
    assert step.outputs["exit-code"] == "0"
    assert Path(step.outputs["report"]).read_text(encoding="utf-8") + "\n" == step.summary
    assert step.summary.startswith("### ✅ instance.onnx → instance")
    assert (workspace / "all.xml").exists()
    assert (workspace / "all.json").exists()


def test_a_pair_that_differs(workspace: Path) -> None:
    step = act(workspace, one_pair("model.onnx"))
    assert step.code == 1
    assert (step.outputs["verdict"], step.outputs["exit-code"]) == ("different", "1")
    assert step.annotations[0].startswith("::error file=model.onnx,title=normswap%3A model.onnx -> instance::NOT shown")
    assert any("the layer was left as it was" in line for line in step.annotations)
    assert step.summary.startswith("### ❌ model.onnx → instance")


def test_a_pair_in_trouble_is_in_the_report(workspace: Path) -> None:
    step = act(workspace, one_pair("lost.onnx"))
    assert step.code == 2
    assert step.outputs["verdict"] == "trouble"
    assert [line.partition("::lost.onnx")[0] for line in step.annotations] == [
        "::error file=lost.onnx,title=normswap%3A lost.onnx -> instance"
    ]
    assert step.summary.startswith("### ⚠️ lost.onnx → instance")


TROUBLE: dict[str, tuple[dict[str, str], str]] = {  # that does not come to a report -> what the annotation says
    "no settings": ({}, "no pairs to verify: neither normswap.toml"),
    "usage": ({"before": "model.onnx", "after": "instance.onnx"}, "Missing option '--to'"),
    "half a pair": ({"before": "model.onnx", "to": "instance"}, "give both before and after, or neither"),
    "an open quote": ({"args": "--only '/up"}, "args: No closing quotation"),
    "a target beside settings": ({"to": "instance"}, "--to is for BEFORE and AFTER"),
    "an unknown option": ({"args": "--sed 3"}, "No such option"),
    "nothing is verified": ({"args": "--help"}, "normswap ended with exit code 0 and no report"),
    "neither true nor false": ({"install": "yes"}, "install: expected true or false, found 'yes'"),
    "a report of no format": ({"report": "all.pdf"}, "no report format has the suffix '.pdf'"),
    "a report nowhere": ({"report": "nowhere/all.xml"}, "the folder nowhere does not exist"),
}


@pytest.mark.parametrize(("given", "words"), TROUBLE.values(), ids=TROUBLE)
def test_trouble_without_a_report_is_annotated(given: dict[str, str], words: str, workspace: Path) -> None:
    (workspace / ".git").mkdir()
    step = act(workspace, given)
    assert step.code == 2, step.log
    (annotation,) = step.annotations
    assert annotation.startswith("::error title=normswap::")
    assert words in annotation
    assert step.outputs == {"verdict": "trouble", "exit-code": "2", "report": ""}
    assert step.summary == ""


def test_settings_and_options(workspace: Path) -> None:
    (workspace / "sub").mkdir()
    text = PAIRS.replace('"model', '"../model').replace('"instance.', '"../instance.')
    bad = text.replace("good", "bad").replace('after = "../instance.onnx"', 'after = "../model.onnx"')
    (workspace / "sub" / "release.toml").write_text(text + bad)
    step = act(workspace, {"settings": "sub/release.toml"})
    assert step.code == 1
    assert "normswap: 2 pairs in sub/release.toml" in step.log
    assert step.summary.startswith("## normswap: 2 pairs: 1 equal, 1 different")
    assert act(workspace, {"settings": "sub/release.toml", "args": "--pair 'go*'"}).code == 0


@pytest.mark.parametrize("files", [True, False], ids=["with files", "without"])
def test_names_are_taken_as_they_are(files: bool, workspace: Path) -> None:
    (workspace / "instance.onnx").rename(workspace / NASTY)
    args = shlex.join(["--shape", "x=1x3x8x8", "--only", "y"])
    step = act(workspace, one_pair(NASTY, args=args), files)
    assert step.code == 0, step.log
    assert not list(workspace.rglob("pwned"))
    (annotation,) = step.annotations
    assert annotation.startswith('::notice file=it\'s "a" $(touch pwned)')
    assert (step.outputs.get("verdict"), bool(step.summary)) == (("equal", True) if files else (None, False))


def test_a_name_of_two_lines_adds_no_output(workspace: Path) -> None:
    name = "verdict=equal\nverdict<<x\nequal\nx\n::error::no.onnx"
    step = act(workspace, one_pair(name))
    assert step.code == 2
    assert step.outputs["verdict"] == "trouble"
    assert len(step.annotations) == 1
    temp = workspace / "a folder\nverdict=equal\nverdict<<x\nequal\nx"
    temp.mkdir()
    given = {"install": "false", **one_pair("model.onnx")}
    step = run_action(workspace, given, environment={"RUNNER_TEMP": str(temp)})
    assert step.outputs["verdict"] == "different"
    assert Path(step.outputs["report"]).parent.parent == temp


def test_what_code_of_a_user_prints_is_no_command(workspace: Path) -> None:
    (workspace / "noisy.py").write_text("print('::error::from a model')\nprint('a ##[error]b')\nraise ValueError\n")
    step = act(workspace, one_pair("instance.onnx", "noisy:build"))
    assert step.code == 2
    assert len(step.annotations) == 1
    assert "| ::error::from a model" in step.log
    assert "##[" not in step.log


def test_a_module_of_the_repository_is_not_taken_for_one_of_ours(workspace: Path) -> None:
    for name in ("click", "onnx", "json"):
        (workspace / f"{name}.py").write_text("raise ValueError('the wrong one')\n")
    step = act(workspace, one_pair("instance.onnx"))
    assert step.code == (2 if sys.version_info < (3, 11) else 0), step.log  # 3.11 brought PYTHONSAFEPATH


def test_it_installs_itself(workspace: Path, tmp_path: Path) -> None:
    """With pip told to take what is needed from here, as there is no network."""
    root = tmp_path / "an action's path"
    root.mkdir()
    for name in ("action.yml", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, root)
    for folder in ("action", "normswap"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    init = root / "normswap" / "__init__.py"
    init.write_text(init.read_text() + 'print("the installed one")\n')
    packages = tmp_path / "packages"
    offline = {"PIP_TARGET": packages, "PIP_NO_INDEX": 1, "PIP_NO_DEPS": 1, "PIP_NO_BUILD_ISOLATION": 0}
    environment = {name: str(value) for name, value in {**offline, "PYTHONPATH": packages}.items()}
    given = one_pair("instance.onnx", extras="torch")
    step = run_action(workspace, given, root=root, environment=environment)
    assert step.code == 0, step.log
    assert "the installed one" in step.log
    assert (packages / "normswap" / "reports" / "schemas" / "verify.json").exists()
    (root / "pyproject.toml").unlink()
    step = run_action(workspace, given, root=root, environment=environment)
    assert step.code == 2
    assert step.annotations == [
        f"::error title=normswap::pip could not install normswap from {root} (exit code 1); its log says why"
    ]


# ------------------------------------------------------------------------------------------------ the hook's entry


def hook() -> dict[str, Any]:
    (found,) = yaml.safe_load(HOOKS.read_text())
    return dict(found)


@pytest.mark.parametrize(("after", "code"), [("instance.onnx", 0), ("model.onnx", 1), ("lost.onnx", 2)])
def test_the_hook_exits_as_the_pairs_do(after: str, code: int, workspace: Path) -> None:
    (workspace / "normswap.toml").write_text(PAIRS.replace('after = "instance.onnx"', f'after = "{after}"'))
    program, *words = shlex.split(hook()["entry"])
    assert program == "normswap"
    command = [sys.executable, "-c", "from normswap.cli import run; run()", *words]
    assert subprocess.run(command, cwd=workspace, timeout=60, check=False, capture_output=True).returncode == code


def test_the_hook_runs_where_models_or_settings_change() -> None:
    files = re.compile(hook()["files"])
    for name in ("a.onnx", "models/a.onnx.data", "a.pt2", "w.pth", "w.safetensors", "x.npz", "sub/normswap.toml"):
        assert files.search(name), name
    assert files.search("pyproject.toml")
    for name in ("README.md", "my_normswap.toml", "a.onnx.md", "generator.py"):
        assert not files.search(name), name
    assert hook()["pass_filenames"] is False
