"""Cases of operators that lay a tensor out anew."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from support.models.operators.case import (
    Case,
    Draw,
    drawn,
    values_of,
)

__all__ = [
    "expand",
    "flatten",
    "reshape",
    "reshape_split",
    "reshape_to_shape",
    "squeeze",
    "tile",
    "transpose",
    "unsqueeze",
]


def transpose(draw: Draw) -> Case:
    case = drawn(draw, 3)
    given = {"perm": draw(st.permutations(range(case.x.ndim)))} if draw(st.booleans()) else {}
    case.op("Transpose", "x", **given)
    return case


def squeeze(draw: Draw) -> Case:
    case = drawn(draw, opsets=(11, 13))
    places = sorted(draw(st.lists(st.integers(0, case.x.ndim), min_size=1, max_size=2, unique=True)))
    for place in places:
        case.x = np.expand_dims(case.x, place)
    case.static = True
    given = [place - case.x.ndim if draw(st.booleans()) else place for place in places]
    if draw(st.booleans()):
        case.op("Squeeze", "x")
    elif case.opset < 13:
        case.op("Squeeze", "x", axes=given)
    else:
        case.op("Squeeze", "x", case.ints("axes", given))
    return case


def unsqueeze(draw: Draw) -> Case:
    case = drawn(draw, opsets=(11, 13))
    count = draw(st.integers(1, 3))
    rank = case.x.ndim + count
    axes = draw(st.lists(st.integers(0, rank - 1), min_size=count, max_size=count, unique=True))
    given = [axis - rank if draw(st.booleans()) else axis for axis in axes]
    if case.opset < 13:
        case.op("Unsqueeze", "x", axes=given)
    else:
        case.op("Unsqueeze", "x", case.ints("axes", given))
    return case


def reshape(draw: Draw) -> Case:
    """Merge neighbours, by lengths, by zeros, by -1."""
    case = drawn(draw, 2, 4)
    shape = case.x.shape
    start = draw(st.integers(0, len(shape) - 2))
    end = draw(st.integers(start + 2, len(shape)))
    kept = [0] * start if draw(st.booleans()) or not case.static else list(shape[:start])
    case.static = case.static or end < len(shape)
    ones = [1] * draw(st.integers(0, 2))
    case.op("Reshape", "x", case.ints("to", [*kept, -1, *ones, *shape[end:]]))
    return case


def reshape_split(draw: Draw) -> Case:
    case = drawn(draw, 1, 3)
    place = draw(st.integers(0, case.x.ndim - 1))
    parts = draw(st.integers(2, 3)), draw(st.integers(2, 3))
    shape = (*case.x.shape[:place], parts[0] * parts[1], *case.x.shape[place + 1 :])
    case.x, case.static = values_of(draw, shape), True
    split = case.op("Reshape", "x", case.ints("to", [*shape[:place], *parts, *shape[place + 1 :]]), out="s")
    case.op("ReduceMean", split, axes=[draw(st.sampled_from([place, place + 1]))])
    return case


def reshape_to_shape(draw: Draw) -> Case:
    """There and back, by the shape of x."""
    case = drawn(draw, 2, 4)
    flat = case.op("Reshape", "x", case.ints("to", [0, -1]), out="flat")
    scaled = case.op("Sub", flat, case.op("ReduceMean", flat, out="m", axes=[1]), out="d")
    case.op("Reshape", scaled, case.op("Shape", "x", out="shape"))
    return case


def flatten(draw: Draw) -> Case:
    case = drawn(draw)
    given = {"axis": draw(st.integers(-case.x.ndim, case.x.ndim))} if draw(st.booleans()) else {}
    case.op("Flatten", "x", **given)
    return case


def expand(draw: Draw) -> Case:
    case = drawn(draw, 2)
    place = draw(st.integers(0, case.x.ndim - 1))
    m = case.op("ReduceMean", "x", out="m", axes=[place])
    case.op("Sub", "x", case.op("Expand", m, case.op("Shape", "x", out="shape"), out="e"))
    return case


def tile(draw: Draw) -> Case:
    case = drawn(draw, 1, 3)
    case.op("Tile", "x", case.ints("times", [draw(st.integers(1, 3)) for _ in case.x.shape]))
    return case
