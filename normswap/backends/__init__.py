"""Backends: which framework a model belongs to. A new framework is one folder here and its entries below."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from normswap.backends.interrupts import interrupts_held_back
from normswap.backends.protocols import Backend, Collects, Observes, Writes
from normswap.errors import ModelReadError, UnsupportedModelError

__all__ = ["Backend", "Collects", "Observes", "Writes", "backend_for", "collecting_backend", "save", "writing_backend"]


def backend_for(model: Any) -> Backend:
    """Return the backend that a model, or the path of one, belongs to.

    Raises:
        ModelReadError: If no backend takes it.
    """
    if isinstance(model, (str, os.PathLike)):
        backend = _BY_SUFFIX.get(Path(model).suffix.lower(), _onnx_graph)
    else:
        found = next((_BY_CLASS[known] for known in _classes(model) if known in _BY_CLASS), None)
        if found is None:
            cls = type(model)
            raise ModelReadError(
                f"{cls.__module__}.{cls.__qualname__}: expected the path of an .onnx or .pt2 file, an onnx.ModelProto, "
                "an nn.Module or an ExportedProgram"
            )
        backend = found
    with interrupts_held_back():
        try:
            return backend()
        except ImportError as error:
            raise ModelReadError(
                f"{_named(model)}: reading it takes {error.name}; pip install 'normswap[torch]'"
            ) from error


def collecting_backend(model: Any) -> Collects:
    """Return the backend of a model whose layers' inputs can be seen.

    Raises:
        ModelReadError: If no backend takes it.
        UnsupportedModelError: If they cannot be seen.
    """
    backend = backend_for(model)
    if not isinstance(backend, Collects):
        raise UnsupportedModelError(
            f"{_named(model)}: the inputs of an exported program's layers are not looked into; "
            "give the nn.Module that it was made from, or an .onnx export"
        )
    return backend


def writing_backend(backend: Backend) -> Writes:
    """Return a backend as one that writes files.

    Raises:
        UnsupportedModelError: If it writes none.
    """
    if not isinstance(backend, Writes):
        raise UnsupportedModelError("models of this framework are not written to files; take conversion.model")
    return backend


def save(backend: Backend, model: Any, path: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Write a model of a backend to a file, whole or not at all.

    Raises:
        UnsupportedModelError: If its backend writes no files.
        ModelWriteError: If the target is the model's own source, exists and ``force`` is not given, or cannot be
            written.
    """
    with writing_backend(backend).writing(model, path, force=force) as writing:
        return writing.commit()


# Frameworks are imported by these functions alone, when a model of theirs is met.
def _onnx_graph() -> Backend:
    from normswap.backends import onnx_graph

    return onnx_graph


def _module() -> Backend:
    from normswap.backends.torch import module

    return module


def _program() -> Backend:
    from normswap.backends.torch import program

    return program


_BY_SUFFIX: dict[str, Callable[[], Backend]] = {".pt2": _program}  # any other file is tried as ONNX
_BY_CLASS: dict[str, Callable[[], Backend]] = {  # package and class, so that no framework is imported to ask
    "onnx.ModelProto": _onnx_graph,
    "normswap.OnnxModel": _onnx_graph,
    "torch.Module": _module,
    "normswap.ModuleModel": _module,
    "torch.ExportedProgram": _program,
    "normswap.ProgramModel": _program,
}


def _classes(model: Any) -> list[str]:
    return [f"{cls.__module__.partition('.')[0]}.{cls.__qualname__}" for cls in type(model).__mro__]


def _named(model: Any) -> str:
    return os.fspath(model) if isinstance(model, (str, os.PathLike)) else type(model).__name__
