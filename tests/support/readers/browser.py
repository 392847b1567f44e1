"""A headless Chromium that opens a page of ours, and says what it asked for and complained of."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

__all__ = ["complaints", "opened", "requests", "started"]

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@contextmanager
def started() -> Iterator[webdriver.Chrome]:
    """Start the browser; where there is none the test is skipped, but in CI it fails."""
    browser, driver = next(filter(None, map(shutil.which, _BROWSERS)), None), shutil.which("chromedriver")
    if browser is None or driver is None:
        missing = "chromium" if browser is None else "chromedriver"
        said = f"there is no {missing} here to open the page in; install Debian's packages chromium and chromium-driver"
        if os.environ.get("CI") == "true":
            pytest.fail(said)
        pytest.skip(said)
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in _FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    running = webdriver.Chrome(options, Service(driver))
    try:
        yield running
    finally:
        running.quit()


def opened(browser: webdriver.Chrome, page: str, folder: Path) -> Path:
    """Open a page, and forget what earlier ones asked for."""
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    for kind in ("performance", "browser"):
        browser.get_log(kind)
    browser.get(path.as_uri())
    return path


def requests(browser: webdriver.Chrome) -> list[str]:
    """Every URL that was asked for since the page was opened, whatever came of it."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


def complaints(browser: webdriver.Chrome) -> list[str]:
    """What the console says."""
    return [entry["message"] for entry in browser.get_log("browser")]
