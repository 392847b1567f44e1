"""__all__ is complete, sorted and documented, in every public module; and what is installed is all there is."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys

import pytest
from support import ROOT

import normswap

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MODULES = sorted(
    name for _, name, _ in pkgutil.walk_packages(normswap.__path__, "normswap.") if name != "normswap.__main__"
)


@pytest.mark.parametrize("name", ["normswap", *MODULES])
def test_all(name: str) -> None:
    module = importlib.import_module(name)
    public = list(module.__all__)
    assert len(set(public)) == len(public)
    assert all(hasattr(module, word) for word in public)
    for word in public:
        value = getattr(module, word)
        alias = hasattr(value, "__origin__")  # Python 3.10 calls an alias of a generic a class
        if (inspect.isclass(value) and not alias) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{name}.{word} has no docstring"


@pytest.mark.parametrize("name", ["normswap", *MODULES])
def test_every_public_definition_is_in_all(name: str) -> None:
    module = importlib.import_module(name)
    defined = {
        word
        for word, value in vars(module).items()
        if (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == name
        and not word.startswith("_")
    }
    assert defined <= set(module.__all__)


def test_public_functions_say_what_they_raise() -> None:
    for word in ("find", "plan", "convert", "save"):
        assert "Raises:" in (inspect.getdoc(getattr(normswap, word)) or "")


def test_every_package_and_file_is_installed() -> None:
    """A clone has them anyway, so that nothing else would miss one."""
    installed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    packages = {name for _, name, is_package in pkgutil.walk_packages(normswap.__path__, "normswap.") if is_package}
    assert set(installed["packages"]) == {"normswap", *packages}
    listed = {(package, name) for package, names in installed["package-data"].items() for name in names}
    there = {
        (".".join(path.relative_to(ROOT).parent.parts), path.name)
        for path in (ROOT / "normswap").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert listed == there
