"""Hypothesis strategies: model files that were damaged, byte by byte or in their structure, some of them on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import onnx
from google.protobuf.message import Message
from hypothesis import strategies as st

from support.hostile.traps import FLOATS, INTEGERS, STRINGS, TRAPS, copy_of, heads, messages_in

__all__ = ["damaged_bytes", "damaged_model"]

Draw: TypeAlias = st.DrawFn


# Bytes, whatever they mean.


@st.composite
def damaged_bytes(draw: Draw, files: Sequence[bytes]) -> bytes:
    """Draw one of the files with bytes changed, cut, doubled, left out or spliced with those of another."""
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 4, 16)))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        length = min(draw(st.sampled_from((1, 2, 4, 8, 64, 1024))), len(data) - at)
        match draw(st.sampled_from(("bit", "bit", "byte", "set", "cut", "remove", "repeat", "splice"))):
            case "bit":
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "byte":
                data[at] = draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF)))
            case "set":
                data[at : at + length] = bytes([draw(st.sampled_from((0, 0x20, 0xFF)))]) * length
            case "cut":
                del data[at:]
            case "remove":
                del data[at : at + length]
            case "repeat":
                data[at:at] = data[at : at + length] * draw(st.sampled_from((1, 3, 100)))
            case "splice":
                other = draw(st.sampled_from(files))
                data[at:] = other[draw(st.integers(0, len(other))) :]
    return bytes(data)


# The structure of a protobuf, by its own description: whatever field there is can be hit.


@st.composite
def damaged_model(draw: Draw, original: onnx.ModelProto, donors: Sequence[onnx.ModelProto]) -> bytes:
    """Draw a model with fields changed, messages left out, doubled or taken from others, or with a trap built in."""
    model = onnx.ModelProto()
    model.CopyFrom(original)
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 3)))):
        if draw(st.integers(0, 9)) < 3:
            TRAPS[draw(st.sampled_from(sorted(TRAPS)))](draw, model)
        else:
            _change_a_field(draw, model, draw(st.sampled_from(donors)))
    return bytes(model.SerializeToString())


def _change_a_field(draw: Draw, model: onnx.ModelProto, donor: onnx.ModelProto) -> None:
    kinds: dict[str, list[Message]] = {}
    for message in messages_in(model):
        kinds.setdefault(message.DESCRIPTOR.name, []).append(message)
    kind = draw(st.sampled_from(sorted(kinds)))  # by kind, so that a model of a hundred nodes is not all nodes
    message = draw(st.sampled_from(kinds[kind]))
    fields = [field for field in message.DESCRIPTOR.fields if field.name != "metadata_props"]
    present = [field for field, _ in message.ListFields()]
    any_field = draw(st.integers(0, 3)) == 0
    field = draw(st.sampled_from(fields if any_field or not present else present))
    if isinstance(getattr(message, field.name), (str, bytes, int, float)):
        setattr(message, field.name, _scalar(draw, field, getattr(message, field.name), model))
    elif isinstance(getattr(message, field.name), Message):
        _change_a_message(draw, message, field, donor)
    else:
        _change_a_list(draw, getattr(message, field.name), field, model, donor)


def _scalar(draw: Draw, field: Any, value: Any, model: onnx.ModelProto) -> Any:
    match field.type:
        case field.TYPE_STRING:
            names = sorted({name for node in model.graph.node for name in (*node.input, *node.output, node.op_type)})
            return draw(st.sampled_from((*STRINGS, *names[:100])))
        case field.TYPE_BYTES:
            return draw(st.one_of(st.just(value[:-1]), st.just(value + b"\0"), st.just(b""), damaged_bytes([value])))
        case field.TYPE_FLOAT | field.TYPE_DOUBLE:
            return draw(st.sampled_from(FLOATS))
        case field.TYPE_ENUM:
            return draw(st.sampled_from([number.number for number in field.enum_type.values]))
        case _:
            low, high = (-(1 << 31), (1 << 31) - 1) if field.type == field.TYPE_INT32 else (-(1 << 63), (1 << 63) - 1)
            if field.type == field.TYPE_UINT64:
                low, high = 0, (1 << 64) - 1
            near = value + draw(st.sampled_from((-1, 1)))
            return min(max(draw(st.sampled_from((near, near, *INTEGERS))), low), high)


def _change_a_message(draw: Draw, owner: Message, field: Any, donor: onnx.ModelProto) -> None:
    others = [other for other in messages_in(donor) if other.DESCRIPTOR is field.message_type]
    if others and heads(draw):
        getattr(owner, field.name).CopyFrom(draw(st.sampled_from(others)))
    else:
        owner.ClearField(field.name)


def _change_a_list(draw: Draw, items: Any, field: Any, model: onnx.ModelProto, donor: onnx.ModelProto) -> None:
    what = draw(st.sampled_from(("remove", "double", "change", "insert", "reverse", "clear")))
    at = draw(st.integers(0, len(items) - 1)) if len(items) else None
    if what == "clear":
        del items[:]
    elif what == "remove" and at is not None:
        del items[at]
    elif field.type == field.TYPE_MESSAGE:
        copies = [copy_of(item) for item in items]
        if what == "double" and at is not None:
            copies.insert(draw(st.integers(0, len(items))), copies[at])
        elif what == "reverse":
            copies.reverse()
        else:
            others = [other for other in messages_in(donor) if other.DESCRIPTOR is field.message_type]
            if others:
                copies.insert(draw(st.integers(0, len(items))), copy_of(draw(st.sampled_from(others))))
        del items[:]
        items.extend(copies)
    else:
        values = list(items)
        empty = {field.TYPE_STRING: "", field.TYPE_BYTES: b""}.get(field.type, 0)
        new = _scalar(draw, field, values[at] if at is not None else empty, model)
        if what == "change" and at is not None:
            values[at] = new
        elif what == "reverse":
            values.reverse()
        elif what == "double" and at is not None:
            values.append(values[at])
        else:
            values.insert(draw(st.integers(0, len(values))), new)
        del items[:]
        items.extend(values)
