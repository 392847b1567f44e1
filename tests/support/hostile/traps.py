"""Traps: what nobody writes into a model by accident, and what a reader of models should be ready for."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import TypeAlias

import onnx
from google.protobuf.message import Message
from hypothesis import strategies as st

__all__ = ["FLOATS", "INTEGERS", "STRINGS", "TRAPS", "copy_of", "heads", "messages_in"]

Draw: TypeAlias = st.DrawFn

INTEGERS = (
    0, 1, -1, 2, 3, 7, 255, 4096, 1 << 16, (1 << 31) - 1, -(1 << 31), 1 << 32, 10**12, 1 << 62,
    (1 << 63) - 1, -(1 << 63),
)  # fmt: skip
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-12, 1e30, 3.4e38, math.inf, -math.inf, math.nan)
STRINGS = (
    "", "\0", "a\nb", "\x1b[2J\x1b]0;t\x07", "::error::b", "[red]{0}%s%n", "é\u202e\U0001f600", "/etc/hostname",
    "/dev/zero", "/dev/stdin", "/proc/self/mem", "../../other/secret.data", "../other/secret.data", "sub", ".",
    "normswap:inline", "data.bin", "ai.onnx", "ai.onnx.ml", "com.microsoft", "x" * 5000,
)  # fmt: skip
_DATA_KEYS = ("location", "offset", "length", "checksum")


def heads(draw: Draw) -> bool:
    """Toss a coin."""
    return draw(st.booleans())


def messages_in(message: Message) -> list[Message]:
    found = [message]
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for inner in [value] if isinstance(value, Message) else value:
                found += messages_in(inner)
    return found


def copy_of(message: Message) -> Message:
    copied = type(message)()
    copied.CopyFrom(message)
    return copied


def _nodes_of(model: onnx.ModelProto, op_type: str = "") -> list[onnx.NodeProto]:
    found = [message for message in messages_in(model) if isinstance(message, onnx.NodeProto)]
    return [node for node in found if node.op_type == op_type] or found


def _tensors_of(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    return [message for message in messages_in(model) if isinstance(message, onnx.TensorProto)]


def _cycle(draw: Draw, model: onnx.ModelProto) -> None:
    """Let a node read what comes of it, perhaps by way of others."""
    nodes = [node for node in _nodes_of(model) if node.input and node.output]
    if nodes:
        node, later = draw(st.sampled_from(nodes)), draw(st.sampled_from(nodes))
        node.input[draw(st.integers(0, len(node.input) - 1))] = later.output[0]


def _rewire(draw: Draw, model: onnx.ModelProto) -> None:
    """Let a BatchNormalization read any value in the place of a parameter."""
    nodes = [node for node in _nodes_of(model, "BatchNormalization") if node.input]
    names = sorted({name for node in _nodes_of(model) for name in (*node.input, *node.output)})
    if nodes and names:
        node = draw(st.sampled_from(nodes))
        node.input[draw(st.integers(0, len(node.input) - 1))] = draw(st.sampled_from(names))


def _claim(draw: Draw, model: onnx.ModelProto) -> None:
    """Claim dimensions that the data do not have, up to far more than memory."""
    tensors = _tensors_of(model)
    if tensors:
        tensor = draw(st.sampled_from(tensors))
        tensor.dims[:] = draw(st.lists(st.sampled_from(INTEGERS), min_size=0, max_size=4))
        if heads(draw):
            tensor.ClearField("raw_data")


def _place(draw: Draw, model: onnx.ModelProto) -> None:
    """Move the data of a tensor to a file elsewhere."""
    tensors = _tensors_of(model)
    if not tensors:
        return
    tensor = draw(st.sampled_from(tensors))
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    tensor.external_data.add(key="location", value=draw(st.sampled_from(STRINGS)))
    for key in draw(st.lists(st.sampled_from(_DATA_KEYS), max_size=3)):
        value = draw(st.one_of(st.sampled_from(INTEGERS).map(str), st.sampled_from(("", "x", "1e3", " 4", "٣"))))
        tensor.external_data.add(key=key, value=value)


def _parameter(draw: Draw, model: onnx.ModelProto) -> None:
    """Give a tensor values that arithmetic cannot take, another type, or no channels."""
    tensors = [tensor for tensor in _tensors_of(model) if tensor.data_type == onnx.TensorProto.FLOAT]
    if not tensors:
        return
    tensor = draw(st.sampled_from(tensors))
    if heads(draw):
        count = len(tensor.raw_data) // 4
        tensor.raw_data = struct.pack("<f", draw(st.sampled_from(FLOATS))) * count
    elif heads(draw):
        tensor.dims[:] = [0]
        for name in ("raw_data", "float_data"):
            tensor.ClearField(name)
    else:
        tensor.data_type = draw(st.integers(0, 30))


def _epsilon(draw: Draw, model: onnx.ModelProto) -> None:
    for node in _nodes_of(model, "BatchNormalization"):
        kept = [attribute for attribute in node.attribute if attribute.name != "epsilon"]
        del node.attribute[:]
        node.attribute.extend(kept)
        value = draw(st.sampled_from((*FLOATS, 3, "text", [1.0])))
        node.attribute.append(onnx.helper.make_attribute("epsilon", value))


def _shape(draw: Draw, model: onnx.ModelProto) -> None:
    """Declare another shape or type of an input or an output."""
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    if not values:
        return
    value = draw(st.sampled_from(values))
    if draw(st.integers(0, 3)) == 0:
        value.type.tensor_type.elem_type = draw(st.integers(0, 30))
        return
    value.type.tensor_type.shape.ClearField("dim")
    for _ in range(draw(st.integers(0, 6))):
        dim = value.type.tensor_type.shape.dim.add()
        if heads(draw):
            dim.dim_value = draw(st.sampled_from(INTEGERS))
        else:
            dim.dim_param = draw(st.sampled_from(("", "N", "a\nb", "\0")))


def _deep(draw: Draw, model: onnx.ModelProto) -> None:
    """Nest branches of If in one another, or call functions from functions, about as far down as a protobuf may go."""
    depth = draw(st.sampled_from((3, 10, 20, 30)))
    graph = onnx.GraphProto(name="deepest")
    graph.node.add(op_type="Identity", input=[_some_value(model)], output=["deep"])
    graph.output.add(name="deep")
    nested = heads(draw)
    for _ in range(depth if nested else 1):
        outer = onnx.GraphProto(name="deep")
        node = outer.node.add(op_type="If", input=[_some_value(model)], output=["deep"])
        for branch in ("then_branch", "else_branch"):
            node.attribute.add(name=branch, type=onnx.AttributeProto.GRAPH).g.CopyFrom(graph)
            graph = onnx.GraphProto(name="empty")
        outer.output.add(name="deep")
        graph = outer
    model.graph.node.extend(graph.node)


def _some_value(model: onnx.ModelProto) -> str:
    return next((value.name for value in model.graph.input), "x")


def _calls(draw: Draw, model: onnx.ModelProto) -> None:
    """Add functions that call one another: themselves, in a ring, or each the next one several times over."""
    count, times = draw(st.sampled_from(((1, 1), (2, 1), (5, 1), (30, 2), (60, 1), (20, 3), (100, 1), (1000, 1))))
    ring = heads(draw)
    for index in range(count):
        function = model.functions.add(name=f"f{index}", domain="trap", input=["a"], output=["b"])
        function.opset_import.add(domain="", version=17)
        function.opset_import.add(domain="trap", version=1)
        following = f"f{index + 1}" if index + 1 < count else ("f0" if ring else "")
        value = "a"
        for step in range(times):
            name = "b" if step + 1 == times else f"v{step}"
            if following:
                function.node.add(op_type=following, domain="trap", input=[value], output=[name])
            else:
                function.node.add(op_type="Neg", input=[value], output=[name])
            value = name
    model.opset_import.add(domain="trap", version=1)
    nodes = [node for node in model.graph.node if node.input]
    called = onnx.NodeProto(op_type="f0", domain="trap", input=[_some_value(model)], output=["trapped"])
    if nodes and heads(draw):
        draw(st.sampled_from(nodes)).input[0] = "trapped"
    model.graph.node.insert(0, called)


def _chain(draw: Draw, model: onnx.ModelProto) -> None:
    """Compute a parameter by a long row of operators, or branch by branch anew."""
    nodes = [node for node in _nodes_of(model, "BatchNormalization") if len(node.input) > 4]
    if not nodes:
        return
    node = draw(st.sampled_from(nodes))
    place = draw(st.integers(1, 4))
    op_type = draw(st.sampled_from(("Identity", "Neg", "Add", "Cast")))
    value, made = node.input[place], []
    for index in range(draw(st.sampled_from((10, 400, 3000)))):
        step = onnx.NodeProto(op_type=op_type, input=[value], output=[f"chain{index}"])
        if op_type == "Add":
            step.input.append(value)
        if op_type == "Cast":
            step.attribute.append(onnx.helper.make_attribute("to", draw(st.sampled_from((1, 10, 11)))))
        made.append(step)
        value = step.output[0]
    node.input[place] = value
    kept = [copy_of(inner) for inner in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend([*made, *kept])


def _hungry(draw: Draw, model: onnx.ModelProto) -> None:
    """Compute a parameter, or a value on the way, from a tensor that is small in the file and huge in memory."""
    nodes = [node for node in _nodes_of(model, "BatchNormalization") if len(node.input) > 4]
    dims = draw(st.lists(st.sampled_from((1 << 10, 1 << 20, 1 << 31, 1 << 40)), min_size=1, max_size=3))
    shape = onnx.helper.make_tensor("hungry/shape", onnx.TensorProto.INT64, [len(dims)], dims)
    made = [onnx.helper.make_node("Constant", [], ["hungry/shape"], value=shape)]
    match draw(st.sampled_from(("ConstantOfShape", "Expand", "RandomNormal", "Range"))):
        case "ConstantOfShape":
            made.append(onnx.helper.make_node("ConstantOfShape", ["hungry/shape"], ["hungry"]))
        case "Expand":
            made.append(onnx.helper.make_node("Expand", [_some_value(model), "hungry/shape"], ["hungry"]))
        case "RandomNormal":
            made.append(onnx.helper.make_node("RandomNormal", [], ["hungry"], shape=dims))
        case "Range":
            for name, value in (("from", 0.0), ("to", 1e15), ("step", 1e-3)):
                tensor = onnx.helper.make_tensor(name, onnx.TensorProto.FLOAT, [], [value])
                made.append(onnx.helper.make_node("Constant", [], [f"hungry/{name}"], value=tensor))
            made.append(onnx.helper.make_node("Range", ["hungry/from", "hungry/to", "hungry/step"], ["hungry"]))
    if nodes and heads(draw):
        draw(st.sampled_from(nodes)).input[draw(st.integers(0, 4))] = "hungry"
    else:
        model.graph.output.add(name="hungry").type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    kept = [copy_of(inner) for inner in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend([*made, *kept])


def _endless(draw: Draw, model: onnx.ModelProto) -> None:
    """Add a Loop that is never done, or not in this life."""
    value = _some_value(model)
    body = onnx.parser.parse_graph(
        "body (int64 i, bool going, float v) => (bool on, float w) { on = Identity (going) w = Neg (v) }"
    )
    trips = onnx.helper.make_tensor("", onnx.TensorProto.INT64, [], [draw(st.sampled_from((0, 1000, (1 << 63) - 1)))])
    going = onnx.helper.make_tensor("", onnx.TensorProto.BOOL, [], [1])
    start = onnx.helper.make_tensor("", onnx.TensorProto.FLOAT, [], [1.0])
    made = [
        onnx.helper.make_node("Constant", [], ["endless/trips"], value=trips),
        onnx.helper.make_node("Constant", [], ["endless/going"], value=going),
        onnx.helper.make_node("Constant", [], ["endless/start"], value=start),
        onnx.helper.make_node("Loop", ["endless/trips", "endless/going", "endless/start"], ["endless"], body=body),
    ]
    readers = [node for node in model.graph.node if value in node.input]
    if readers and heads(draw):
        reader = draw(st.sampled_from(readers))
        made.append(onnx.helper.make_node("Add", [value, "endless"], ["endless/sum"]))
        reader.input[list(reader.input).index(value)] = "endless/sum"
    else:
        model.graph.output.add(name="endless").type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    kept = [copy_of(inner) for inner in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend([*made, *kept])


def _unnamed(draw: Draw, model: onnx.ModelProto) -> None:
    """Give a node outputs without names, of which a BatchNormalization in train mode has two more."""
    nodes = _nodes_of(model, "BatchNormalization")
    if nodes:
        node = draw(st.sampled_from(nodes))
        node.output.extend([""] * draw(st.sampled_from((1, 2, 4))))
        if heads(draw):
            node.attribute.append(onnx.helper.make_attribute("training_mode", 1))


def _versions(draw: Draw, model: onnx.ModelProto) -> None:
    for entry in model.opset_import:
        if heads(draw):
            entry.version = draw(st.sampled_from((*range(1, 30), *INTEGERS)))
        if draw(st.integers(0, 9)) == 0:
            entry.domain = draw(st.sampled_from(("", "ai.onnx", "ai.onnx.ml", "trap")))
    if heads(draw):
        model.ir_version = draw(st.sampled_from((*range(16), *INTEGERS)))


TRAPS: dict[str, Callable[[Draw, onnx.ModelProto], None]] = {
    "nodes in a circle": _cycle,
    "parameters rewired": _rewire,
    "sizes that are not there": _claim,
    "data elsewhere": _place,
    "values of no use": _parameter,
    "an epsilon of any kind": _epsilon,
    "other shapes": _shape,
    "subgraphs in subgraphs": _deep,
    "functions of functions": _calls,
    "a long way to a parameter": _chain,
    "huge values": _hungry,
    "a loop without an end": _endless,
    "outputs without names": _unnamed,
    "versions of any kind": _versions,
}
