"""Every format of reports: what a reader of it sees of every kind of outcome, and what names can do to it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import junitparser
import pytest
from markdown_it import MarkdownIt
from support import ROOT
from support.models.outcomes import CREATED, HOSTILE, OUTCOMES, rendered
from support.readers.pages import page_of
from support.readers.workflow import read_log

from normswap.errors import ReportError
from normswap.reports.formats import FORMATS, render, time_stamp
from normswap.reports.outcome import Outcome
from normswap.reports.verification import verification
from normswap.words import visible


def in_json(text: str) -> str:
    """Every string of a document, a line each."""

    def strings(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [word for pair in value.items() for part in pair for word in strings(part)]
        if isinstance(value, list):
            return [word for part in value for word in strings(part)]
        return [visible(str(value))]

    return "\n".join(strings(json.loads(text)))


def in_junit(text: str) -> str:
    """What a third-party reader of JUnit XML finds."""
    found = []
    for suite in junitparser.JUnitXml.fromstring(text.encode()):
        found += [suite.name, *(f"{entry.name}: {entry.value}" for entry in suite.properties())]
        for case in suite:
            found += [f"{case.classname} {case.name}", *(f"{entry.message}\n{entry.text}" for entry in case.result)]
            found.append(case.system_out or "")
        found += [out.text for out in suite.iterchildren(junitparser.SystemOut)]
    return "\n".join(found)


def in_markdown(text: str) -> str:
    return page_of(MarkdownIt("commonmark", {"html": True}).enable("table").render(text)).text


def in_github(text: str) -> str:
    log, commands = read_log(text)
    return "\n".join([*log, *(f"{command.properties.get('title', '')} {command.data}" for command in commands)])


READERS: dict[str, Callable[[str], str]] = {
    "text": str,
    "json": in_json,
    "junit": in_junit,
    "markdown": in_markdown,
    "github": in_github,
    "html": lambda text: page_of(text).text,
}


@pytest.fixture(params=FORMATS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=OUTCOMES)
def outcomes(request: pytest.FixtureRequest) -> tuple[Outcome, ...]:
    return OUTCOMES[request.param]


def test_every_format_has_a_reader_here() -> None:
    assert READERS.keys() == FORMATS.keys()


def flat(text: str) -> str:
    """Text as people compare it; of what nobody reads to its end, the beginning."""
    return re.sub(r"\s+", " ", text)


def begun(text: str) -> str:
    return flat(visible(text))[:400].strip()


def test_a_reader_sees_every_verdict_and_whose_it_is(form: str, outcomes: tuple[Outcome, ...]) -> None:
    seen = flat(READERS[form](rendered(form, outcomes)))
    for outcome in outcomes:
        assert begun(outcome.verdict) in seen
        assert begun(outcome.name) in seen or (form == "text" and len(outcomes) == 1)


@pytest.mark.parametrize("form", ["json", "junit", "html"])
def test_a_reader_of_a_whole_report_sees_every_comparison(form: str, outcomes: tuple[Outcome, ...]) -> None:
    seen = flat(READERS[form](rendered(form, outcomes)))
    for report in [outcome.report for outcome in outcomes if outcome.report]:
        for check in report.checks:
            assert begun(check.name) in seen or check.witness == "structure"  # whose sentence says all
            assert begun(check.detail) in seen
        for words in (*report.notes, *report.left, *report.left.values(), *report.planned, report.inputs):
            assert begun(words) in seen
        for choice in report.forms.values():
            assert begun(choice.form) in seen
            assert begun(choice.why) in seen


def test_a_report_is_a_file_in_utf_8_and_nothing_in_it_acts(form: str, outcomes: tuple[Outcome, ...]) -> None:
    text = rendered(form, outcomes)
    assert text.encode("utf-8").decode("utf-8") == text
    assert visible(text.replace("\n", "")) == text.replace("\n", "")
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_the_same_outcomes_give_the_same_bytes_but_for_the_time_stamp(form: str, outcomes: tuple[Outcome, ...]) -> None:
    text = rendered(form, outcomes)
    assert rendered(form, outcomes) == text
    later = rendered(form, outcomes, CREATED + timedelta(days=400))
    stamps = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\+00:00)?")
    assert stamps.sub("", later) == stamps.sub("", text)


@pytest.mark.parametrize("name", ["verdict", "command on a line of its own", "separators"])
@pytest.mark.parametrize("form", ["text", "github"])
def test_no_name_begins_a_line(form: str, name: str) -> None:
    lines = rendered(form, OUTCOMES[f"hostile: {name}"]).splitlines()
    ours = "structure |probes  |end to end |inputs |  (FAILED|written as|left as|note:) "
    known = ours + r"|FAIL: NOT|::(group|endgroup|error)"
    assert [line for line in lines if not re.match(known, line)] == []


def test_the_time_stamp_is_that_of_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(int(CREATED.timestamp())))
    assert time_stamp() == CREATED
    pair = OUTCOMES["pass"]
    assert all(render(form, verification(pair)) == rendered(form, pair) for form in FORMATS)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "")
    assert abs(time_stamp() - datetime.now(CREATED.tzinfo)) < timedelta(minutes=1)


@pytest.mark.parametrize("given", ["yesterday", "1e9", "9" * 30, "99999999999999", "-9" * 9])
def test_a_build_time_that_is_none_is_an_error(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", given)
    with pytest.raises(ReportError, match="SOURCE_DATE_EPOCH: expected a time in seconds"):
        time_stamp()


def test_an_unknown_format_names_the_nearest() -> None:
    with pytest.raises(ReportError, match="unknown report format 'htlm'; the nearest is 'html'; known are text, json"):
        rendered("htlm", OUTCOMES["pass"])


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_what_is_visible_is_one_line_that_stays_as_it_is(name: str) -> None:
    once = visible(name)
    assert visible(once) == once
    assert len(once.splitlines()) <= 1
    assert once.encode().decode() == once


def test_ordinary_names_of_all_scripts_are_shown_as_they_are() -> None:
    for kind in ("right to left", "emoji", "html", "escaped"):
        assert visible(HOSTILE[kind]) == HOSTILE[kind]


def test_files_that_are_no_code_are_installed_too() -> None:
    package, settings = ROOT / "normswap", (ROOT / "pyproject.toml").read_text()
    others = [path.name for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    assert {"page.html", "verify.json"} <= set(others)
    assert all(f'"{name}"' in settings for name in others)
