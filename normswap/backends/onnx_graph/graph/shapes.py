"""Element types and shapes of a model's values, by onnx's own shape inference, as far as it comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import ml_dtypes  # noqa: F401  # gives NumPy the name bfloat16
import numpy as np
import onnx
import onnx.shape_inference

from normswap.backends.onnx_graph.graph.model import OnnxModel
from normswap.layer import Dim

__all__ = ["Types", "dims_of", "element_of", "infer_call_types", "infer_types", "spelled"]

Path: TypeAlias = tuple[str, ...]


class Types:
    """Inferred types, by the path of the graph and the name of the value."""

    def __init__(self, by_path: Mapping[Path, Mapping[str, onnx.TypeProto]], root: int = 0) -> None:
        self._by_path = by_path
        self._root = root

    def get(self, path: Path, name: str) -> onnx.TypeProto | None:
        """Return the type of a value in the graph at ``path``, None where it is unknown."""
        found = self._by_path.get(path[self._root :], {}).get(name)
        return found if found is not None and found.HasField("tensor_type") else None


def infer_types(proto: onnx.ModelProto, root: int = 0) -> Types:
    """Infer the types of all values in the main graph and its subgraphs; what fails is left unknown."""
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except Exception:  # a broken or exotic model: what the file itself declares is still known
        inferred = proto
    by_path: dict[Path, dict[str, onnx.TypeProto]] = {}
    _collect(inferred.graph, (), by_path)
    return Types(by_path, root)


def infer_call_types(
    model: OnnxModel,
    function: onnx.FunctionProto,
    inputs: Sequence[onnx.TypeProto | None],
    attributes: Mapping[str, onnx.AttributeProto],
    root: int,
) -> Types:
    """Infer the types inside one call of a local function, given those of its arguments.

    ``root`` is the length of the call's own path: paths in the result begin there.
    """
    graph = onnx.GraphProto(name=function.name)
    for name, known in zip(function.input, inputs, strict=False):
        if known is not None:
            graph.input.add(name=name).type.CopyFrom(known)
    for node in function.node:
        copied = graph.node.add()
        copied.CopyFrom(node)
        for attribute in copied.attribute:
            bound = attributes.get(attribute.ref_attr_name)
            if bound is not None:
                name = attribute.name
                attribute.CopyFrom(bound)
                attribute.name = name
    body = onnx.ModelProto(ir_version=model.proto.ir_version, graph=graph)
    body.opset_import.extend(function.opset_import)
    body.functions.extend(model.proto.functions)
    return infer_types(body, root)


def _collect(graph: onnx.GraphProto, path: Path, into: dict[Path, dict[str, onnx.TypeProto]]) -> None:
    into[path] = {
        value.name: value.type for value in (*graph.value_info, *graph.output, *graph.input) if value.HasField("type")
    }
    for node in graph.node:
        owner = next((name for name in node.output if name), "") or node.name
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _collect(attribute.g, (*path, f"{owner}:{attribute.name}"), into)
            for index, inner in enumerate(attribute.graphs):
                _collect(inner, (*path, f"{owner}:{attribute.name}[{index}]"), into)


def dims_of(known: onnx.TypeProto | None) -> tuple[Dim, ...] | None:
    """Read a shape: integers where static, the symbol or None where not; None for an unknown rank."""
    if known is None or not known.tensor_type.HasField("shape"):
        return None
    dims: list[Dim] = []
    for dim in known.tensor_type.shape.dim:
        if dim.HasField("dim_value") and dim.dim_value >= 0:
            dims.append(int(dim.dim_value))
        else:
            invented = dim.dim_param.startswith("unk__")  # by shape inference
            dims.append(None if invented else dim.dim_param or None)
    return tuple(dims)


def spelled(known: onnx.TypeProto | None) -> str | None:
    """Spell the element type as NumPy and ml_dtypes do (``float32``, ``bfloat16``), None where unknown."""
    element = known.tensor_type.elem_type if known is not None else 0
    if not element:
        return None
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(element))
    except (KeyError, ValueError):
        return None


def element_of(dtype: str) -> int:
    """Return ONNX's number of an element type that NumPy or ml_dtypes spells so."""
    return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
