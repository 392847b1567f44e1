"""One slip in a graph: another operator, another input, another axis, another number."""

from __future__ import annotations

from random import Random

import numpy as np
import onnx
from onnx import numpy_helper

__all__ = ["slipped"]

_BINARY = ("Add", "Sub", "Mul", "Div", "Max")
_UNARY = ("Sqrt", "Reciprocal", "Neg", "Identity", "Abs")


def slipped(model: onnx.ModelProto, rng: Random) -> onnx.ModelProto:
    """Return a copy with one node changed; it may be no valid model any more."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    nodes = changed.graph.node
    place = rng.randrange(len(nodes))
    node = nodes[place]
    before = [name for earlier in nodes[:place] for name in earlier.output]
    before += [tensor.name for tensor in changed.graph.initializer]
    ways = [_other_operator, _other_axes, _other_number, _turned]
    if before and node.input:
        ways += [lambda node, rng: _other_input(node, rng, before)] * 2
    rng.choice(ways)(node, rng)
    return changed


def _other_operator(node: onnx.NodeProto, rng: Random) -> None:
    for kinds in (_BINARY, _UNARY):
        if node.op_type in kinds:
            node.op_type = rng.choice([kind for kind in kinds if kind != node.op_type])


def _other_input(node: onnx.NodeProto, rng: Random, names: list[str]) -> None:
    node.input[rng.randrange(len(node.input))] = rng.choice(names)


def _other_axes(node: onnx.NodeProto, rng: Random) -> None:
    for attribute in node.attribute:
        if attribute.name == "axes":
            axes = sorted(rng.sample(range(4), rng.randint(1, 3)))
            del attribute.ints[:]
            attribute.ints.extend(axes)


def _other_number(node: onnx.NodeProto, rng: Random) -> None:
    for attribute in node.attribute:
        if attribute.name == "value":
            array = numpy_helper.to_array(attribute.t)
            factor = rng.choice([0, 2, -1]) if array.dtype.kind == "i" else rng.choice([0.0, 2.0, 1.01])
            attribute.t.CopyFrom(numpy_helper.from_array(np.asarray(array * factor, array.dtype)))
        if attribute.name == "epsilon":
            attribute.f *= rng.choice([2.0, 0.5])


def _turned(node: onnx.NodeProto, rng: Random) -> None:
    if len(node.input) == 2:
        node.input[0], node.input[1] = node.input[1], node.input[0]
