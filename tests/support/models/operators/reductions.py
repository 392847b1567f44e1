"""Cases of operators that reduce dimensions."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from support.models.operators.case import (
    Build,
    Case,
    Draw,
    drawn,
    some_axes,
)

__all__ = ["global_average", "reduction"]


_NOOP = ("ReduceMean", "ReduceSum")


def reduction(op_type: str, since: int) -> Build:
    """A reduction, with its axes as an attribute before a version and as an input from then on."""

    def build(draw: Draw) -> Case:
        case = drawn(draw, positive=True, opsets=(11, 13, 18))
        keep: dict[str, Any] = draw(st.sampled_from([{}, {"keepdims": 0}, {"keepdims": 1}]))
        axes = draw(st.sampled_from([None, some_axes(draw, case.x.ndim)]))
        noop = draw(st.booleans())
        if case.opset < since:
            given: dict[str, Any] = (
                {} if axes is None else {"axes": axes if case.opset > 10 else [a % case.x.ndim for a in axes]}
            )
            case.op(op_type, "x", **keep, **given)
        else:
            names = [] if axes is None else [case.ints("axes", axes)]
            case.op(
                op_type, "x", *names, **keep, noop_with_empty_axes=int(noop and op_type in ("ReduceMean", "ReduceSum"))
            )
        return case

    return build


def global_average(draw: Draw) -> Case:
    case = drawn(draw, 3, 5)
    case.op("GlobalAveragePool", "x")
    return case
