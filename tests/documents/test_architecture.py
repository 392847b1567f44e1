"""Every path and every test that ARCHITECTURE.md and CONTRIBUTING.md name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import ROOT

DOCUMENTS = [ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md"]
_TOP = {path.name for path in ROOT.iterdir() if path.is_dir()}


def missing(text: str) -> list[str]:
    """Return what is named in backticks and does not exist; NAME stands for any name."""
    found = []
    for name in re.findall(r"`([\w./-]+(?:::\w+)?)`", text):
        path, _, test = name.partition("::")
        if "/" not in path or path.split("/")[0] not in _TOP or "NAME" in path:
            continue
        if not (ROOT / path).exists() or (
            test and not re.search(rf"^def {test}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
        ):
            found.append(name)
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_everything_named_exists(document: Path) -> None:
    assert missing(document.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", ["tests/nothing.py", "normswap/norms/nothing/", "tests/conftest.py::test_nothing"])
def test_what_does_not_exist_is_found(name: str) -> None:
    assert missing(f"`{name}` and `normswap/api.py`") == [name]


def test_every_folder_is_on_the_map() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for folder in (ROOT / "normswap").iterdir():
        if folder.is_dir() and (folder / "__init__.py").exists():
            assert f"`normswap/{folder.name}/" in text, folder.name


def test_every_invariant_names_a_test() -> None:
    table = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").partition("| invariant | test |")[2]
    rows = [row for row in table.partition("\n\n")[0].splitlines()[2:] if row]
    assert len(rows) >= 10
    assert all("::test_" in row for row in rows)
