"""The html page: what it says, that it holds all it needs, and what a browser makes of it."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from support.models.outcomes import HOSTILE, OUTCOMES, PASSED, REPORT, rendered
from support.readers.browser import complaints, opened, requests, started
from support.readers.pages import Page, page_of

from normswap.layer import Array
from normswap.report import Picture
from normswap.reports.outcome import Outcome
from normswap.words import visible


def html(outcomes: tuple[Outcome, ...]) -> str:
    return rendered("html", outcomes)


def page(outcomes: tuple[Outcome, ...]) -> Page:
    return page_of(html(outcomes))


def layer_tables(found: Page) -> list[list[list[str]]]:
    return [table for table in found.tables if table[0][0] == "layer"]


def pixels_in(found: Page) -> list[Array]:
    sources = [value for tag, name, value in found.attributes if (tag, name) == ("img", "src")]
    files = [base64.b64decode(source.removeprefix("data:image/png;base64,"), validate=True) for source in sources]
    return [np.asarray(Image.open(io.BytesIO(file))) for file in files]


@pytest.mark.parametrize("outcomes", OUTCOMES.values(), ids=OUTCOMES)
def test_everything_that_a_page_needs_is_in_it(outcomes: tuple[Outcome, ...]) -> None:
    found = page(outcomes)
    for tag, name, value in found.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("src", "href"):
            assert value.startswith(("data:", "#")), (tag, name)
    assert "script" not in found.tags
    assert not re.search(r"url\(|@import", html(outcomes))


@pytest.mark.parametrize("kind", HOSTILE)
def test_names_add_no_elements(kind: str) -> None:
    found, plain = page(OUTCOMES[f"hostile: {kind}"]), page(OUTCOMES["hostile: right to left"])
    assert found.tags == plain.tags
    assert [(tag, name) for tag, name, _ in found.attributes] == [(tag, name) for tag, name, _ in plain.attributes]


@pytest.mark.parametrize("outcomes", OUTCOMES.values(), ids=OUTCOMES)
def test_every_planned_layer_has_a_line(outcomes: tuple[Outcome, ...]) -> None:
    tables = layer_tables(page(outcomes))
    planned = [list(o.report.planned) for o in outcomes if o.report and o.report.planned]
    assert [sorted(row[0] for row in table[1:]) for table in tables] == [
        sorted(map(visible, names)) for names in planned
    ] or (
        "numbers" in OUTCOMES and outcomes is OUTCOMES["numbers"]  # which has more probes than layers
    )


def test_failures_come_first_and_the_worst_of_them_on_top() -> None:
    (table,) = layer_tables(page(OUTCOMES["many failures"]))
    names = [row[0] for row in table[1:]]
    assert names == [f"layer{i}" for i in (*range(39, -1, -1), *range(40, 60))]
    (table,) = layer_tables(page(OUTCOMES["a layer that no probe saw"]))
    assert [row[:2] for row in table[1:]] == [["b", "✘ not seen"], ["a", "✔ held"]]


def bars(text: str) -> list[tuple[float, float]]:
    """Of each line with a bar, how long that is and where what is allowed is marked."""
    pattern = r'<rect class="error"[^>]* width="([\d.]+)"[^>]*/>\s*<line class="bound" x1="([\d.]+)"'
    return [(float(width), float(bound)) for width, bound in re.findall(pattern, text)]


@pytest.mark.parametrize("name", ["pass", "fail", "several", "many failures", "numbers", "hostile, all"])
def test_a_bar_passes_the_mark_if_and_only_if_the_error_is_beyond_what_is_allowed(name: str) -> None:
    for outcome in OUTCOMES[name]:
        text = html((outcome,))
        found = bars(text)
        ratios = re.findall(r'<td class="number">([^<]+) \u00d7</td>', text)
        assert len(found) == len(ratios)
        for (width, bound), ratio in zip(found, ratios, strict=True):
            number = float(ratio.replace(",", "").replace("∞", "inf"))
            assert 0 <= width <= 200
            assert (width > bound) is (number > 1) or number == pytest.approx(1)
            assert (width == 0) is (number == 0)


def test_it_says_what_it_is_about() -> None:
    text = page(OUTCOMES["pass"]).text
    for phrase in ("rewrites the BatchNorm layers", "Outside the converted layers nothing may change", "float64"):
        assert phrase in text
    assert "normswap 0." in text
    assert "2026-01-02 03:04:05 UTC" in text


def imaged(expected: Array, found: Array, bound: float | None = 1e-6) -> tuple[Outcome]:
    return (replace(PASSED, report=replace(REPORT, pictures=(Picture("y", "as written", expected, found, bound),))),)


def test_images_are_beside_each_other() -> None:
    expected = np.zeros((2, 1, 4, 6), np.float32)
    expected[..., 1] = 1
    found = expected.copy()
    found[1, 0, 2, 3] = 0.5
    shown = page(imaged(expected, found))
    original, converted, difference = pixels_in(shown)[3:]  # of the second sample
    assert original.shape == converted.shape == difference.shape == (4, 6, 3)
    assert (original[:, 1] == 255).all()
    assert (np.delete(original, 1, axis=1) == 0).all()
    assert [tuple(place) for place in np.argwhere((original != converted).any(axis=2))] == [(2, 3)]
    assert [tuple(place) for place in np.argwhere(difference.any(axis=2))] == [(2, 3)]
    assert "Black is 0 and white 1" in shown.text
    assert "to  1e-06, all that is allowed; beyond it  to  0.5, the largest" in shown.text


VALUES = {
    "constant": np.full((1, 3, 4, 4), 7.0, np.float32),
    "zero": np.zeros((1, 1, 4, 4)),
    "float16": np.linspace(-65504, 65504, 48).reshape(1, 3, 4, 4).astype(np.float16),
    "bfloat16": np.linspace(0, 1, 16).reshape(1, 1, 4, 4).astype(ml_dtypes.bfloat16),
    "uint8": np.arange(48, dtype=np.uint8).reshape(1, 3, 4, 4),
    "int64": np.array([-(2**63), 2**63 - 1, 0, 1]).reshape(1, 1, 2, 2),
    "float64, whole range": np.array([-1.7e308, 1.7e308, 5e-324, 0]).reshape(1, 1, 2, 2),
    "subnormal": np.array([0, 5e-324, 1e-323, 0]).reshape(1, 1, 2, 2),
    "not finite": np.array([np.nan, np.inf, -np.inf, 1]).reshape(1, 1, 2, 2),
    "nowhere finite": np.full((1, 3, 2, 2), np.nan),
    "large": np.random.default_rng(0).uniform(0, 1, (1, 1, 700, 30)),
}


@pytest.mark.parametrize("expected", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("found", ["same", "reversed", "nan", "huge"])
def test_any_values_become_images(expected: Array, found: str) -> None:
    other = expected.copy() if found != "reversed" else expected[..., ::-1].copy()
    if found in ("nan", "huge") and expected.dtype.kind != "i" and expected.dtype.kind != "u":
        other[0, 0, 0, 1] = np.nan if found == "nan" else np.finfo(np.float64).max if expected.itemsize == 8 else 3e4
    for bound in (None, 0.0, 1e-6, 5e-324, 1e300, float("inf")):
        images = pixels_in(page(imaged(expected, other, bound)))
        assert len(images) == 3
        assert all(image.dtype == np.uint8 and image.shape[2] == 3 for image in images)
        if found == "same":
            assert (images[0] == images[1]).all()
            assert (images[2] == 0).all()


def test_large_images_make_no_large_page() -> None:
    rng = np.random.default_rng(0)
    large = rng.uniform(0, 1, (4, 3, 1000, 1000)).astype(np.float32)
    assert len(html(imaged(large, large + np.float32(1e-3)))) < 8e6


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with started() as running:
        yield running


SHOWN = ["pass", "fail", "trouble", "several", "no pairs", "many failures", "images", "numbers", "hostile, all"]


@pytest.mark.parametrize("name", SHOWN)
def test_a_browser_shows_the_page_and_asks_for_nothing_else(name: str, browser: Chrome, tmp_path: Path) -> None:
    outcomes = OUTCOMES[name]
    path = opened(browser, html(outcomes), tmp_path)
    headings = [element.text for element in browser.find_elements(By.CSS_SELECTOR, ".verdict h1")]
    word = ("PASS", "FAIL", "TROUBLE")[max((outcome.exit_code for outcome in outcomes), default=2)]
    assert len(headings) == 1
    assert word in headings[0]
    assert word in browser.title
    phrases = [element.text for element in browser.find_elements(By.CSS_SELECTOR, ".pair .verdict p")]
    assert [" ".join(phrase.split()) for phrase in phrases] == [
        " ".join(visible(outcome.verdict).split()) for outcome in outcomes
    ]
    asked = requests(browser)
    assert asked[0] == path.as_uri()
    assert all(url == path.as_uri() or url.startswith("data:") for url in asked)
    assert complaints(browser) == []
    for image in browser.find_elements(By.TAG_NAME, "img"):
        assert image.get_property("naturalWidth")
        assert image.get_attribute("alt")
    # The style sheet is in force, which its hash in the policy decides.
    assert browser.find_element(By.CSS_SELECTOR, ".verdict").value_of_css_property("border-left-style") == "solid"


def test_a_browser_sees_a_line_for_every_planned_layer(browser: Chrome, tmp_path: Path) -> None:
    opened(browser, html(OUTCOMES["several"]), tmp_path)
    for index, outcome in enumerate(OUTCOMES["several"], 1):
        lines = browser.find_elements(By.CSS_SELECTOR, f"#pair-{index} .layers tbody tr")
        assert len(lines) == (len(outcome.report.planned) if outcome.report else 0)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(dark: bool, browser: Chrome, tmp_path: Path) -> None:
    """Contrast is at least 4.5, as WCAG 2.2, 1.4.3, asks."""
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    opened(browser, html(OUTCOMES["several"]), tmp_path)
    pairs = browser.execute_script(
        """
        const behind = e => { for (; e; e = e.parentElement) {
            const color = getComputedStyle(e).backgroundColor;
            if (color != "rgba(0, 0, 0, 0)") return color; } };
        return [...document.querySelectorAll("body *")]
            .filter(e => [...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim()))
            .map(e => [getComputedStyle(e).color, behind(e), e.textContent]);
        """
    )
    assert len(pairs) > 100

    def luminance(color: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
        red, green, blue = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for color, back, text in pairs:
        low, high = sorted((luminance(color), luminance(back)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (color, back, text)


def test_a_page_that_did_ask_for_more_would_be_seen(browser: Chrome, tmp_path: Path) -> None:
    intruder = '<img src="http://example.invalid/x.png"><script>document.title = "run"</script></body>'
    page_with_it = html(OUTCOMES["pass"]).replace("</body>", intruder)
    opened(browser, page_with_it, tmp_path)
    assert "http://example.invalid/x.png" in requests(browser)
    assert len([line for line in complaints(browser) if "Content Security Policy" in line]) == 2  # both are stopped
    assert browser.title != "run"
    opened(browser, page_with_it.replace("Content-Security-Policy", "X-None"), tmp_path)
    assert "http://example.invalid/x.png" in requests(browser)
    assert browser.title == "run"


def test_without_a_browser_the_test_is_skipped_but_in_ci_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="there is no chromium here"), started():
        pass
    monkeypatch.setenv("CI", "true")
    with (
        pytest.raises(pytest.fail.Exception, match="install Debian's packages chromium and chromium-driver"),
        started(),
    ):
        pass
