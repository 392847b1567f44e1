"""A spool: arrays put aside in a temporary file in one pass over data, and read again in the next."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from types import TracebackType

import numpy as np

from normswap.errors import CannotRunError
from normswap.layer import Array

__all__ = ["Spool"]


class Spool:
    """Dictionaries of arrays, first in first out; memory does not grow with them, and the file goes with the process.

    Arrays of types that numpy does not know (bfloat16) come back as float32, which holds them.

    Raises:
        CannotRunError: By any method, if the file cannot be written.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 as __exit__ closes it
        self._names: list[tuple[str, ...]] = []
        self._read = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def put(self, arrays: Mapping[str, Array]) -> None:
        """Put arrays aside."""
        try:
            for array in arrays.values():
                known = array.dtype.kind != "V"
                np.lib.format.write_array(self._file, array if known else array.astype(np.float32), allow_pickle=False)
        except OSError as error:
            raise CannotRunError(
                f"outputs to compare with could not be stored in {tempfile.gettempdir()}: {error.strerror}; "
                "free space there, or set TMPDIR to another folder"
            ) from error
        self._names.append(tuple(arrays))

    def get(self) -> dict[str, Array]:
        """Return what was put aside first of what was not yet returned; nothing more can be put aside then."""
        if not self._read:
            self._file.seek(0)
        names = self._names[self._read]
        self._read += 1
        return {name: np.lib.format.read_array(self._file, allow_pickle=False) for name in names}
