"""Markdown, rendered by a library of others: its tables stay whole and nothing in it is markup that is not ours."""

from __future__ import annotations

from collections import Counter

import pytest
from markdown_it import MarkdownIt
from support.models.outcomes import HOSTILE, OUTCOMES, rendered
from support.readers.pages import Page, page_of

from normswap.reports.outcome import Outcome
from normswap.words import shortened, visible

WITNESSES = ["witness", "structure", "probes", "end to end", "inputs"]


def page(outcomes: tuple[Outcome, ...]) -> Page:
    markdown = MarkdownIt("commonmark", {"html": True}).enable("table")
    return page_of(markdown.render(rendered("markdown", outcomes)))


@pytest.mark.parametrize("outcomes", OUTCOMES.values(), ids=OUTCOMES)
def test_the_tables_are_whole(outcomes: tuple[Outcome, ...]) -> None:
    tables = page(outcomes).tables
    for outcome in outcomes:
        if outcome.report is None:
            continue
        witnesses = tables.pop(0)
        assert [row[0] for row in witnesses] == WITNESSES
        assert {len(row) for row in witnesses} == {2}
        for checks in filter(None, (outcome.report.failed, outcome.report.allowed)):
            rows = tables.pop(0)
            assert {len(row) for row in rows} == {5}
            assert [row[:2] for row in rows[1:]] == [
                [check.witness, shortened(visible(check.name), 1000)] for check in checks[:20]
            ] or not all(check.name.strip() for check in checks)
    assert not tables


@pytest.mark.parametrize("kind", HOSTILE)
def test_names_add_no_markup(kind: str) -> None:
    found, plain = page(OUTCOMES[f"hostile: {kind}"]), page(OUTCOMES["hostile: right to left"])
    assert Counter(found.tags) == Counter(plain.tags)
    assert not found.attributes or {name for _, name, _ in found.attributes} == {"style"}  # of columns of numbers


def test_failures_are_cut_short() -> None:
    text = rendered("markdown", OUTCOMES["many failures"])
    assert "... and 50 more." in text
    assert len(rendered("markdown", OUTCOMES["hostile: very long"])) < 2**16


def test_the_verdict_comes_first() -> None:
    lines = rendered("markdown", OUTCOMES["fail"]).splitlines()
    assert lines[:3] == [
        "### ❌ wrong → instance",
        "",
        "**NOT shown equal to train-mode BatchNorm fed one sample at a time**",
    ]
    assert rendered("markdown", OUTCOMES["several"]).startswith(
        "## normswap: 4 pairs: 1 equal, 2 different, 1 in trouble\n"
    )
