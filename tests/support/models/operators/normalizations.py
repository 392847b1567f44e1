"""Cases of operators that normalize."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from support.models.operators.case import (
    Build,
    Case,
    Draw,
    drawn,
    positives,
    some_axes,
    values_of,
)

__all__ = [
    "batch_normalization",
    "batch_normalization_6",
    "group_normalization",
    "instance_normalization",
    "layer_normalization",
    "mean_variance_normalization",
    "rms_normalization",
]


def _epsilon(draw: Draw) -> dict[str, Any]:
    return {"epsilon": 0.125} if draw(st.booleans()) else {}


def _parameters(draw: Draw, case: Case, count: int, words: tuple[str, ...]) -> list[str]:
    return [case.store(word, positives(draw, (count,)) + 0.1 * len(word)) for word in words]


def batch_normalization(opset: int, *, training: bool) -> Build:
    def build(draw: Draw) -> Case:
        case = drawn(draw, 2, 5)
        case.opset, case.static = opset, draw(st.booleans())
        names = _parameters(draw, case, case.x.shape[1], ("s", "bb", "mmm", "vvvv"))
        given = _epsilon(draw)
        extra: tuple[str, ...] = ()
        if training and opset >= 14:
            given["training_mode"], extra = 1, ("rm", "rv")
        elif training:
            extra = ("rm", "rv", "sm", "sv")
        case.op("BatchNormalization", "x", *names, outputs=("y", *extra), **given)
        return case

    return build


def batch_normalization_6(draw: Draw) -> Case:
    """Of version 6, by the text of the specification: is_test tells its mode, spatial whether channels are whole."""
    case = drawn(draw, 2, 4)
    case.opset, case.static = 6, True
    spatial, test = draw(st.booleans()), draw(st.booleans())
    shape = (case.x.shape[1],) if spatial else case.x.shape[1:]
    s, b, m, v = (positives(draw, shape) for _ in range(4))
    names = [case.store(word, value) for word, value in zip("sbmv", (s, b, m, v), strict=True)]
    case.op("BatchNormalization", "x", *names, is_test=int(test), spatial=int(spatial), epsilon=0.125)
    laid = (-1, *(1,) * (case.x.ndim - 2)) if spatial else shape
    s, b, m, v = (value.reshape(laid) for value in (s, b, m, v))
    x = case.x.astype(np.float64)
    if not test:
        axes = (0, *range(2, x.ndim)) if spatial else (0,)
        m, v = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    case.expected = (x - m) / np.sqrt(v + 0.125) * s + b
    return case


def instance_normalization(draw: Draw) -> Case:
    case = drawn(draw, 3, 5)
    names = _parameters(draw, case, case.x.shape[1], ("s", "bb"))
    case.op("InstanceNormalization", "x", *names, **_epsilon(draw))
    return case


def layer_normalization(draw: Draw) -> Case:
    case = drawn(draw, 2, 4)
    case.static = True
    axis = draw(st.integers(-case.x.ndim, case.x.ndim - 1))
    shape = case.x.shape[axis % case.x.ndim :]
    names = [case.store("s", positives(draw, shape)), case.store("b", positives(draw, shape))]
    names = names[: draw(st.integers(1, 2))]
    case.op("LayerNormalization", "x", *names, axis=axis, epsilon=0.125)
    return case


def group_normalization(opset: int) -> Build:
    def build(draw: Draw) -> Case:
        case = drawn(draw, 3, 4)
        groups, inner = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        shape = (case.x.shape[0], groups * inner, *case.x.shape[2:])
        case.x, case.opset, case.static = values_of(draw, shape), opset, True
        count = groups if opset < 21 else groups * inner
        names = _parameters(draw, case, count, ("s", "bb"))
        case.op("GroupNormalization", "x", *names, num_groups=groups, epsilon=0.125)
        laid = (1, groups, 1, 1) if opset < 21 else (1, groups, inner, 1)
        x = case.x.astype(np.float64).reshape(shape[0], groups, inner, -1)
        centred = x - x.mean((2, 3), keepdims=True)
        y = centred / np.sqrt(x.var((2, 3), keepdims=True) + 0.125)
        y = y * case.stored["s"].reshape(laid) + case.stored["bb"].reshape(laid)
        case.expected = y.reshape(shape) if opset < 21 else None  # which ONNX Runtime computes as version 21
        return case

    return build


def mean_variance_normalization(draw: Draw) -> Case:
    case = drawn(draw, 4, 4)
    given: dict[str, Any] = {"axes": sorted(some_axes(draw, 4))} if draw(st.booleans()) else {}
    if "axes" in given:
        given["axes"] = sorted({axis % 4 for axis in given["axes"]})
    case.op("MeanVarianceNormalization", "x", **given)
    return case


def rms_normalization(draw: Draw) -> Case:
    """By the text of the specification."""
    case = drawn(draw, 2, 4)
    case.opset, case.static = 23, True
    axis = draw(st.integers(-case.x.ndim, case.x.ndim - 1))
    shape = case.x.shape[axis % case.x.ndim :]
    case.op("RMSNormalization", "x", case.store("s", positives(draw, shape)), axis=axis, epsilon=0.125)
    x = case.x.astype(np.float64)
    over = tuple(range(axis % x.ndim, x.ndim))
    case.expected = x / np.sqrt((x * x).mean(over, keepdims=True) + 0.125) * case.stored["s"]
    return case
