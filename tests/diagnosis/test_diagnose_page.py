"""The page of a diagnosis: what it says, that it holds all it needs, and what a browser makes of it."""

from __future__ import annotations

import html as escaping
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from support import ROOT, Refused
from support.models.diagnoses import diagnosis
from support.readers.browser import complaints, opened, requests, started

from normswap.cli import main
from normswap.diagnosis import Diagnosis
from normswap.reports.diagnosis import diagnosed
from normswap.reports.formats import render

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
HOSTILE = "</title><script>document.title = 'pwned'</script>\N{RIGHT-TO-LEFT OVERRIDE}\n::error::$x_1$"


def hostile() -> Diagnosis:
    found = diagnosis("lowlight")
    first = found.layers[0]
    layers = (replace(first, layer=replace(first.layer, name=HOSTILE)), *found.layers[1:])
    return replace(found, layers=layers, source=HOSTILE, notes=(HOSTILE,))


PAGES: dict[str, tuple[Callable[[], Diagnosis], str, list[str]]] = {
    "lowlight": (lambda: diagnosis("lowlight"), "convert to instance", ["input", "eval", "recalibrated", "instance"]),
    "studio": (lambda: diagnosis("studio"), "keep eval", ["input", "eval", "recalibrated", "instance"]),
    "without targets": (lambda: diagnosis("lowlight", targets=False), "convert to instance", ["input", "eval"]),
    "hostile": (hostile, "convert to instance", ["input"]),
}


def page_of(found: Diagnosis, model: str) -> str:
    return render("html", diagnosed(found, model), CREATED)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with started() as running:
        yield running


@pytest.mark.parametrize("name", PAGES)
def test_a_browser_shows_the_page_and_asks_for_nothing_else(name: str, browser: Chrome, tmp_path: Path) -> None:
    made, advice, columns = PAGES[name]
    found = made()
    path = opened(browser, page_of(found, HOSTILE if name == "hostile" else "model.onnx"), tmp_path)
    assert [element.text for element in browser.find_elements(By.CSS_SELECTOR, ".verdict h1")] == [advice]
    assert browser.title.startswith(advice)
    asked = requests(browser)
    assert asked[0] == path.as_uri()
    assert all(url.startswith("data:image/png;base64,") for url in asked[1:]), "a page that is one file needs no more"
    assert complaints(browser) == []
    heads = [element.text for element in browser.find_elements(By.CSS_SELECTOR, ".strip thead th")]
    assert heads[: len(columns)] == columns
    assert (heads[-1] == "target") == (found.modes[0].error is not None)
    for image in browser.find_elements(By.TAG_NAME, "img"):
        assert image.get_property("naturalWidth") != 0, "it is shown"
    for table, rows in (("modes", len(found.modes)), ("layers", len(found.layers)), ("strip", 4)):
        assert len(browser.find_elements(By.CSS_SELECTOR, f".{table} tbody tr")) == rows
    text = browser.find_element(By.TAG_NAME, "body").text
    assert found.verdict.why in text
    assert all(sentence in text for sentence in found.verdict.thin)
    assert f"{found.modes[0].distance:.1%}" in text


def test_names_cannot_become_markup() -> None:
    page = page_of(hostile(), HOSTILE)
    assert "<script" not in page
    assert escaping.escape("</title><script>") in page
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in page


def test_names_cannot_begin_a_line_of_the_text() -> None:
    assert "\n::error::" in HOSTILE
    text = hostile().to_text()
    assert "\n::error::" not in text and r"\n::error::" in text
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in text


def test_the_page_has_the_digits_of_the_text_and_says_what_is_not_known() -> None:
    found = diagnosis("lowlight")
    first, *others = found.modes
    page = page_of(replace(found, modes=(replace(first, error=0.4294, error_std=float("nan")), *others)), "m")
    assert re.search(r'<td class="number">0.429</td>\s*<td class="number">\?</td>', page)


def test_the_page_is_the_same_byte_for_byte() -> None:
    found = diagnosis("studio")
    assert page_of(found, "model.onnx") == page_of(found, "model.onnx")


def test_the_command_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "report.html"
    page.write_text("an older one")
    images = str(ROOT / "fixtures/studio_images.npz")
    command = ["diagnose", str(ROOT / "fixtures/studio.onnx"), "--inputs", images, "--targets", images]
    assert main([*command, "-o", str(page)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {page}"
    assert "<h1>keep eval</h1>" in page.read_text(encoding="utf-8")
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("output", "says"),
    [("report.pdf", "report.pdf: no report format has the suffix '.pdf'"), ("lost/report.html", "lost/report.html: ")],
)
def test_a_page_that_cannot_be_written_is_refused_before_any_work(output: str, says: str, refused: Refused) -> None:
    assert says in refused("diagnose", "model.onnx", "--inputs", "data.npz", "-o", output)
