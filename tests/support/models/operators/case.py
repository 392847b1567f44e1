"""Case: a small graph around one ONNX operator, and how its shapes and numbers are drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

__all__ = ["OPSET", "Build", "Case", "Draw", "broadcast", "drawn", "positives", "shape_of", "some_axes", "values_of"]

Draw: TypeAlias = Callable[[Any], Any]
OPSET = 17


@dataclass
class Case:
    """A graph from x to y.

    Attributes:
        x: The input.
        nodes: Its nodes.
        stored: Its initializers.
        opset: Version of the operator set.
        static: Whether the lengths of x are declared.
        expected: What y is, where ONNX Runtime has no such version of the operator.
    """

    x: Any
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    stored: dict[str, Any] = field(default_factory=dict)
    opset: int = OPSET
    static: bool = False
    expected: Any = None

    def op(self, op_type: str, *inputs: str, out: str = "y", outputs: tuple[str, ...] = (), **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op_type, inputs, outputs or [out], **attributes))
        return (outputs or (out,))[0]

    def store(self, name: str, values: Any, dtype: Any = np.float32) -> str:
        self.stored[name] = np.asarray(values, dtype)
        return name

    def ints(self, name: str, values: Any) -> str:
        return self.store(name, values, np.int64)

    @property
    def model(self) -> onnx.ModelProto:
        dims = list(self.x.shape) if self.static else [f"d{i}" for i in range(self.x.ndim)]
        graph = helper.make_graph(
            self.nodes,
            "case",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(array, name) for name, array in self.stored.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)


Build: TypeAlias = Callable[[Draw], Case]


def values_of(draw: Draw, shape: tuple[int, ...]) -> Any:
    """Draw numbers away from zero; their seed is drawn, so that they shrink with the shape alone."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    return (rng.uniform(0.5, 2, shape) * rng.choice([-1, 1], shape)).astype(np.float32)


def positives(draw: Draw, shape: tuple[int, ...]) -> Any:
    return np.abs(values_of(draw, shape))


def shape_of(draw: Draw, low: int = 1, high: int = 4) -> tuple[int, ...]:
    rank = draw(st.integers(low, high))
    return tuple(draw(st.integers(2, 4)) for _ in range(rank))


def drawn(draw: Draw, low: int = 1, high: int = 4, *, positive: bool = False, opsets: tuple[int, ...] = ()) -> Case:
    shape = shape_of(draw, low, high)
    opset = draw(st.sampled_from(opsets or (OPSET,)))
    return Case((positives if positive else values_of)(draw, shape), opset=opset, static=draw(st.booleans()))


def broadcast(draw: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Draw a shape that broadcasts against another and is no longer."""
    kept = shape[draw(st.integers(0, len(shape))) :]
    return tuple(length if draw(st.booleans()) else 1 for length in kept)


def some_axes(draw: Draw, rank: int) -> list[int]:
    axes = draw(st.lists(st.integers(0, rank - 1), min_size=1, max_size=rank, unique=True))
    return [axis - rank if draw(st.booleans()) else axis for axis in axes]
