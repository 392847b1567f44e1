"""Settings: the pairs of a project, so that ``normswap verify`` needs no arguments.

The file is ``normswap.toml``, or ``pyproject.toml`` with the same content under ``[tool.normswap]``:

    [tool.normswap]
    to = "instance"                      # defaults of all pairs

    [[tool.normswap.pairs]]
    before = "models.generator:Generator"
    weights = "weights.safetensors"
    after = "generator.onnx"

The keys of a pair are the fields of ``Pair`` and the parameters of targets, a hyphen for each underscore.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from normswap.cli.pair import Pair, outcome_of
from normswap.cli.settings_file import from_here, header, table_of
from normswap.cli.values import READINGS, Reading, described, of_parameter
from normswap.errors import NormswapError, SelectionError, SettingsError
from normswap.files import is_factory
from normswap.norms import NORMS, all_parameters, make_norm
from normswap.options import option_of
from normswap.report import Progress
from normswap.reports.outcome import Outcome
from normswap.words import nearest

__all__ = ["Settings", "keys_of_pairs", "outcomes_of", "read_settings"]

_SHARED = ("seed", "tolerance", "runtimes")  # what all pairs of a project may well have in common
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


def read_settings(path: str | os.PathLike[str]) -> Settings:
    """Read the pairs of a settings file; their relative paths are relative to its folder.

    Raises:
        SettingsError: If the file cannot be read, or anything in it is not what it has to be.
    """
    path = Path(path)
    table = table_of(path)
    listed = table.pop("pairs", None)
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        found = "nothing" if listed is None else described(listed)
        raise SettingsError(f"{path}: expected pairs as tables, each under {header(path)}, found {found}")
    if not listed:
        raise SettingsError(f"{path}: lists no pairs; add one under {header(path)}")
    defaults = _read(table, _default_keys(), str(path))
    pairs = []
    for number, entry in enumerate(listed, 1):
        name = entry.get("name")
        where = f"{path}: pair {number}" + (f" ({name})" if isinstance(name, str) else "")
        pairs.append(_pair(entry, defaults, where, path.parent))
    _raise_for_shared_names(pairs, path)
    return Settings(path, tuple(pairs))


def _pair(entry: Mapping[str, Any], defaults: Mapping[str, Any], where: str, folder: Path) -> Pair:
    own = _read(entry, keys_of_pairs(), where)
    given = {**defaults, **own}
    for declared in fields(Pair):
        if declared.default is MISSING and declared.default_factory is MISSING and declared.name not in given:
            raise SettingsError(f"{where}: {_key(declared.name)} is missing")
    # A default of a parameter is for the pairs whose target takes it.
    takes = [parameter.name for parameter in NORMS[given["to"]].takes]
    parameters = {name: given.pop(name) for name in all_parameters() if name in given}
    parameters = {name: value for name, value in parameters.items() if name in own or name in takes}
    try:
        make_norm(given["to"], **parameters)
    except NormswapError as error:
        raise SettingsError(f"{where}: {error}") from error
    kinds = {declared.name: option_of(declared).kind for declared in fields(Pair)}
    placed = {
        name: _placed(value, folder) if kinds[name] in ("path", "model") else value for name, value in given.items()
    }
    return Pair(**{"name": given["after"], **placed}, parameters=parameters)


def keys_of_pairs() -> dict[str, Reading]:
    """Return the keys that a pair has, and how the value of each is read."""
    own = {_key(one.name): READINGS[kind] for one in fields(Pair) if (kind := option_of(one).kind) is not None}
    return own | {_key(name): of_parameter(parameter) for name, parameter in all_parameters().items()}


def _default_keys() -> dict[str, Reading]:
    keys = keys_of_pairs()
    return {key: keys[key] for key in map(_key, ("to", *all_parameters(), *_SHARED))}


def _read(entry: Mapping[str, Any], keys: Mapping[str, Reading], where: str) -> dict[str, Any]:
    """Return the values of an entry, as a Pair takes them, by the names of its fields."""
    _raise_for_unknown(entry, keys, where)
    values: dict[str, Any] = {}
    for key, value in entry.items():
        name = key.replace("-", "_")
        try:
            values[name] = keys[key].read(value)
        except (ValueError, OverflowError):
            raise SettingsError(f"{where}: {key}: expected {keys[key].expected}, found {described(value)}") from None
        if name == "to" and values[name] not in NORMS:
            try:
                make_norm(values[name])
            except NormswapError as error:
                raise SettingsError(f"{where}: {key}: {error}") from error
    return values


def _raise_for_unknown(entry: Iterable[str], keys: Iterable[str], where: str) -> None:
    known, all_keys = list(keys), keys_of_pairs()
    for key in entry:
        if key in known:
            continue
        if _ELSEWHERE.get(key) in known:
            raise SettingsError(f"{where}: unknown key {key!r}; it is called {_ELSEWHERE[key]!r} here")
        if key.replace("_", "-") in all_keys and key.replace("_", "-") not in known:
            raise SettingsError(
                f"{where}: {key} belongs to one pair and has no default; those that have are {', '.join(known)}; "
                "move it into the pairs"
            )
        raise SettingsError(f"{where}: unknown key {key!r}{nearest(key, known)}; known are {', '.join(known)}")


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
    return str(from_here(folder / model))


def _key(name: str) -> str:
    return name.replace("_", "-")
