"""Run the composite ``action.yml`` as a runner would: inputs into the environment, bash, files, exit code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from support import ROOT

__all__ = ["Step", "metadata", "run_action"]

_EXPRESSION = re.compile(r"\$\{\{\s*inputs\.([\w-]+)\s*\}\}")


@dataclass(frozen=True)
class Step:
    """What a step of a workflow left.

    Attributes:
        code: Exit code.
        log: Standard output and error.
        outputs: Of the action, by name; empty where the runner gave it no file for them.
        summary: The job's summary in Markdown.
    """

    code: int
    log: str
    outputs: Mapping[str, str]
    summary: str

    @property
    def annotations(self) -> list[str]:
        """The workflow commands in the log that show something to people."""
        return [line for line in self.log.splitlines() if re.match("::(error|warning|notice)", line)]


def metadata(root: Path = ROOT) -> dict[str, Any]:
    """Return action.yml."""
    read: dict[str, Any] = yaml.safe_load((root / "action.yml").read_text(encoding="utf-8"))
    return read


def run_action(
    workspace: Path,
    given: Mapping[str, str],
    *,
    root: Path = ROOT,
    files: bool = True,
    environment: Mapping[str, str] | None = None,
) -> Step:
    """Run the action's own step in a workspace.

    Args:
        workspace: The folder of the repository that uses the action.
        given: ``with`` of the step.
        root: The action's folder.
        files: Whether the runner offers files for outputs and the summary.
        environment: More variables of the job.
    """
    action = metadata(root)
    assert given.keys() <= action["inputs"].keys()
    values = {name: str(entry.get("default", "")) for name, entry in action["inputs"].items()} | dict(given)
    (step,) = (step for step in action["runs"]["steps"] if "run" in step)
    env = {name: _EXPRESSION.sub(lambda found: values[found[1]], text) for name, text in step["env"].items()}
    temp = workspace.parent / "runner temp"
    temp.mkdir(exist_ok=True)
    output, summary = temp / "output", temp / "summary"
    for path in (output, summary):
        path.write_text("")
    handed = {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(summary), "RUNNER_TEMP": str(temp)}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "INPUT_", "RUNNER_"))}
    done = subprocess.run(
        [step["shell"], "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        cwd=workspace,
        env={
            **kept,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT),
            **env,
            "GITHUB_ACTION_PATH": str(root),
            **(handed if files else {}),
            **(environment or {}),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    written = _read_outputs(output.read_text(encoding="utf-8"))
    outputs = {
        name: written[match[1]]
        for name, entry in action["outputs"].items()
        if (match := re.fullmatch(r"\$\{\{\s*steps\.verify\.outputs\.([\w-]+)\s*\}\}", entry["value"])) and written
    }
    return Step(done.returncode, done.stdout, outputs, summary.read_text(encoding="utf-8"))


def _read_outputs(text: str) -> dict[str, str]:
    """Read an outputs file: ``name=value``, or ``name<<delimiter`` and lines up to the delimiter."""
    found = {}
    lines = iter(text.split("\n"))
    for line in lines:
        if not line:
            continue
        name, sign, value = re.fullmatch(r"([^=<]+)(=|<<)(.*)", line).groups()  # type: ignore[union-attr]  # else invalid
        if sign == "<<":
            value = "\n".join(iter(lambda: next(lines), value))
        found[name] = value
    return found
