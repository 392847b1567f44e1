"""Links of the documents lead somewhere, and the site's hook writes the tables of options."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import click
import pytest
import yaml
from support import ROOT
from support.readers.manual import DOCS, MANUAL

from normswap.cli import command

DOCUMENTS = (
    *MANUAL,
    *sorted(ROOT.glob("*.md")),
    ROOT / "fixtures" / "README.md",
    ROOT / "examples" / "ci" / "README.md",
)


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """docs/hooks.py, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target, anchor in re.findall(r"\]\((?![a-z]+:)([^)#\s]*)#?([^)\s]*)\)", text):
        found = path.parent / target if target else path
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), f"{target}#{anchor}"


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def test_the_site_loads_nothing_from_elsewhere() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert settings["theme"]["font"] is False
    assert "extra_javascript" not in settings
    assert all((DOCS / name).exists() for name in settings["extra_css"])
    assert settings["strict"] is True


def test_tables_have_every_option(hooks: ModuleType) -> None:
    page = hooks.with_tables((DOCS / "reference" / "cli.md").read_text(encoding="utf-8"))
    assert "<!-- options" not in page
    for name, one in command.commands.items():
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        for parameter in one.params:
            if isinstance(parameter, click.Option):
                assert parameter.opts[-1] in section, (name, parameter.opts)
        rows = re.findall(r"^\| `.*$", section, re.MULTILINE)
        assert all(re.sub(r"`[^`]*`", "", row).count("|") == 3 for row in rows), "two cells each"


def test_links_of_a_page_on_the_site(hooks: ModuleType) -> None:
    linked = hooks.linked(
        "[a](../../action.yml) [b](cli.md#x) ![c](../../fixtures/report.png)", "how-to/ci.md", "https://h/r/"
    )
    assert linked == "[a](https://h/r/blob/main/action.yml) [b](cli.md#x) ![c](../fixtures/report.png)"
    with pytest.raises(FileNotFoundError, match=re.escape("../../nothing.md")):
        hooks.linked("[a](../../nothing.md)", "how-to/ci.md", "https://h/r")
