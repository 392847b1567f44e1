"""Settings: the file of a project that lists its pairs, so that ``normswap verify`` needs no arguments.

The file is ``normswap.toml``, or ``pyproject.toml`` with the same content under ``[tool.normswap]``:

    [tool.normswap]
    to = "instance"                      # defaults of all pairs

    [[tool.normswap.pairs]]
    before = "models.generator:Generator"
    weights = "weights.safetensors"
    after = "generator.onnx"

The keys of a pair are the attributes of ``Pair``, a hyphen for each underscore.
"""

from __future__ import annotations

import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, get_type_hints

from normswap.backends.torch.factory import is_factory
from normswap.cli.pair import Pair, outcome_of
from normswap.errors import NormswapError, SelectionError, SettingsError, first_line
from normswap.norms import NORMS, make_norm
from normswap.norms.blend import OVER, Over
from normswap.report import Progress
from normswap.reports.outcome import Outcome
from normswap.words import nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["FILES", "Settings", "find_settings", "outcomes_of", "read_settings"]

_PROJECT = "pyproject.toml"
FILES = ("normswap.toml", _PROJECT)

_PARAMETERS = ("prior", "over")  # of a target: a default of them is for the pairs whose target takes them
_DEFAULTS = ("to", *_PARAMETERS, "seed", "tolerance", "runtimes")  # what all pairs of a project may well share
_MODELS = ("before", "after")  # files, or factories
_PATHS = (*_MODELS, "weights", "after_weights", "inputs")
_ELSEWHERE = {  # what the same thing is called elsewhere, in issues or on the command line -> its key here
    "target": "to",
    "shape": "shapes",
    "no-end-to-end": "end-to-end",
    "margin": "tolerance",
    "original": "before",
    "converted": "after",
}


@dataclass(frozen=True)
class Settings:
    """The pairs of a project.

    Attributes:
        path: The file, as it is found from the current folder.
        pairs: As they are found from the current folder; their names differ.
    """

    path: Path
    pairs: tuple[Pair, ...]

    def only(self, globs: Sequence[str]) -> Settings:
        """Return the pairs whose names match one of the globs (``fnmatch``, case matters); all if there are none.

        Raises:
            SelectionError: If a glob matches no pair.
        """
        names = [pair.name for pair in self.pairs]
        for glob in globs:
            if not any(fnmatchcase(name, glob) for name in names):
                raise SelectionError(
                    f"{self.path}: no pair matches {glob!r}{nearest(glob, names)}; there are {', '.join(names)}"
                )
        chosen = [pair for pair in self.pairs if not globs or any(fnmatchcase(pair.name, glob) for glob in globs)]
        return replace(self, pairs=tuple(chosen))


def outcomes_of(settings: Settings, progress: Progress | None = None) -> list[Outcome]:
    """Hold each pair to its target, in order; trouble with one does not keep the others from it.

    Factories are code that the settings name, and are run; they are found from the folder of the settings too.
    """
    outcomes = []
    with _importable(settings.path.parent):
        for pair in settings.pairs:
            outcomes.append(outcome_of(pair, None if progress is None else _naming(pair.name, progress)))
    return outcomes


def _naming(name: str, progress: Progress) -> Progress:
    return lambda stage, done, total: progress(f"{name}: {stage}", done, total)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    before = list(sys.path)
    sys.path[:0] = [str(folder.resolve()), str(Path.cwd())]
    try:
        yield
    finally:
        sys.path[:] = before


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
            return _from_here(found[0])
        if (folder / ".git").exists():
            break
    raise SettingsError(
        f"no pairs to verify: neither normswap.toml nor a {_PROJECT} with [tool.normswap] is in {start} or above it; "
        "list the pairs there, or name two models: normswap verify BEFORE AFTER --to TARGET"
    )


def read_settings(path: str | os.PathLike[str]) -> Settings:
    """Read the pairs of a settings file; their relative paths are relative to its folder.

    Raises:
        SettingsError: If the file cannot be read, or anything in it is not what it has to be.
    """
    path = Path(path)
    table = _table_of(path)
    listed = table.pop("pairs", None)
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        found = "nothing" if listed is None else _kind(listed)
        raise SettingsError(f"{path}: expected pairs as tables, each under {_header(path)}, found {found}")
    if not listed:
        raise SettingsError(f"{path}: lists no pairs; add one under {_header(path)}")
    _raise_for_unknown(table, _DEFAULTS, str(path))
    defaults = _read(table, str(path))
    pairs = []
    for number, entry in enumerate(listed, 1):
        name = entry.get("name")
        where = f"{path}: pair {number}" + (f" ({name})" if isinstance(name, str) else "")
        pairs.append(_pair(entry, defaults, where, path.parent))
    _raise_for_shared_names(pairs, path)
    return Settings(path, tuple(pairs))


def _pair(entry: Mapping[str, Any], defaults: Mapping[str, Any], where: str, folder: Path) -> Pair:
    _raise_for_unknown(entry, _TYPES, where)
    own = _read(entry, where)
    given = {**defaults, **own}
    if given.get("to") in NORMS and not NORMS[given["to"]].parameters:
        given = {name: value for name, value in given.items() if name in own or name not in _PARAMETERS}
    for field in fields(Pair):
        if field.default is MISSING and field.default_factory is MISSING and field.name not in given:
            raise SettingsError(f"{where}: {_key(field.name)} is missing")
    try:
        make_norm(given["to"], **{name: given[name] for name in _PARAMETERS if name in given})
    except NormswapError as error:
        raise SettingsError(f"{where}: {error}") from error
    name = given.get("name", given["after"])
    placed = {key: _placed(given[key], folder) if key in _PATHS else value for key, value in given.items()}
    return Pair(**{**placed, "name": name})


def _read(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the values of known keys, as a Pair takes them, by the names of its attributes."""
    values: dict[str, Any] = {}
    for key, value in entry.items():
        name = key.replace("-", "_")
        expected, read = _READERS_BY_NAME.get(name) or _READERS[_TYPES[name]]
        try:
            values[name] = read(value)
        except (ValueError, OverflowError):
            raise SettingsError(f"{where}: {key}: expected {expected}, found {_kind(value)}") from None
        if name == "to" and values[name] not in NORMS:
            try:
                make_norm(values[name])
            except NormswapError as error:
                raise SettingsError(f"{where}: {key}: {error}") from error
    return values


def _raise_for_unknown(entry: Mapping[str, Any], names: Iterable[str], where: str) -> None:
    keys = [_key(name) for name in names]
    for key in entry:
        if key in keys:
            continue
        if _ELSEWHERE.get(key) in keys:
            raise SettingsError(f"{where}: unknown key {key!r}; it is called {_ELSEWHERE[key]!r} here")
        if key.replace("_", "-") in map(_key, _TYPES) and key.replace("_", "-") not in keys:
            raise SettingsError(
                f"{where}: {key} is of one pair and no default; those are {', '.join(keys)}; move it into the pairs"
            )
        raise SettingsError(f"{where}: unknown key {key!r}{nearest(key, keys)}; known are {', '.join(keys)}")


def _raise_for_shared_names(pairs: Sequence[Pair], path: Path) -> None:
    counts = Counter(pair.name for pair in pairs)
    shared = next((name for name, count in counts.items() if count > 1), None)
    if shared is not None:
        numbers = [str(number) for number, pair in enumerate(pairs, 1) if pair.name == shared]
        raise SettingsError(
            f"{path}: pairs {' and '.join(numbers)} are both called {shared!r}; give each a name of its own "
            "(one without is called what its after is)"
        )


def _placed(model: str, folder: Path) -> str:
    """Return a path of the settings as it is found from the current folder; a factory stays as it is."""
    if not (folder / model).exists() and is_factory(model):
        return model
    return str(_from_here(folder / model))


def _from_here(path: Path) -> Path:
    """Name a file relative to the current folder where it lies below it, as people and annotations have it."""
    here, path = Path.cwd(), path.absolute()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _table_of(path: Path) -> dict[str, Any]:
    """Return the settings in a file, which are a table of a pyproject.toml and the whole of any other."""
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
        raise SettingsError(f"{path}: expected [tool.normswap] to be a table, found {_kind(inner)}")
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
        raise SettingsError(f"{path}: is no TOML: {first_line(error)}") from error


def _header(path: Path) -> str:
    return "[[tool.normswap.pairs]]" if path.name == _PROJECT else "[[pairs]]"


def _key(name: str) -> str:
    return name.replace("_", "-")


def _kind(value: Any) -> str:
    """Say what a value is, briefly."""
    if isinstance(value, dict):
        return "a table"
    said = repr(value)
    return said if len(said) <= 60 else f"{said[:57]}..."


def _string(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError
    return value


def _strings(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError
    return tuple(map(_string, value))


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:  # for Python, true and false are numbers
        raise ValueError
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
        raise ValueError
    return float(value)


def _positive(value: Any) -> float:
    if _number(value) == 0:
        raise ValueError
    return float(value)


def _over(value: Any) -> Over:
    if value not in OVER:
        raise ValueError
    return OVER[OVER.index(value)]


def _shapes(value: Any) -> dict[str, tuple[int, ...]]:
    if not isinstance(value, dict):
        raise ValueError
    shapes = {}
    for name, dims in value.items():
        if not isinstance(dims, list) or not all(type(dim) is int and dim > 0 for dim in dims):
            raise ValueError
        shapes[name] = tuple(dims)
    return shapes


_TYPES: dict[str, Any] = get_type_hints(Pair)
_READERS: dict[Any, tuple[str, Callable[[Any], Any]]] = {  # type of an attribute -> what a file may give, its reader
    str: ("a string", _string),
    str | None: ("a string", _string),
    tuple[str, ...]: ("a list of strings", _strings),
    bool: ("true or false", _flag),
    int: ("a whole number, 0 or more", _whole),
    float | None: ("a number above 0", _positive),
    Over | None: (" or ".join(map(repr, OVER)), _over),
    Mapping[str, tuple[int, ...]]: ("a table of shapes, as { x = [1, 3, 256, 256] }", _shapes),
}
_READERS_BY_NAME = {"prior": ("a number, 0 or more", _number)}  # where the type does not say it all
