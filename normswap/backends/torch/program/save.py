"""Write a program to a .pt2 file, whole or not at all."""

from __future__ import annotations

import os
import warnings
from contextlib import ExitStack
from pathlib import Path

import torch

from normswap.backends.protocols import Exported
from normswap.backends.torch.program.model import ProgramModel, load
from normswap.errors import ModelReadError, ModelWriteError, first_line
from normswap.files import as_write_error, check_writable, folder_beside

__all__ = ["ProgramWriting", "check_target"]

_SUFFIX = ".pt2"


def check_target(model: ProgramModel, path: str | os.PathLike[str], *, force: bool) -> None:
    """Raise ModelWriteError if the path must not be written: a folder, the source, or an existing file."""
    check_writable(path, () if model.path is None or not model.path.exists() else (model.path,), force=force)
    if Path(path).suffix != _SUFFIX:
        raise ModelWriteError(f"{path}: expected a file name that ends in {_SUFFIX}, which exported programs have")


class ProgramWriting:
    """A program on its way to a file: written aside, put in place by ``commit`` or not at all.

    Args:
        model: What to write.
        path: The file to write.
        force: Replace an existing file.

    Raises:
        ModelWriteError: If the target is the program's own source, exists and ``force`` is not given, or cannot be
            written.
    """

    def __init__(
        self,
        model: ProgramModel,
        path: str | os.PathLike[str],
        *,
        force: bool = False,
    ) -> None:
        check_target(model, path, force=force)
        self._model, self._path, self._force = model, Path(path), force
        self.exported: Exported | None = None

    def __enter__(self) -> ProgramWriting:
        with as_write_error(self._path), ExitStack() as stack:  # which is closed here if anything is raised
            self._aside = Path(stack.enter_context(folder_beside(self._path))) / self._path.name
            _write(self._model, self._aside)
            try:
                # Torch writes a program anew, so that it is the file that has to be run.
                self.exported = Exported(load(self._aside))
            except ModelReadError as error:
                raise ModelWriteError(f"{self._path}: what torch wrote cannot be read back: {error}") from error
            self._stack = stack.pop_all()
        return self

    def commit(self) -> Path:
        """Put the file in place; return its path."""
        with as_write_error(self._path):
            check_target(self._model, self._path, force=self._force)  # verifying may have taken a while
            os.replace(self._aside, self._path)
        return self._path

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _write(model: ProgramModel, path: Path) -> None:
    """Write a program to a file that nobody else knows of.

    Raises:
        ModelWriteError: If torch cannot serialize it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, about its TreeSpecs
            torch.export.save(model.program, path)
    except OSError:
        raise
    except Exception as error:  # custom operators and classes that torch cannot serialize
        raise ModelWriteError(
            f"{path.name}: torch cannot serialize this program: {type(error).__name__}: {first_line(error)}"
        ) from error
