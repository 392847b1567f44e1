"""Cases of operators that compute with shapes."""

from __future__ import annotations

from hypothesis import strategies as st
from onnx import TensorProto

from support.models.operators.case import (
    Build,
    Case,
    Draw,
    drawn,
)

__all__ = ["count_by", "shape_part"]


def count_by(op_type: str) -> Build:
    """X divided by a number of its elements that operators on its shape compute."""

    def build(draw: Draw) -> Case:
        case = drawn(draw, 2, 4)
        rank = case.x.ndim
        shape = case.op("Shape", "x", out="shape")
        if op_type == "Size":
            count = case.op("Size", "x", out="count")
        elif op_type == "Slice":
            start = draw(st.integers(-rank - 1, rank - 1))
            end = draw(st.integers(-rank - 1, 9))
            kept = shape
            step = draw(st.sampled_from([1, 2, -1]))
            length = len(range(rank)[start:end:step])
            if not length or (step < 0 and not -rank <= start < rank) or (step < 0 and end < -rank):
                start, end, step = 0, rank, 1
            names = [
                case.ints(word, [value])
                for word, value in zip(("a", "b", "axes", "step"), (start, end, 0, step), strict=True)
            ]
            kept = case.op("Slice", shape, *names, out="part")
            count = case.op("ReduceProd", kept, out="count", keepdims=0)
        elif op_type == "Concat":
            first = case.op("Gather", shape, case.ints("i", [draw(st.integers(-rank, rank - 1))]), out="first")
            both = case.op("Concat", first, case.ints("three", [3]), out="both", axis=0)
            count = case.op("ReduceProd", both, out="count", keepdims=0)
        elif op_type == "ReduceSum":
            count = case.op("ReduceSum", shape, out="count", keepdims=0)
        elif op_type == "Div":
            whole = case.op("Size", "x", out="whole")
            count = case.op("Div", whole, case.op("Gather", shape, case.ints("i", 1), out="one"), out="count")
        else:
            index = draw(
                st.lists(st.integers(-rank, rank - 1), min_size=1, max_size=rank, unique_by=lambda i: i % rank)
            )
            picked = case.op("Gather", shape, case.ints("i", index), out="picked")
            count = case.op("ReduceProd", picked, out="count", keepdims=0)
        case.op("Div", "x", case.op("Cast", count, out="real", to=TensorProto.FLOAT))
        return case

    return build


def shape_part(draw: Draw) -> Case:
    case = drawn(draw, 2, 4)
    start = draw(st.integers(0, case.x.ndim - 1))
    part = case.op("Shape", "x", out="part", start=start)
    count = case.op("ReduceProd", part, out="count", keepdims=0)
    case.op("Mul", "x", case.op("Cast", count, out="real", to=TensorProto.FLOAT))
    return case
