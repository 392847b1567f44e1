"""The settings file of a project: where it is found, and the table of settings in it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from normswap.cli.values import described
from normswap.errors import SettingsError, first_line

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["FILES", "find_settings", "from_here", "header", "table_of"]

_PROJECT = "pyproject.toml"
FILES = ("normswap.toml", _PROJECT)


def find_settings(start: Path | None = None) -> Path:
    """Return the settings file of a folder or of the nearest one above it, up to the root of the repository.

    A ``pyproject.toml`` without ``[tool.normswap]`` is passed over.

    Args:
        start: The folder; the current one if None.

    Raises:
        SettingsError: If there is none, or if one folder has two.
    """
    start = (start or Path.cwd()).absolute()
    for folder in (start, *start.parents):
        found = [path for name in FILES if (path := folder / name).is_file() and _has_settings(path)]
        if len(found) > 1:
            raise SettingsError(f"{folder}: {' and '.join(FILES)} both have settings of normswap; keep one of them")
        if found:
            return from_here(found[0])
        if (folder / ".git").exists():
            break
    raise SettingsError(
        f"no pairs to verify: neither normswap.toml nor a {_PROJECT} with [tool.normswap] is in {start} or above it; "
        "list the pairs there, or name two models: normswap verify BEFORE AFTER --to TARGET"
    )


def from_here(path: Path) -> Path:
    """Name a file relative to the current folder if it is in it or below, as people and annotations name it."""
    here, path = Path.cwd(), path.absolute()
    return path.relative_to(here) if path.is_relative_to(here) else path


def header(path: Path) -> str:
    """Return the line above a pair in a settings file."""
    return "[[tool.normswap.pairs]]" if path.name == _PROJECT else "[[pairs]]"


def table_of(path: Path) -> dict[str, Any]:
    """Return the settings in a file: a table of a pyproject.toml, and the whole of any other file.

    Raises:
        SettingsError: If the file cannot be read, or its settings are not where they have to be.
    """
    whole = _toml(path)
    tool = whole.get("tool", {})
    inner = tool.get("normswap") if isinstance(tool, dict) else None
    if path.name != _PROJECT:
        if inner is not None:
            raise SettingsError(
                f"{path}: [tool.normswap] is for {_PROJECT}; here its content is at the top: [[pairs]] and not "
                "[[tool.normswap.pairs]]"
            )
        return whole
    if inner is None:
        raise SettingsError(f"{path}: has no [tool.normswap]; list the pairs there")
    if not isinstance(inner, dict):
        raise SettingsError(f"{path}: expected [tool.normswap] to be a table, found {described(inner)}")
    return dict(inner)


def _has_settings(path: Path) -> bool:
    if path.name != _PROJECT:
        return True
    tool = _toml(path).get("tool")
    return isinstance(tool, dict) and "normswap" in tool


def _toml(path: Path) -> dict[str, Any]:
    try:
        whole: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return whole
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, numbers or nesting beyond what Python takes
        raise SettingsError(f"{path}: is not valid TOML: {first_line(error)}") from error
