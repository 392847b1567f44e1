"""OnnxModel: a graph in memory whose large tensors stay on disk; how it is read."""

from __future__ import annotations

import hashlib
import math
import mmap
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message

from normswap.backends.onnx_graph.graph.wire import INLINE, WireError, lift
from normswap.errors import ModelReadError
from normswap.layer import Array

__all__ = [
    "OnnxModel",
    "Place",
    "copy_of",
    "external_place",
    "load",
    "location_of",
    "read_tensor",
    "set_nodes",
    "tensors_of",
]


@dataclass(frozen=True)
class Place:
    """Where the data of a tensor lie on disk."""

    path: Path
    offset: int
    length: int


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """A model whose large tensors are references into files.

    Attributes:
        proto: The model; tensors of 64 KiB and more may refer to the file that they were read from.
        path: That file; external data are relative to its folder. None for a model made in memory.
        notes: What was done to the model before it was handed out, in words.
        original: The model that this one was made from, if it is not what was read.
    """

    proto: onnx.ModelProto
    path: Path | None = None
    notes: tuple[str, ...] = ()
    original: OnnxModel | None = None

    @property
    def public(self) -> OnnxModel:
        """What a caller gets: the model with its file, if it has one."""
        return self

    @property
    def opset(self) -> int:
        """Version of the default operator set, 1 where none is named."""
        return max((entry.version for entry in self.proto.opset_import if entry.domain in ("", "ai.onnx")), default=1)

    @property
    def folder(self) -> Path:
        """The folder that external data are relative to."""
        return self.path.parent if self.path is not None else Path()

    def sha256(self) -> str:
        """Hash the file that the model was read from, or its encoding where there is none."""
        if self.original is not None:
            return self.original.sha256()
        if self.path is None:
            return hashlib.sha256(self.proto.SerializeToString(deterministic=True)).hexdigest()
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()


def load(path: str | os.PathLike[str]) -> OnnxModel:
    """Read an ``.onnx`` file; tensors of 64 KiB and more stay on disk.

    Raises:
        ModelReadError: If the file is missing, damaged or no model, or if external data are missing, too
            short, or outside the folder of the file.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise ModelReadError(f"{path}: the file is empty; expected an ONNX model")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                proto = onnx.ModelProto.FromString(lift(data))
    except OSError as error:
        raise ModelReadError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (WireError, DecodeError) as error:
        raise ModelReadError(
            f"{path}: expected an ONNX model, found bytes that are not one, or a file that was cut short"
        ) from error
    if not proto.HasField("graph") or proto.ir_version < 1 or not (proto.graph.node or proto.graph.output):
        raise ModelReadError(f"{path}: expected an ONNX model, found a protobuf without a graph")
    if not proto.opset_import and proto.ir_version >= 3:
        raise ModelReadError(f"{path}: the model names no operator set; the file is damaged or was cut short")
    if not _is_text(proto):
        raise ModelReadError(f"{path}: expected an ONNX model, found names that are not UTF-8; the file is damaged")
    model = OnnxModel(proto, path)
    for tensor in tensors_of(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            external_place(model, tensor)
    return model


def copy_of(model: OnnxModel) -> OnnxModel:
    """Copy a model; tensors on disk stay where they are."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    return OnnxModel(proto, model.path, model.notes, model.original)


def set_nodes(field: Any, nodes: Iterable[onnx.NodeProto]) -> None:
    """Replace the content of a repeated field of nodes; ``nodes`` may come out of it."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del field[:]
    field.extend(copies)


def _is_text(message: Message) -> bool:
    """Whether all strings of a message are UTF-8; protobuf hands out the others as bytes."""
    for kind, value in message.ListFields():
        if kind.type not in (kind.TYPE_STRING, kind.TYPE_MESSAGE):
            continue
        for item in [value] if isinstance(value, (str, bytes, Message)) else value:
            if isinstance(item, bytes) or (isinstance(item, Message) and not _is_text(item)):
                return False
    return True


def tensors_of(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of the model: initializers and attributes, subgraphs and functions included."""
    for function in proto.functions:
        yield from _tensors_of_attributes(function.attribute_proto)
        yield from _tensors_of_nodes(function.node)
    yield from _tensors_of_nodes(proto.graph.node)
    yield from _tensors_of_graph_head(proto.graph)


def _tensors_of_graph_head(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices


def _tensors_of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        yield from _tensors_of_attributes(node.attribute)


def _tensors_of_attributes(attributes: Iterable[onnx.AttributeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for graph in (attribute.g, *attribute.graphs):
            yield from _tensors_of_graph_head(graph)
            yield from _tensors_of_nodes(graph.node)


def external_place(model: OnnxModel, tensor: onnx.TensorProto) -> Place:
    """Find the data of an external tensor, and make sure that they are all there and inside the folder.

    Raises:
        ModelReadError: If they are missing, too short, or outside the folder of the model.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    name = f"{model.path or 'the model'}: tensor {tensor.name!r}"
    needed = _bytes_of(tensor, name)
    try:
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", needed))
    except ValueError as error:
        raise ModelReadError(
            f"{name}: the offset or the length of its data is not a number; the file is damaged"
        ) from error
    path = _data_path(model, location, name)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ModelReadError(f"{name}: its data file {location!r} is missing: {error.strerror}") from error
    if not path.is_file():
        raise ModelReadError(f"{name}: its data file {location!r} is not a regular file")
    if length != needed or min(offset, length) < 0:
        raise ModelReadError(f"{name}: expected {needed} bytes of data, the model says {length} at {offset}")
    if offset + length > size:
        raise ModelReadError(
            f"{name}: its data file {location!r} is too short: {offset + length} bytes are needed, it has {size}"
        )
    return Place(path, offset, length)


def location_of(tensor: onnx.TensorProto) -> str:
    """Return the file that an external tensor names, nothing where it names none."""
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def read_tensor(model: OnnxModel, tensor: onnx.TensorProto) -> Array:
    """Read a tensor as an array, from memory or from disk."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        place = external_place(model, tensor)
        loaded = onnx.TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
        with place.path.open("rb") as file:
            file.seek(place.offset)
            loaded.raw_data = file.read(place.length)
        tensor = loaded
    try:
        return np.asarray(onnx.numpy_helper.to_array(tensor))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelReadError(
            f"{model.path or 'the model'}: tensor {tensor.name!r}: its data do not fit its type and shape "
            f"{list(tensor.dims)}: {error}; the file is damaged"
        ) from error


def _data_path(model: OnnxModel, location: str, name: str) -> Path:
    """Find the file that a location means; ``name`` says whose it is."""
    if model.path is None:
        raise ModelReadError(f"{name}: its data are external; give the path of the file instead of the model")
    if location == INLINE:
        return model.path
    path = model.folder / location
    if not location or "\0" in location or os.path.isabs(location) or not _inside(model.folder, path):
        where = "an absolute path" if os.path.isabs(location) else "outside the model's folder"
        raise ModelReadError(
            f"{name}: its data lie in {location!r}, {where}; "
            "move the data into the folder of the model and save the model with a relative location"
        )
    return path


def _inside(folder: Path, path: Path) -> bool:
    """Whether ``path`` lies in ``folder`` once links are followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _bytes_of(tensor: onnx.TensorProto, whose: str) -> int:
    """Number of bytes that a tensor of this type and shape takes; 4-bit types are packed."""
    try:
        name = onnx.TensorProto.DataType.Name(tensor.data_type)
        bits = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2}.get(name)
        if bits is None:
            bits = 8 * np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
    except (KeyError, ValueError, TypeError) as error:
        raise ModelReadError(f"{whose}: unknown element type {tensor.data_type}") from error
    return int(math.prod(tensor.dims) * bits + 7) // 8
