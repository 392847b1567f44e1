"""Read a .pt2 file: what could run code is refused before torch sees it.

torch.export.load unpickles what a file asks it to, loads shared libraries that lie in it, and evaluates text from it
as Python. Here each of these is looked at first, through the same reader that torch uses.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from normswap.backends.torch.program.text import check_program_text
from normswap.errors import ModelReadError, first_line

__all__ = ["read_program"]

_TENSORS = ("data/weights/", "data/constants/")
_TRUST = "load it with torch.export.load, if you trust where it is from, and give the ExportedProgram"


def read_program(path: Path) -> ExportedProgram:
    """Read the one program of a file that torch.export.save wrote.

    Raises:
        ModelReadError: If the file is missing, damaged, asks for code to be run, or holds no program that this
            version of torch reads.
    """
    try:
        with path.open("rb") as file, _quietly():
            if not zipfile.is_zipfile(file):
                raise ModelReadError(f"{path}: expected an exported program, as torch.export.save writes it")
            check = _Check(path)
            file.seek(0)
            records = _records(file)
            if records is None:  # torch 2.7 and older
                with zipfile.ZipFile(file) as archive:
                    check.old(archive.namelist(), archive.read)
            else:
                check.new(*records)
            file.seek(0)
            program = torch.export.load(file) if records is None else _loaded(file)
    except ModelReadError:
        raise
    except OSError as error:
        raise ModelReadError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # whatever torch and zipfile meet in a damaged file
        raise ModelReadError(
            f"{path}: holds no exported program that torch {torch.__version__} reads: {_reason(error)}"
        ) from error
    assert isinstance(program, ExportedProgram), "that is what torch.export.load returns"
    return program


class _Check:
    """Refuses a file by ModelReadError, saying where the danger is."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def refuse(self, what: str) -> ModelReadError:
        return ModelReadError(f"{self.path}: {what}; {_TRUST}")

    def new(self, names: list[str], read: Callable[[str], bytes]) -> None:
        """Check an archive of torch 2.8 and newer."""
        models = [name for name in names if name.startswith("models/")]
        if models != ["models/model.json"]:
            raise ModelReadError(f"{self.path}: expected one program called model, found {', '.join(models) or 'none'}")
        for name in names:
            if name.startswith("data/aotinductor/"):
                raise self.refuse(f"{name} is compiled code, which would be run")
            if name.startswith(("data/sample_inputs/", *_TENSORS)) and name.endswith(".pt"):
                self.pickled(name, read(name))
            elif name.startswith(_TENSORS) and name.endswith("_config.json"):
                for stored, payload in json.loads(read(name))["config"].items():
                    if payload["use_pickle"] or not payload["path_name"].startswith(("weight_", "tensor_")):
                        raise self.refuse(f"{stored} is stored as a pickled object, which can run any code")
        self.text("models/model.json", read("models/model.json"))

    def old(self, names: list[str], read: Callable[[str], bytes]) -> None:
        """Check an archive of torch 2.7 and older."""
        if "serialized_exported_program.json" not in names:
            raise ModelReadError(f"{self.path}: expected an exported program, as torch.export.save writes it")
        for name in names:
            if name.startswith("serialized_") and name != "serialized_exported_program.json":
                self.pickled(name, read(name))
        self.text("serialized_exported_program.json", read("serialized_exported_program.json"))

    def pickled(self, name: str, data: bytes) -> None:
        """Refuse a pickle of anything but tensors in plain containers: torch would fall back on unpickling all."""
        if not data:
            return
        try:
            value = torch.load(io.BytesIO(data), weights_only=True)
        except Exception as error:  # whatever a pickle can hold
            raise self.refuse(f"{name} holds pickled objects other than tensors, which can run any code") from error
        odd = [key for key in _keys(value) if not key.isprintable() or set(key) & set("\"'\\")]
        if odd:  # torch writes them into the code that checks inputs
            raise self.refuse(f"{name} has the key {odd[0]!r}, which could become code")

    def text(self, name: str, data: bytes) -> None:
        """Refuse what would be evaluated as Python in ways that an honest file has no use for."""
        problem = check_program_text(json.loads(data))
        if problem:
            raise self.refuse(f"{name} has {problem}")


def _records(file: io.BufferedReader) -> tuple[list[str], Callable[[str], bytes]] | None:
    """Return names and a reader of an archive's members, as torch sees them; None if it is none of torch's."""
    try:
        reader = torch._C.PyTorchFileReader(file)
        names = reader.get_all_records()
    except RuntimeError:
        return None
    return (names, reader.get_record) if "archive_format" in names else None


def _loaded(file: io.BufferedReader) -> ExportedProgram:
    """Load the program of an archive that has been checked, and nothing else.

    torch.export.load would try an older format where this one fails, and keep the reason to its log.
    """
    from torch.export.pt2_archive._package import load_pt2

    return load_pt2(file).exported_programs["model"]


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from _keys(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _keys(inner)


def _reason(error: BaseException) -> str:
    """The first line of the first cause: torch wraps it in whole tracebacks."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {first_line(error)}"


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep torch's warnings and log messages about a file from people: what matters becomes one sentence."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
