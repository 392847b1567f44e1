"""Write a file whole or not at all, and never over what it came from."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from normswap.errors import ModelWriteError

__all__ = ["as_write_error", "check_folder", "check_writable", "folder_beside"]


def check_writable(path: str | os.PathLike[str], sources: Iterable[Path], *, force: bool) -> None:
    """Raise ModelWriteError if the path must not be written: a folder, one of the sources, or an existing file."""
    named_as_folder = os.fspath(path).endswith(("/", os.sep))
    path = Path(path)
    if named_as_folder:
        raise ModelWriteError(f"{path}: is a folder; give the name of the file to write")
    check_folder(path)
    with as_write_error(path):
        if not path.exists():
            return
        if any(path.samefile(source) for source in sources):
            raise ModelWriteError(
                f"{path}: is part of the model being converted, which is never overwritten; name another"
            )
        if not force:
            raise ModelWriteError(f"{path}: exists already; replace it with --force")


def check_folder(path: Path) -> None:
    """Raise ModelWriteError if no file of that name can be: its folder is missing, or it is a folder itself."""
    with as_write_error(path):
        if path.is_dir():
            raise ModelWriteError(f"{path}: is a folder; give the name of the file to write")
        if not path.parent.is_dir():
            raise ModelWriteError(f"{path}: the folder {path.parent} does not exist; make it first")


def folder_beside(path: Path) -> tempfile.TemporaryDirectory[str]:
    """Make a temporary folder on the file system of ``path``, from which a file can be renamed to it."""
    # The class, not mkdtemp: it also goes if an interrupt comes before anybody removes it.
    return tempfile.TemporaryDirectory(prefix=".normswap-", dir=path.parent, ignore_cleanup_errors=True)


@contextmanager
def as_write_error(path: Path) -> Iterator[None]:
    """Turn the system's errors into one that says which file could not be written."""
    try:
        yield
    except OSError as error:
        raise ModelWriteError(f"{path}: cannot be written: {error.strerror or error}") from error
