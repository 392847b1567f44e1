"""The step of ``action.yml``: install normswap, run ``normswap verify``, pass what it found to the workflow.

Inputs come as environment variables, ``INPUT_BEFORE`` and so on, and never as text of a script, so nothing in them is
run. It uses only the standard library, because nothing else is there before the installation.

References:
    docs.github.com, Metadata syntax for GitHub Actions; Workflow commands for GitHub Actions (environment files).
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = ("to", "weights", "after-weights", "inputs", "settings")  # inputs that are options of the same name
VERDICTS = ("equal", "different", "trouble")  # by exit code
TROUBLE = 2


def given(name: str) -> str:
    """Return an input of the action, as action.yml passes it; empty if it was not given."""
    return os.environ.get(f"INPUT_{name.replace('-', '_').upper()}", "").strip()


def arguments(report: Path) -> list[str]:
    """Return the command line that the inputs ask for, with a report in Markdown in addition to the annotations.

    Raises:
        ValueError: If a quote in ``args`` is not closed.
    """
    options = [f"--{name}={given(name)}" for name in OPTIONS if given(name)]
    reports = [f"--report={path.strip()}" for path in ("", *given("report").splitlines()) if path.strip()]
    models = [given(name) for name in ("before", "after") if given(name)]
    more = shlex.split(given("args"))
    return ["verify", "--format=github", f"--report={report}", *options, *reports, *more, "--", *models]


def installed() -> int:
    """Install normswap from the action's own folder, unless the job has; return pip's exit code."""
    if given("install") == "false":
        return 0
    extras = f"[{given('extras')}]" if given("extras") else ""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{ROOT}{extras}"]
    return subprocess.run(pip, check=False).returncode


def verified(command: list[str]) -> tuple[int, str]:
    """Run normswap with its report in the log; return the exit code and the last line of its standard error."""
    # A module of the repository must not replace one of the same name that normswap imports.
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    line = ""
    run = [sys.executable, "-m", "normswap", *command]
    with subprocess.Popen(run, stderr=subprocess.PIPE, text=True, errors="replace", env=environment) as process:
        assert process.stderr is not None, "it is a pipe"
        for line in process.stderr:
            sys.stderr.write(inert(line))
    return process.returncode, line.strip()


def inert(line: str) -> str:
    """Change a line that holds a name from a model so that it cannot be read as a workflow command."""
    line = line.replace("##[", "## [")
    return f"| {line}" if line.lstrip().startswith("::") else line


def annotate(sentence: str) -> None:
    """Show an error where the workflow's errors are shown."""
    escaped = sentence.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    sys.stdout.write(f"::error title=normswap::{escaped}\n")


def hand_over(code: int, report: Path) -> None:
    """Write the outputs and the job's summary, if the runner has files for them."""
    found = report.is_file()
    verdict = VERDICTS[code] if code in range(len(VERDICTS)) else VERDICTS[TROUBLE]
    outputs = {"verdict": verdict, "exit-code": str(code), "report": str(report) if found else ""}
    append("GITHUB_OUTPUT", "".join(as_output(name, value) for name, value in outputs.items()))
    if found:
        append("GITHUB_STEP_SUMMARY", report.read_text(encoding="utf-8") + "\n")


def as_output(name: str, value: str) -> str:
    """Return lines of the outputs file; no value can hold the delimiter."""
    delimiter = f"normswap-{uuid.uuid4()}"
    return f"{name}<<{delimiter}\n{value}\n{delimiter}\n"


def append(variable: str, text: str) -> None:
    """Append to the file that a variable names, if it is set."""
    if path := os.environ.get(variable):
        with open(path, "a", encoding="utf-8", newline="\n") as file:
            file.write(text)


def main() -> int:
    """Run the step and return its exit code: 0 equal, 1 different, 2 trouble."""
    report = Path(tempfile.mkdtemp(prefix="normswap-", dir=os.environ.get("RUNNER_TEMP") or None), "report.md")
    code, message = TROUBLE, ""
    if bool(given("before")) != bool(given("after")):
        message = "give both before and after, or neither to verify the pairs of the settings file"
    elif given("install") not in ("true", "false", ""):
        message = f"install: expected true or false, found {given('install')!r}"
    elif failed := installed():
        message = f"pip could not install normswap from {ROOT} (exit code {failed}); its log says why"
    else:
        try:
            command = arguments(report)
        except ValueError as error:
            message = f"args: {error}"
        else:
            code, message = verified(command)
    if not report.is_file():  # nothing was verified, whatever the exit code: normswap crashed, or showed its help
        annotate(message.removeprefix("normswap: ") or f"normswap ended with exit code {code} and no report")
        code = TROUBLE if code in range(TROUBLE) else code
    hand_over(code, report)
    return code if code >= 0 else TROUBLE  # below 0 a signal ended it


if __name__ == "__main__":
    sys.exit(main())
