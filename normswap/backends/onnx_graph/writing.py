"""Nodes under construction: what the end-to-end witness puts in the place of a layer, with arithmetic of scalars."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from normswap.backends.onnx_graph.graph.shapes import element_of

__all__ = ["Nodes", "Number", "name_of"]


class Nodes:
    """A list of nodes whose new values are named after the layer."""

    def __init__(self, label: str) -> None:
        self.list: list[onnx.NodeProto] = []
        self.label = label

    def op(self, op_type: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add an operator and return the name of its output."""
        output = output or f"{self.label}/witness/{len(self.list)}"
        self.list.append(onnx.helper.make_node(op_type, inputs, [output], **attributes))
        return output

    def constant(self, values: Any, dtype: Any) -> str:
        """Add a constant."""
        return self.op("Constant", value=onnx.numpy_helper.from_array(np.asarray(values, dtype)))

    def cast(self, name: str, dtype: str, output: str = "") -> str:
        """Add a Cast."""
        return self.op("Cast", name, output=output, to=element_of(dtype))


class Number:
    """A scalar of the graph under construction, for the arithmetic of a formula's weights."""

    def __init__(self, nodes: Nodes, name: str, dtype: str) -> None:
        self.nodes, self.name, self.dtype = nodes, name, dtype

    def _op(self, op_type: str, one: Number | float, other: Number | float) -> Number:
        names = (name_of(self.nodes, value, self.dtype) for value in (one, other))
        return Number(self.nodes, self.nodes.op(op_type, *names), self.dtype)

    def __add__(self, other: Number | float) -> Number:
        return self._op("Add", self, other)

    def __sub__(self, other: Number | float) -> Number:
        return self._op("Sub", self, other)

    def __mul__(self, other: Number | float) -> Number:
        return self._op("Mul", self, other)

    def __truediv__(self, other: Number | float) -> Number:
        return self._op("Div", self, other)

    def __radd__(self, other: float) -> Number:
        return self._op("Add", other, self)

    def __rsub__(self, other: float) -> Number:
        return self._op("Sub", other, self)

    def __rmul__(self, other: float) -> Number:
        return self._op("Mul", other, self)

    def __rtruediv__(self, other: float) -> Number:
        return self._op("Div", other, self)


def name_of(nodes: Nodes, value: Number | float, dtype: str) -> str:
    """Return the name of a scalar; a number becomes a constant."""
    return value.name if isinstance(value, Number) else nodes.constant([value], dtype)
