"""Compare two ONNX models outside planned layers, and make wrong conversions of right ones.

Both work on the protobufs alone and share no code with what they judge.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper

from support.oracles.float64_graphs import Layer

__all__ = ["bit_flipped", "differences", "eps_changed", "swapped"]

Body: TypeAlias = tuple[str, ...]
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def differences(before: onnx.ModelProto, after: onnx.ModelProto, planned: list[Layer]) -> list[str]:
    """Say what differs outside the planned layers; unread statistics of theirs may be gone."""
    found = [] if _shell(before) == _shell(after) else ["the model's own fields differ"]
    old, new = dict(_codes(before)), dict(_codes(after))
    if list(old) != list(new):
        return [*found, f"codes {list(old)} became {list(new)}"]
    for body in old:
        nodes = {layer.node.output[0]: layer.node for layer in planned if layer.body == body}
        everywhere = {layer.node.SerializeToString() for layer in planned}
        found += [f"{body}: {said}" for said in _code_differences(old[body], new[body], nodes, everywhere)]
    return found


def eps_changed(model: onnx.ModelProto, layer: Layer, eps: float) -> bool:
    """Write another eps into the operators of a converted layer; False where none is written."""
    for node in _region(model, layer):
        if node.op_type in ("InstanceNormalization", "BatchNormalization"):
            _set(node, "epsilon", helper.make_attribute("epsilon", eps))
            return True
        if node.op_type != "Constant":
            continue
        given = node.attribute[0]
        if given.ref_attr_name:
            _set(node, given.name, helper.make_attribute("value_float", eps))
            return True
        if given.t.data_type in _FLOATS and not given.t.dims:
            old = numpy_helper.to_array(given.t)
            given.t.CopyFrom(numpy_helper.from_array(np.asarray(eps, old.dtype)))
            return True
    return False


def swapped(model: onnx.ModelProto, layer: Layer) -> bool:
    """Let the operators of a converted layer read scale where they read bias, and bias where scale."""
    scale, bias = layer.node.input[1:3]
    other = {scale: bias, bias: scale}
    for node in _region(model, layer):
        node.input[:] = [other.get(name, name) for name in node.input]
    return True


def bit_flipped(model: onnx.ModelProto, choice: int) -> bool:
    """Change one tensor by the lowest bit of its first element; False where there is none."""
    tensors = [t for _, code in _codes(model) for t in getattr(code, "initializer", ()) if np.prod(t.dims) > 0]
    if not tensors:
        return False
    tensor = tensors[choice % len(tensors)]
    if tensor.raw_data:
        tensor.raw_data = bytes([tensor.raw_data[0] ^ 1]) + tensor.raw_data[1:]
    else:
        tensor.float_data[0] = float(np.nextafter(np.float32(tensor.float_data[0]), np.float32(9)))
    return True


def _shell(model: onnx.ModelProto) -> onnx.ModelProto:
    shell = onnx.ModelProto()
    shell.CopyFrom(model)
    shell.ClearField("graph")
    shell.ClearField("functions")
    kept = [entry for entry in model.metadata_props if entry.key != "normswap"]
    del shell.metadata_props[:]
    shell.metadata_props.extend(kept)
    return shell


def _codes(model: onnx.ModelProto) -> Iterator[tuple[Body, Any]]:
    """Yield the main graph, the functions and all subgraphs, by what Layer.body calls them."""
    yield from _nested((), model.graph)
    for function in model.functions:
        yield from _nested((function.domain, function.name), function)


def _nested(body: Body, code: Any) -> Iterator[tuple[Body, Any]]:
    yield body, code
    for node in code.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nested((*body, f"{node.output[0]}:{attribute.name}"), attribute.g)


def _code_differences(old: Any, new: Any, planned: dict[str, onnx.NodeProto], everywhere: set[bytes]) -> Iterator[str]:
    if _bare(old, "node", "initializer", "value_info") != _bare(new, "node", "initializer", "value_info"):
        yield "fields differ"
    was = {node.output[0] for node in old.node}
    now = {node.output[0] for node in new.node}
    kept = [_without_subgraphs(node) for node in old.node if node.output[0] in now - planned.keys()]
    same = [_without_subgraphs(node) for node in new.node if node.output[0] in was - planned.keys()]
    if kept != same:
        yield "nodes differ"
    yield from _tensor_differences(old, new)
    fresh = [node for node in new.node if node.output[0] not in was or node.output[0] in planned]
    known = {name for node in fresh for name in node.output}
    known |= {name for node in planned.values() for name in node.input}
    if strange := {name for node in fresh for name in node.input} - known:
        yield f"new nodes read {strange}"
    if lost := planned.keys() - now:
        yield f"layers {lost} are gone"
    gone = {name for node in old.node if node.output[0] not in now for name in node.output}
    gone |= _names(old, "initializer") - _names(new, "initializer")
    for name in gone:
        if not _served(old, name, gone, everywhere):
            yield f"{name} is gone"
    yield from _type_differences(old, new, gone | {n for node in planned.values() for n in node.output[1:]})


def _tensor_differences(old: Any, new: Any) -> Iterator[str]:
    left = _names(new, "initializer")
    if [t for t in getattr(old, "initializer", ()) if t.name in left] != list(getattr(new, "initializer", ())):
        yield "initializers differ"


def _type_differences(old: Any, new: Any, gone: set[str]) -> Iterator[str]:
    before, after = list(getattr(old, "value_info", ())), list(getattr(new, "value_info", ()))
    if not all(value in before for value in after):
        yield "a declared type is new or differs"
    if lost := {value.name for value in before} - {value.name for value in after} - gone:
        yield f"the declared types of {lost} are gone"


def _served(code: Any, name: str, gone: set[str], planned: set[bytes]) -> bool:
    """Whether a value was read, and only as the statistics of planned layers or by what is gone with it."""
    if name in {out if isinstance(out, str) else out.name for out in code.output}:
        return False
    readers = [node for _, inner in _nested((), code) for node in inner.node if name in node.input]
    return bool(readers) and all(
        node.output[0] in gone or (node.SerializeToString() in planned and name not in node.input[:3])
        for node in readers
    )


def _names(code: Any, kind: str) -> set[str]:
    return {value.name for value in getattr(code, kind, ())}


def _bare(message: Any, *fields: str) -> Any:
    copied = type(message)()
    copied.CopyFrom(message)
    for name in fields:
        if name in copied.DESCRIPTOR.fields_by_name:
            copied.ClearField(name)
    return copied


def _without_subgraphs(node: onnx.NodeProto) -> onnx.NodeProto:
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    for attribute in copied.attribute:
        attribute.ClearField("g")
    return copied


def _region(model: onnx.ModelProto, layer: Layer) -> list[onnx.NodeProto]:
    """The operators that compute a converted layer from the inputs of its original."""
    code = dict(_codes(model))[layer.body]
    producers = {name: node for node in code.node for name in node.output}
    pending, seen, found = [layer.node.output[0]], set(layer.node.input), []
    while pending:
        name = pending.pop()
        if name and name not in seen and name in producers:
            seen.add(name)
            found.append(producers[name])
            pending += producers[name].input
    return found


def _set(node: onnx.NodeProto, name: str, attribute: onnx.AttributeProto) -> None:
    others = [given for given in node.attribute if given.name != name]
    del node.attribute[:]
    node.attribute.extend([*others, attribute])
