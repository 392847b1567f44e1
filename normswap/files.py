"""Files: written whole or not at all, and never over what they came from; and words that name a factory instead."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from normswap.errors import ModelWriteError

if sys.platform != "win32":  # where what a killed run has left stays
    import fcntl

__all__ = ["as_write_error", "check_folder", "check_writable", "folder_beside", "is_factory", "write_whole"]

_PREFIX = ".normswap-"
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def is_factory(model: str) -> bool:
    """Whether a word names a factory, ``package.module:name``, and not a file that exists."""
    return _FACTORY.fullmatch(model) is not None and not Path(model).exists()


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
    """Make a temporary folder on the file system of ``path``, from which a file can be renamed to it.

    Those of runs that were killed there are removed: a run holds a lock on its own for as long as it lives.
    """
    _remove_left(path.parent)
    while True:
        # The class, not mkdtemp: it also goes if an interrupt comes before anybody removes it.
        folder = tempfile.TemporaryDirectory(prefix=_PREFIX, dir=path.parent, ignore_cleanup_errors=True)
        try:
            lock = _locked(folder.name)
        except BlockingIOError:  # another run took it for a left one, before it was locked
            continue
        if lock is not None:
            weakref.finalize(folder, os.close, lock)
        if os.path.isdir(folder.name):
            return folder


def _remove_left(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}{'[a-z0-9_]' * 8}"):
        with suppress(OSError):
            lock = _locked(str(folder))
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _locked(folder: str) -> int | None:
    """Lock a folder and return what holds the lock; None where the system has no such locks.

    Raises:
        BlockingIOError: If another process holds it.
    """
    if sys.platform == "win32":
        return None
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(opened)
        raise
    except OSError:
        os.close(opened)
        return None
    return opened


@contextmanager
def as_write_error(path: Path) -> Iterator[None]:
    """Turn the system's errors into one that says which file could not be written."""
    try:
        yield
    except OSError as error:
        raise ModelWriteError(f"{path}: cannot be written: {error.strerror or error}") from error


def write_whole(path: Path, text: str) -> None:
    """Write text to a file, whole or not at all; a file of that name is replaced.

    Raises:
        ModelWriteError: If it cannot be written.
    """
    with as_write_error(path), folder_beside(path) as folder:
        aside = Path(folder) / path.name
        aside.write_text(text, encoding="utf-8", newline="\n")
        os.replace(aside, path)
