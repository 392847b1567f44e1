"""Values of a tensor as bytes, wherever they are stored, and what a tensor says besides its values."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from normswap.backends.onnx_graph.graph.model import OnnxModel, Place, external_place, read_tensor

__all__ = ["bare", "bytes_of", "place_of"]

_BLOCK = 4 << 20


def bare(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """What a tensor says besides its values: names, documentation, metadata."""
    bare = onnx.TensorProto(name=tensor.name, doc_string=tensor.doc_string)
    bare.metadata_props.extend(tensor.metadata_props)
    return bare


def place_of(model: OnnxModel, tensor: onnx.TensorProto) -> Place | None:
    """Return where a tensor lies on disk, None where it is part of the model."""
    external = tensor.data_location == onnx.TensorProto.EXTERNAL
    return external_place(model, tensor) if external else None


def bytes_of(model: OnnxModel, tensor: onnx.TensorProto, place: Place | None) -> Iterator[bytes]:
    """Yield the values as bytes, in blocks of one size whatever their storage."""
    if place is None:
        data = tensor.raw_data or read_tensor(model, tensor).tobytes()
        for start in range(0, max(len(data), 1), _BLOCK):
            yield data[start : start + _BLOCK]
        return
    with place.path.open("rb") as file:
        file.seek(place.offset)
        left = place.length
        while left > 0 or left == place.length:
            yield file.read(min(left, _BLOCK))
            left -= _BLOCK
