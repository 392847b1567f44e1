"""Workflow commands of GitHub Actions: the text in a group that folds, then an annotation for each failure.

References:
    docs.github.com, Workflow commands for GitHub Actions: ``::error file={name},title={title}::{message}``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from normswap.factory import is_factory
from normswap.formats import text
from normswap.outcome import Outcome
from normswap.report import described

__all__ = ["render"]

_SHOWN = 9  # GitHub shows ten annotations of a kind for a step; the verdict is one more


def render(outcomes: Sequence[Outcome], created: datetime) -> str:
    """Return the outcomes as a log with annotations: errors for what failed, warnings for what may, notices else."""
    lines = []
    for outcome in outcomes:
        lines += [f"::group::{_data(f'{outcome.name} -> {outcome.to}: {outcome.verdict}')}"]
        lines += map(_inert, text.render([outcome], created).splitlines())
        lines += ["::endgroup::", *_annotations(outcome)]
    return "\n".join(lines) + "\n"


def _annotations(outcome: Outcome) -> list[str]:
    if outcome.report is None:
        return [_command("error", outcome, outcome.trouble)]
    allowed = [
        _command("warning", outcome, f"allowed to differ: {check.witness}: {described(check)}")
        for check in outcome.report.allowed[: _SHOWN + 1]
    ]
    if outcome.ok:
        return [_command("notice", outcome, outcome.verdict), *allowed]
    failed = outcome.report.failed
    more = f"; {len(failed) - _SHOWN} more failures are in the report" if len(failed) > _SHOWN else ""
    return [
        _command("error", outcome, outcome.verdict + more),
        *(_command("error", outcome, f"{check.witness}: {described(check)}") for check in failed[:_SHOWN]),
        *allowed,
    ]


def _command(kind: str, outcome: Outcome, message: str) -> str:
    title = f"normswap: {outcome.name} -> {outcome.to}"
    file = "" if is_factory(outcome.after) else f"file={_property(outcome.after)},"
    return f"::{kind} {file}title={_property(title)}::{_data(message)}"


def _inert(line: str) -> str:
    """Keep a line that names something of a model from being taken for a command, in either spelling of those."""
    line = line.replace("##[", "## [")
    return f"| {line}" if line.lstrip().startswith("::") else line


def _data(message: str) -> str:
    return message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")
