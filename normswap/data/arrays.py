"""Arrays in .npy and .npz files, read some samples at a time, so that memory does not grow with the file."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from normswap.errors import DataError
from normswap.layer import Array

__all__ = ["SUFFIXES", "Stored", "members_of", "read_stored"]

SUFFIXES = (".npz", ".npy")


@dataclass(frozen=True)
class Stored:
    """One array in a file, of which the header was read.

    Attributes:
        path: The file.
        member: Its member in an .npz file, empty for an .npy file.
        shape: The first axis is samples, or the array is one sample.
        dtype: Of its elements, in the byte order of the file.
    """

    path: Path
    member: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    def slices(self, samples: int) -> Iterator[Array]:
        """Yield so many samples at a time; the last slice has what is left.

        Raises:
            DataError: If the file is damaged.
        """
        with _trouble_in(self.path), _opened(self.path, self.member) as stream:
            _read_header(stream)
            for start in range(0, self.shape[0], samples):
                array = np.empty((min(samples, self.shape[0] - start), *self.shape[1:]), self.dtype)
                _fill(stream, array)
                yield array

    def whole(self) -> Array:
        """Read all of it, which is one sample.

        Raises:
            DataError: If the file is damaged.
        """
        with _trouble_in(self.path), _opened(self.path, self.member) as stream:
            _read_header(stream)
            array = np.empty(self.shape, self.dtype)
            _fill(stream, array)
            return array


def members_of(path: Path) -> dict[str, tuple[str, int]]:
    """List the members of a file and their sizes in bytes, by array name; names are empty for an .npy file.

    Raises:
        DataError: If it is not such a file.
    """
    with _trouble_in(path):
        if path.suffix.lower() == ".npy":
            return {"": ("", path.stat().st_size)}
        with zipfile.ZipFile(path) as archive:
            return {info.filename.removesuffix(".npy"): (info.filename, info.file_size) for info in archive.infolist()}


def read_stored(path: Path, member: str, size: int) -> Stored:
    """Read the header of an array, and hold the size of the file to it.

    Raises:
        DataError: If it is none, is damaged, or holds pickled objects.
    """
    with _trouble_in(path), _opened(path, member) as stream:
        shape, fortran, dtype = _read_header(stream)
        left = size - stream.tell()
    what = f"{path}: {member.removesuffix('.npy')!r}" if member else str(path)
    if dtype.hasobject:
        raise DataError(f"{what}: expected numbers, found pickled objects, which are not loaded; save plain arrays")
    if fortran and sum(extent > 1 for extent in shape) > 1:
        raise DataError(
            f"{what}: expected samples one after the other, found Fortran order, in which every sample is spread over "
            "the whole file; save np.ascontiguousarray of it"
        )
    expected = math.prod(shape) * dtype.itemsize
    if left != expected:
        raise DataError(
            f"{what}: expected {expected} bytes for {'x'.join(map(str, shape))} of {dtype.name}, found {left}; "
            "the file is damaged, write it again"
        )
    return Stored(path, member, shape, dtype)


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Read what comes before the elements: shape, whether in Fortran order, and type."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise ValueError(f"version {version[0]}.{version[1]} of the format, which is for structured arrays alone")


def _fill(stream: IO[bytes], array: Array) -> None:
    """Read an array's bytes into it; a stream may give fewer at a time than are asked for."""
    rest = array.reshape(-1).view(np.uint8).data
    while rest:
        read = stream.readinto(rest)  # type: ignore[attr-defined]  # binary streams have it, IO[bytes] does not say so
        if not read:
            raise ValueError(f"it ends {len(rest)} bytes too early")
        rest = rest[read:]


@contextmanager
def _opened(path: Path, member: str) -> Iterator[IO[bytes]]:
    if not member:
        with path.open("rb") as file:
            yield file
    else:
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            yield file


@contextmanager
def _trouble_in(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path}: expected an {path.suffix.lower()} file: {str(error) or 'it is damaged'}") from error
