"""Cases of operators that work element by element."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from onnx import TensorProto

from support.models.operators.case import (
    OPSET,
    Build,
    Case,
    Draw,
    broadcast,
    drawn,
    positives,
    values_of,
)

__all__ = [
    "binary",
    "cast",
    "clip",
    "dropout",
    "extreme",
    "legacy",
    "negated_condition",
    "power",
    "unary",
    "where",
    "where_constant",
]


from collections.abc import Callable


def binary(op_type: str, *, positive: bool = False, opset: int = OPSET, bool_result: bool = False) -> Build:
    def build(draw: Draw) -> Case:
        case = drawn(draw, positive=positive)
        case.opset = opset
        case.static = True  # an axis of unknown length might be 1 and broadcast itself
        other = case.store("p", positives(draw, broadcast(draw, case.x.shape)))
        inputs = ["x", other] if draw(st.booleans()) else [other, "x"]
        if bool_result:
            case.op("Where", case.op(op_type, *inputs, out="c"), "x", case.store("zero", 0.0))
        else:
            case.op(op_type, *inputs)
        return case

    return build


def legacy(op_type: str, compute: Callable[[Any, Any], Any]) -> Build:
    """An operator before version 7, whose second input is laid along an axis: by the text of the specification."""

    def build(draw: Draw) -> Case:
        case = drawn(draw, 2)
        case.opset, case.static = 6, True
        rank = case.x.ndim
        axis = draw(st.integers(0, rank - 1))
        length = draw(st.integers(1, rank - axis))
        p = positives(draw, case.x.shape[axis : axis + length])
        given = {"axis": axis} if axis + length < rank or draw(st.booleans()) else {}
        case.op(op_type, "x", case.store("p", p), broadcast=1, **given)
        case.expected = compute(case.x, p.reshape(p.shape + (1,) * (rank - axis - length)))
        return case

    return build


def unary(op_type: str, *, positive: bool = False, opsets: tuple[int, ...] = ()) -> Build:
    def build(draw: Draw) -> Case:
        case = drawn(draw, positive=positive, opsets=opsets)
        case.op(op_type, "x")
        return case

    return build


def power(draw: Draw) -> Case:
    case = drawn(draw, positive=True)
    case.op("Pow", "x", case.store("p", draw(st.sampled_from([-2, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3]))))
    return case


def extreme(op_type: str) -> Build:
    def build(draw: Draw) -> Case:
        case = drawn(draw)
        case.static = True
        more = [
            case.store(f"p{i}", values_of(draw, broadcast(draw, case.x.shape))) for i in range(draw(st.integers(1, 2)))
        ]
        case.op(op_type, "x", *more)
        return case

    return build


def clip(draw: Draw) -> Case:
    case = drawn(draw, opsets=(6, 11, 13))
    low, high = draw(st.sampled_from([(None, 0.7), (-0.7, None), (-0.8, 0.9), (None, None)]))
    if case.opset < 11:
        attributes: dict[str, Any] = {name: value for name, value in (("min", low), ("max", high)) if value is not None}
        case.opset = 10
        case.op("Clip", "x", **attributes)
    else:
        names = ["" if value is None else case.store(word, value) for word, value in (("low", low), ("high", high))]
        case.op("Clip", "x", *names)
    return case


def negated_condition(draw: Draw) -> Case:
    case = drawn(draw)
    positive = case.op("Greater", "x", case.store("zero", 0.0), out="c")
    case.op("Where", case.op("Not", positive, out="n"), "x", case.store("half", 0.5))
    return case


def where(draw: Draw) -> Case:
    case = drawn(draw)
    case.static = True
    positive = case.op("Less", "x", case.store("p", values_of(draw, broadcast(draw, case.x.shape))), out="c")
    case.op("Where", positive, "x", case.store("half", 0.5))
    return case


def where_constant(draw: Draw) -> Case:
    case = drawn(draw)
    case.op("Where", case.store("c", draw(st.booleans()), bool), "x", case.store("half", 0.5))
    return case


def cast(draw: Draw) -> Case:
    case = drawn(draw)
    case.op("Cast", case.op("Cast", "x", out="d", to=TensorProto.DOUBLE), to=TensorProto.FLOAT)
    return case


def dropout(draw: Draw) -> Case:
    case = drawn(draw, opsets=(7, 10, 12, 13))
    given: dict[str, Any] = {"ratio": 0.5} if case.opset < 12 else {}
    case.op("Dropout", "x", **given)
    return case
