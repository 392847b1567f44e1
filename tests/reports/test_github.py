"""Workflow commands, read as the runner reads them: what is annotated, and how much."""

from __future__ import annotations

from collections import Counter

import pytest
from support.models.outcomes import HOSTILE, OUTCOMES, rendered
from support.readers.workflow import Command, read_log

from normswap.reports.checks import described
from normswap.reports.outcome import Outcome
from normswap.words import shortened, visible


def commands_of(outcomes: tuple[Outcome, ...]) -> list[Command]:
    return read_log(rendered("github", outcomes))[1]


def annotated(outcomes: tuple[Outcome, ...], kind: str) -> list[Command]:
    return [command for command in commands_of(outcomes) if command.name == kind]


@pytest.mark.parametrize("outcomes", OUTCOMES.values(), ids=OUTCOMES)
def test_no_more_annotations_than_are_shown(outcomes: tuple[Outcome, ...]) -> None:
    counts = Counter(command.name for command in commands_of(outcomes))
    assert counts.keys() <= {"group", "endgroup", "notice", "warning", "error"}
    assert counts["group"] == counts["endgroup"] == len(outcomes)
    assert counts["error"] <= 10
    assert counts["notice"] <= 10
    assert counts["warning"] == sum(len(outcome.report.allowed) for outcome in outcomes if outcome.report) <= 10
    assert bool(counts["error"]) is any(not outcome.ok for outcome in outcomes)
    assert bool(counts["notice"]) is any(outcome.ok for outcome in outcomes)


@pytest.mark.parametrize("kind", HOSTILE)
def test_names_add_no_commands_and_come_back_as_they_were(kind: str) -> None:
    (outcome,) = OUTCOMES[f"hostile: {kind}"]
    found = annotated((outcome,), "error")
    assert outcome.report is not None
    failures = [check for check in outcome.report.checks if not check.ok]
    assert [command.data for command in found[1:]] == [
        shortened(visible(f"{check.witness}: {described(check)}"), 2000) for check in failures
    ]
    for command in found:
        assert command.properties["title"] == shortened(visible(f"normswap: {outcome.name} -> instance"), 2000)
        assert command.properties["file"] == shortened(visible(outcome.after), 2000)
        assert command.properties.keys() == {"file", "title"}


def test_every_pair_that_is_wrong_is_told_before_any_single_failure() -> None:
    found = annotated(OUTCOMES["several"], "error")
    assert [command.properties["title"].split()[1] for command in found[:4]] == ["wrong", "lost", "many", "wrong"]
    assert found[0].data == f"{OUTCOMES['fail'][0].verdict}; 1 comparison failed"
    assert found[1].data == OUTCOMES["trouble"][0].trouble
    assert found[2].data.endswith("; 70 comparisons failed")
    assert len(found) == 10


def test_where_there_are_too_many_pairs_the_last_annotation_names_the_others() -> None:
    errors = annotated(OUTCOMES["many pairs"], "error")
    assert errors[-1].data.startswith("21 more pairs: pair 14, pair 16, ")
    assert annotated(OUTCOMES["many pairs"], "notice")[-1].data.startswith("6 more pairs: pair 27, pair 30, ")


def test_a_factory_is_no_file() -> None:
    from dataclasses import replace

    (outcome,) = OUTCOMES["fail"]
    (command, *_) = annotated((replace(outcome, after="package.module:factory"),), "error")
    assert "file" not in command.properties


def test_the_reader_here_sees_commands_where_the_runner_does() -> None:
    log, commands = read_log(
        "  ::error file=a%2Cb,title=t%3A::x%0Ay%25\nsee ##[warning]old\naten::conv::x\n::unknown::x\n"
    )
    assert commands == [Command("error", {"file": "a,b", "title": "t:"}, "x\ny%"), Command("warning", {}, "old")]
    assert log == ["aten::conv::x", "::unknown::x"]
