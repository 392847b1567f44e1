"""Write a model: tensors are copied from file to file, and the target appears whole or not at all."""

from __future__ import annotations

import os
import re
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import onnx

from normswap.backends.onnx_graph.graph.model import OnnxModel, copy_of, external_place, load, location_of, tensors_of
from normswap.backends.onnx_graph.graph.wire import INLINE, FileRange, expand, reference
from normswap.backends.protocols import Exported
from normswap.errors import ModelReadError, ModelWriteError
from normswap.files import as_write_error, check_writable, folder_beside

__all__ = ["GraphWriting", "check_target", "write_model"]

_ALIGNMENT = 64 * 1024  # external data keep their alignment up to this, the coarsest that mmap asks for
_BLOCK = 32 << 20


class GraphWriting:
    """A model on its way to a file: written aside from the start, put in place by ``commit`` or not at all.

    The copying runs while the caller does other work, into a temporary folder next to the target; ``commit`` renames,
    the data first. External data go to one file next to the model, named after it.

    Args:
        model: What to write.
        path: The file to write.
        force: Replace an existing file.

    Raises:
        ModelWriteError: If the target is the model's own source, exists and ``force`` is not given, or cannot be
            written.
    """

    exported: Exported | None = None  # the bytes of the verified model are copied as they are

    def __init__(self, model: OnnxModel, path: str | os.PathLike[str], *, force: bool = False) -> None:
        check_target(model, path, force=force)
        self._model, self._force = model, force
        self._path = Path(path)
        self._data = _free_data_path(self._path)
        self._stop = threading.Event()

    def __enter__(self) -> GraphWriting:
        with as_write_error(self._path):
            self._folder = folder_beside(self._path)
        self._pool = ThreadPoolExecutor(1)
        self._written = self._pool.submit(
            write_model,
            self._model,
            Path(self._folder.name) / self._path.name,
            data_name=self._data.name,
            stop=self._stop,
        )
        return self

    def commit(self) -> Path:
        """Wait for the copying and put the files in place; return the path of the model."""
        with as_write_error(self._path):
            written = self._written.result()
            check_target(self._model, self._path, force=self._force)  # the copying may have taken a while
            replaced = _data_of(self._path)
            _move(written, self._path, self._data)
            for data in replaced - {self._data}:
                data.unlink(missing_ok=True)
        return self._path

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()
        self._folder.cleanup()


def _data_of(path: Path) -> set[Path]:
    """Find the data files that the model about to be replaced has to itself, as far as their names tell."""
    if not path.exists():
        return set()
    try:
        old = load(path)
    except ModelReadError:  # whatever it is, it is not known to own anything
        return set()
    names = {location_of(tensor) for tensor in tensors_of(old.proto)}
    own = re.compile(rf"{re.escape(path.name)}(\.\d+)?\.data")
    return {path.with_name(name) for name in names if own.fullmatch(name)}


def _move(written: Path, path: Path, data: Path) -> None:
    """Rename the model to ``path``, its external data first, so that a model there always has its data."""
    written_data = written.with_name(data.name)
    external = written_data.exists()
    try:
        if external:
            os.replace(written_data, data)
        os.replace(written, path)
    except BaseException:  # an interrupt too
        if external and not written_data.exists() and written.exists():
            data.unlink()
        raise


def write_model(
    model: OnnxModel, path: Path, *, data_name: str | None = None, stop: threading.Event | None = None
) -> Path:
    """Write the model to ``path`` and its external data to ``data_name`` in the same folder; return ``path``.

    What is written once ``stop`` is set is of no use.
    """
    stop = stop or threading.Event()
    data_name = data_name or f"{path.name}.data"
    proto = copy_of(model).proto
    copies = _place_external(model, proto, data_name)
    if copies:
        with (path.parent / data_name).open("wb") as out:
            for source, start, length, target in copies:
                out.seek(target)
                with source.open("rb") as file:
                    _copy(file, start, length, out, stop)
    with path.open("wb") as out:
        if model.path is None:
            out.write(proto.SerializeToString())
            return path
        with model.path.open("rb") as file:
            for chunk in expand(proto.SerializeToString()):
                if isinstance(chunk, FileRange):
                    _copy(file, chunk.offset, chunk.length, out, stop)
                else:
                    out.write(chunk)
    return path


def _place_external(model: OnnxModel, proto: onnx.ModelProto, data_name: str) -> list[tuple[Path, int, int, int]]:
    """Point external tensors of ``proto`` into the new data file.

    Returns:
        What to copy there: source, start, length, and start in the new file. Neighbours are merged, so that
        a whole data file is one copy; what no tensor of this model names is left behind.
    """
    tensors = defaultdict(list)
    for tensor in tensors_of(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL and location_of(tensor) != INLINE:
            place = external_place(model, tensor)
            tensors[place.path].append((place.offset, place.length, tensor))
    copies: list[tuple[Path, int, int, int]] = []
    for path, entries in tensors.items():
        entries.sort(key=lambda entry: entry[:2])
        stop: int | None = None  # of the run being collected, in the source
        for offset, length, tensor in entries:
            if stop is None or offset - stop >= _ALIGNMENT:
                end = copies[-1][3] + copies[-1][2] if copies else 0
                copies.append((path, offset, 0, _aligned(end, offset)))
                stop = offset
            stop = max(stop, offset + length)
            source, start, _, target = copies[-1]
            copies[-1] = (source, start, stop - start, target)
            del tensor.external_data[:]
            tensor.external_data.extend(reference(data_name, target + offset - start, length).external_data)
    return copies


def _aligned(end: int, offset: int) -> int:
    """Return the first position from ``end`` on that is aligned as ``offset`` is."""
    return end + (offset - end) % _ALIGNMENT


def _copy(source: IO[bytes], offset: int, length: int, target: IO[bytes], stop: threading.Event) -> None:
    """Copy bytes from file to file, inside the kernel where it can."""
    target.flush()
    position = target.tell()
    while length and not stop.is_set():
        try:
            done = os.copy_file_range(source.fileno(), target.fileno(), min(length, _BLOCK), offset, position)
        except (AttributeError, OSError):  # another platform, or two file systems
            source.seek(offset)
            done = target.write(source.read(min(length, _BLOCK)))
            target.flush()
        if not done:
            raise ModelWriteError(f"{source.name}: the file grew shorter while it was copied; convert again")
        offset, position, length = offset + done, position + done, length - done
        target.seek(position)


def check_target(model: OnnxModel, path: str | os.PathLike[str], *, force: bool) -> None:
    """Raise ModelWriteError if the path must not be written: a folder, the source, or an existing file."""
    check_writable(path, _sources(model), force=force)


def _sources(model: OnnxModel) -> set[Path]:
    """Return the files that the model was read from: its own and those of its external data."""
    if model.path is None:
        return set()
    external = (t for t in tensors_of(model.proto) if t.data_location == onnx.TensorProto.EXTERNAL)
    files = {model.path, *(model.folder / location_of(tensor) for tensor in external)}
    return {file for file in files if file.exists()}


def _free_data_path(path: Path) -> Path:
    """Name the data file; one that exists may belong to a model that is still whole, so it is left alone."""
    data, number = path.with_name(f"{path.name}.data"), 1
    while os.path.lexists(data):
        data, number = path.with_name(f"{path.name}.{number}.data"), number + 1
    return data
