"""Write a converted module: its weights, or an export that is run as well before it is put in place."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from normswap.backends.protocols import Exported
from normswap.backends.torch.checkpoint import SUFFIXES, write_checkpoint
from normswap.backends.torch.module.export import EXPORTS, export
from normswap.backends.torch.module.model import ModuleModel
from normswap.backends.values import Feed
from normswap.errors import ModelWriteError
from normswap.files import as_write_error, check_writable, folder_beside

__all__ = ["ModuleWriting", "check_target"]


def check_target(model: ModuleModel, path: str | os.PathLike[str], *, force: bool) -> None:
    """Raise ModelWriteError if the path must not be written, or is of no kind that a module can be written as."""
    suffix = Path(path).suffix
    if suffix not in SUFFIXES and suffix not in EXPORTS:
        raise ModelWriteError(
            f"{path}: expected a file name that ends in {', '.join(SUFFIXES)} (weights) or "
            f"{' or '.join(EXPORTS)} (an export)"
        )
    check_writable(path, (), force=force)


class ModuleWriting:
    """A module on its way to a file, written aside and put in place by ``commit`` or not at all.

    Args:
        model: The converted module.
        path: The file to write; its suffix selects weights or an export.
        force: Replace an existing file.
        feeds: Inputs to trace an export with; the first that the module takes is used.

    Raises:
        ModelWriteError: If the path must not be written, or the exporter fails.
    """

    def __init__(
        self,
        model: ModuleModel,
        path: str | os.PathLike[str],
        *,
        force: bool = False,
        feeds: Sequence[Feed] | None = None,
    ) -> None:
        check_target(model, path, force=force)
        self._model, self._path, self._force, self._feeds = model, Path(path), force, feeds
        self._stack = ExitStack()
        self.exported: Exported | None = None

    def __enter__(self) -> ModuleWriting:
        with as_write_error(self._path), ExitStack() as stack:  # which is closed here if anything is raised
            folder = Path(stack.enter_context(folder_beside(self._path)))
            aside = folder / self._path.name
            self._put: Callable[[], Any] = lambda: os.replace(aside, self._path)
            if self._path.suffix in SUFFIXES:
                write_checkpoint(self._model.module.state_dict(), aside)
                self._stack = stack.pop_all()
                return self
            if self._feeds is None:
                raise ModelWriteError(
                    f"{self._path}: an export is traced with inputs and verified by running it; use "
                    "normswap.convert(model, to, inputs=..., output=...), leave out --no-end-to-end, or write the "
                    "weights"
                )
            self.exported = export(self._model, self._feeds, aside)
            if self._path.suffix == ".onnx":  # whose tensors may lie in a second file
                from normswap.backends import onnx_graph

                placed = onnx_graph.writing(self.exported.model, self._path, force=self._force)
                self._put = stack.enter_context(placed).commit
            self._stack = stack.pop_all()
        return self

    def commit(self) -> Path:
        """Put the file in place; return its path."""
        with as_write_error(self._path):
            check_target(self._model, self._path, force=self._force)
            self._put()
        return self._path

    def __exit__(self, *_: object) -> None:
        self._stack.close()
