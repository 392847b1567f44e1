"""JUnit XML, read by a library of others: a case for each layer and witness, counted as viewers count."""

from __future__ import annotations

from xml.etree import ElementTree

import junitparser
import pytest
from support.models.outcomes import HOSTILE, OUTCOMES, rendered

from normswap.reports.outcome import Outcome
from normswap.words import visible


def suites_of(outcomes: tuple[Outcome, ...]) -> list[junitparser.TestSuite]:
    return list(junitparser.JUnitXml.fromstring(rendered("junit", outcomes).encode()))


def kinds(suite: junitparser.TestSuite) -> dict[str, str]:
    """How each case of a suite came out, by its witness and name."""
    return {
        f"{case.classname.removeprefix(f'{suite.name}.')}: {case.name}": (
            "failure" if case.is_failure else "error" if case.is_error else "skipped" if case.is_skipped else "passed"
        )
        for case in suite
    }


@pytest.mark.parametrize("outcomes", OUTCOMES.values(), ids=OUTCOMES)
def test_the_counts_are_those_of_the_cases(outcomes: tuple[Outcome, ...]) -> None:
    text = rendered("junit", outcomes)
    whole = junitparser.JUnitXml.fromstring(text.encode())
    seen = (whole.tests, whole.failures, whole.errors, whole.skipped)
    for suite in whole:
        own = (suite.tests, suite.failures, suite.errors, suite.skipped)
        suite.update_statistics()
        assert (suite.tests, suite.failures, suite.errors, suite.skipped) == own
    whole.update_statistics()
    assert (whole.tests, whole.failures, whole.errors, whole.skipped) == seen


@pytest.mark.parametrize("outcomes", OUTCOMES.values(), ids=OUTCOMES)
def test_a_suite_is_red_if_and_only_if_its_pair_is_not_ok(outcomes: tuple[Outcome, ...]) -> None:
    for outcome, suite in zip(outcomes, suites_of(outcomes), strict=True):
        assert (suite.failures + suite.errors > 0) is (not outcome.ok)
        assert (suite.errors > 0) is (outcome.report is None)


@pytest.mark.parametrize("outcomes", OUTCOMES.values(), ids=OUTCOMES)
def test_there_is_a_case_for_each_layer_and_witness(outcomes: tuple[Outcome, ...]) -> None:
    for outcome, suite in zip(outcomes, suites_of(outcomes), strict=True):
        if outcome.report is None:
            continue
        classes = [case.classname.removeprefix(f"{suite.name}.") for case in suite]
        names = [case.name for case, kind in zip(suite, classes, strict=True) if kind == "probes"]
        assert set(names) >= set(map(visible, outcome.report.planned))
        assert len(names) >= len(outcome.report.planned)
        assert set(classes) >= {"structure", "end to end"}
        assert classes.count("left as it is") == len(outcome.report.left)


def test_what_came_out_how() -> None:
    (suite,) = suites_of(OUTCOMES["fail"])
    assert kinds(suite) == {
        "structure: graph": "passed",
        "probes: a": "passed",
        "probes: b": "failure",
        "end to end: y (as written)": "passed",
        "left as it is: c": "skipped",
        "left as it is: d": "skipped",
        "left as it is: e": "skipped",
    }
    failure = next(case.result[0] for case in suite if case.is_failure)
    assert failure.message == failure.text
    assert failure.message.startswith("b: error 0.25, allowed 5e-07 at [1, 0, 0]")
    assert suite.timestamp == "2026-01-02T03:04:05"


def test_a_layer_that_no_probe_saw_fails_and_one_that_none_could_see_is_skipped() -> None:
    assert kinds(suites_of(OUTCOMES["a layer that no probe saw"])[0])["probes: b"] == "failure"
    across = kinds(suites_of(OUTCOMES["between frameworks"])[0])
    assert (across["probes: a"], across["probes: b"], across["structure: not run"]) == ("skipped",) * 3


def test_a_pair_in_trouble_is_an_error() -> None:
    (suite,) = suites_of(OUTCOMES["trouble"])
    assert kinds(suite) == {"trouble: verify": "error"}


@pytest.mark.parametrize("kind", HOSTILE)
def test_names_add_no_elements(kind: str) -> None:
    def shape(outcomes: tuple[Outcome, ...]) -> list[str]:
        return [element.tag for element in ElementTree.fromstring(rendered("junit", outcomes)).iter()]

    assert shape(OUTCOMES[f"hostile: {kind}"]) == shape(OUTCOMES["hostile: right to left"])
