"""Workflow commands of GitHub Actions: the text in a group that folds, then an annotation for each failure.

References:
    docs.github.com, Workflow commands for GitHub Actions: ``::error file={name},title={title}::{message}``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from normswap.backends.torch.factory import is_factory
from normswap.reports.checks import described
from normswap.reports.formats import text
from normswap.reports.outcome import Outcome
from normswap.words import counted, shortened, visible

__all__ = ["render"]

_LONGEST = 2000  # characters of a message; more than the longest name that anybody reads
_MOST = 10  # annotations of a kind that GitHub shows for a step


def render(outcomes: Sequence[Outcome], created: datetime) -> str:
    """Return the outcomes as a log with annotations: errors for what failed, warnings for what may, notices.

    No more of a kind than are shown: first the verdict of each pair, then single failures.
    """
    lines = []
    for outcome in outcomes:
        lines += [f"::group::{_data(f'{outcome.name} -> {outcome.to}: {outcome.verdict}')}"]
        lines += map(_inert, text.render([outcome], created).splitlines())
        lines += ["::endgroup::"]
    lines += _verdicts("notice", [outcome for outcome in outcomes if outcome.ok])
    wrong = [outcome for outcome in outcomes if not outcome.ok]
    lines += _verdicts("error", wrong)
    room = _MOST - len(wrong)
    for outcome in wrong:
        told = _failures(outcome)[: max(room, 0)]
        lines += [_command("error", outcome, failure) for failure in told]
        room -= len(told)
    lines += [_command("warning", outcome, allowed) for outcome in outcomes for allowed in _allowed(outcome)][:_MOST]
    return "\n".join(lines) + "\n"


def _verdicts(kind: str, outcomes: Sequence[Outcome]) -> list[str]:
    """Return an annotation for each outcome; where those are too many, the last stands for all that are left."""
    shown = outcomes if len(outcomes) <= _MOST else outcomes[: _MOST - 1]
    lines = [_command(kind, outcome, outcome.verdict + _count(outcome)) for outcome in shown]
    if left := outcomes[len(shown) :]:
        said = f"{counted(len(left), 'more pair')}: {', '.join(outcome.name for outcome in left)}"
        lines.append(f"::{kind} title=normswap::{_data(said)}")
    return lines


def _count(outcome: Outcome) -> str:
    failures = len(_failures(outcome))
    return f"; {counted(failures, 'comparison')} failed" if failures else ""


def _failures(outcome: Outcome) -> list[str]:
    checks = () if outcome.report is None else outcome.report.failed
    return [f"{check.witness}: {described(check)}" for check in checks]


def _allowed(outcome: Outcome) -> list[str]:
    checks = () if outcome.report is None else outcome.report.allowed
    return [f"allowed to differ: {check.witness}: {described(check)}" for check in checks]


def _command(kind: str, outcome: Outcome, message: str) -> str:
    title = f"normswap: {outcome.name} -> {outcome.to}"
    file = "" if is_factory(outcome.after) else f"file={_property(outcome.after)},"
    return f"::{kind} {file}title={_property(title)}::{_data(message)}"


def _inert(line: str) -> str:
    """Keep a line that names something of a model from being taken for a command, in either spelling of those."""
    line = re.sub(r"#(?=\W*\[)", "# ", line)  # ##[...] is one wherever it stands, also with a joiner in it
    return f"| {line}" if line.lstrip().startswith("::") else line


def _data(message: str) -> str:
    message = shortened(visible(message), _LONGEST)
    return message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")
