"""Rules of operators that normalize, written with the arithmetic that their specification gives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from normswap.algebra.errors import AxisSplitError, UnreadableError
from normswap.algebra.expressions import HALF, Expr
from normswap.algebra.layouts import aligned
from normswap.algebra.means import mean, variance
from normswap.algebra.operator import Operator
from normswap.algebra.substitution import renamed
from normswap.algebra.values import Constant, Layout, Tensor, Value, exact

__all__ = [
    "batch_normalization",
    "group_normalization",
    "instance_normalization",
    "is_training",
    "layer_normalization",
    "mean_variance_normalization",
    "rms_normalization",
]

_DEFAULT_EPSILON = float(np.float32(1e-5))  # attributes are float32, and runtimes take the default as one
_MVN_EPSILON = 1e-9  # which MeanVarianceNormalization adds to the deviation


def _epsilon(operator: Operator) -> Expr:
    return Expr.number(exact(float(np.float32(operator.attribute("epsilon", _DEFAULT_EPSILON)))))


def _parameter(operator: Operator, index: int) -> Tensor:
    """Return a vector that is a parameter, as such even where it holds one number."""
    value = operator.value(index)
    if isinstance(value, Constant) and value.array.ndim == 1 and value.array.size == 1:
        return Tensor(operator.axes.tensor(value).expr, ((),))
    return operator.tensor(index)


def _along_channels(operator: Operator, index: int, rank: int) -> Tensor:
    """Lay a vector along the second dimension."""
    vector = _parameter(operator, index)
    if vector.rank != 1:
        raise UnreadableError(f"a parameter of rank {vector.rank}")
    return Tensor(vector.expr, (vector.layout[0], *((),) * (rank - 2)))


def _affine(operator: Operator, x: Tensor, m: Tensor, v: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    """Return (x - m) / sqrt(v + eps) * scale + bias."""
    (value, centre), layout = aligned(operator.axes, x, m)
    y = Tensor(value - centre, layout)
    spread = Tensor((v.expr + _epsilon(operator)) ** -HALF, v.layout)
    y = _combined(operator, y, spread, lambda a, b: a * b)
    y = y if scale is None else _combined(operator, y, scale, lambda a, b: a * b)
    return y if bias is None else _combined(operator, y, bias, lambda a, b: a + b)


def _combined(operator: Operator, one: Tensor, two: Tensor, compute: Callable[[Expr, Expr], Expr]) -> Tensor:
    (left, right), layout = aligned(operator.axes, one, two)
    if len(layout) > one.rank:
        raise UnreadableError("a parameter of more dimensions than x")
    return Tensor(compute(left, right), layout)


def _own(
    operator: Operator, x: Tensor, over: frozenset[str], scale: Tensor | None, bias: Tensor | None, layout: Layout
) -> Tensor:
    """Normalize x with its own mean and biased variance; ``layout`` is theirs."""
    m, v = Tensor(mean(x.expr, over), layout), Tensor(variance(x.expr, over), layout)
    return _affine(operator, x, m, v, scale, bias)


def _axes_in(layout: Layout) -> frozenset[str]:
    return frozenset(axis for group in layout for axis in group)


def is_training(operator: Operator) -> bool:
    """Whether a BatchNormalization takes the statistics of the batch."""
    if operator.opset >= 14:
        return bool(operator.attribute("training_mode", 0))
    if operator.opset >= 7:
        return operator.outputs > 1
    return not operator.attribute("is_test", 0)


def batch_normalization(operator: Operator) -> Value:
    """BatchNormalization of any version, in either mode."""
    x = operator.tensor()
    if x.rank < 2:
        raise UnreadableError("BatchNormalization of rank below 2")
    if operator.opset < 9 and not operator.attribute("spatial", 1):
        scale, bias, m, v = (_parameter(operator, index) for index in range(1, 5))
        if any(vector.rank != x.rank - 1 for vector in (scale, bias, m, v)):
            raise UnreadableError("spatial=0 with parameters of another rank")
        kept = x.layout[1:]
        over = _axes_in(x.layout[:1])
    else:
        scale, bias, m, v = (_along_channels(operator, index, x.rank) for index in range(1, 5))
        kept = (x.layout[1], *((),) * (x.rank - 2))
        over = _axes_in(x.layout[:1] + x.layout[2:])
    if is_training(operator):
        return _own(operator, x, over, scale, bias, ((), *kept))
    return _affine(operator, x, m, v, scale, bias)


def instance_normalization(operator: Operator) -> Value:
    """InstanceNormalization."""
    x = operator.tensor()
    if x.rank < 3:
        raise UnreadableError("InstanceNormalization of rank below 3")
    scale, bias = (_along_channels(operator, index, x.rank) for index in (1, 2))
    kept = x.layout[:2] + ((),) * (x.rank - 2)
    return _own(operator, x, _axes_in(x.layout[2:]), scale, bias, kept)


def layer_normalization(operator: Operator) -> Value:
    """LayerNormalization over the last dimensions, from ``axis`` on."""
    x = operator.tensor()
    axis = operator.attribute("axis", -1)
    if not -x.rank <= axis < x.rank:
        raise UnreadableError(f"LayerNormalization from axis {axis} on of rank {x.rank}")
    axis %= x.rank
    scale, bias = (None if operator.value(index) is None else _parameter(operator, index) for index in (1, 2))
    kept = x.layout[:axis] + ((),) * (x.rank - axis)
    return _own(operator, x, _axes_in(x.layout[axis:]), scale, bias, kept)


def rms_normalization(operator: Operator) -> Value:
    """RMSNormalization over the last dimensions, from ``axis`` on: nothing is subtracted."""
    x = operator.tensor()
    axis = operator.attribute("axis", -1)
    if not -x.rank <= axis < x.rank:
        raise UnreadableError(f"RMSNormalization from axis {axis} on of rank {x.rank}")
    axis %= x.rank
    kept = x.layout[:axis] + ((),) * (x.rank - axis)
    over = _axes_in(x.layout[axis:])
    spread = Tensor((mean(x.expr * x.expr, over) + _epsilon(operator)) ** -HALF, kept)
    y = _combined(operator, x, spread, lambda a, b: a * b)
    return _combined(operator, y, _parameter(operator, 1), lambda a, b: a * b)


def group_normalization(operator: Operator) -> Value:
    """GroupNormalization; before version 21 scale and bias are one number for each group."""
    x = operator.tensor()
    groups = operator.attribute("num_groups", 0)
    if x.rank < 3 or groups < 1:
        raise UnreadableError("GroupNormalization of rank below 3, or without groups")
    channels = x.layout[1]
    outer, inner = _group(operator, channels, groups)
    over = frozenset(inner) | _axes_in(x.layout[2:])
    m, v = mean(x.expr, over), variance(x.expr, over)
    # Laid out with the channels split, so that what belongs to a group broadcasts within it.
    split = Tensor(x.expr, (x.layout[0], outer, inner, *x.layout[2:]))
    kept: Layout = (x.layout[0], outer, (), *((),) * (x.rank - 2))
    scale, bias = (_of_groups(operator, index, x.rank, outer, inner) for index in (1, 2))
    y = _affine(operator, split, Tensor(m, kept), Tensor(v, kept), scale, bias)
    return Tensor(y.expr, x.layout)


def _group(operator: Operator, channels: tuple[str, ...], groups: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the axes of the groups, and those within a group."""
    if groups == 1:
        return (), channels
    for place in range(len(channels) + 1):
        if operator.axes.count(channels[:place]) == Expr.number(groups):
            return channels[:place], channels[place:]
    whole = operator.axes.length(channels[0]).integer if len(channels) == 1 else None
    if whole is None or whole % groups or "." in channels[0]:
        raise UnreadableError("GroupNormalization of channels that are not known to split into its groups")
    raise AxisSplitError(channels[0], (groups, whole // groups))


def _of_groups(operator: Operator, index: int, rank: int, outer: tuple[str, ...], inner: tuple[str, ...]) -> Tensor:
    vector = _parameter(operator, index)
    if vector.rank != 1:
        raise UnreadableError(f"a parameter of rank {vector.rank}")
    behind = ((),) * (rank - 2)
    if operator.opset < 21:
        return Tensor(vector.expr, (vector.layout[0], (), *behind))
    group = vector.layout[0]
    laid: Layout = (outer, inner, *behind) if group else ((), (), *behind)
    if not group or group == (*outer, *inner):
        return Tensor(vector.expr, laid)
    if len(group) > 1 or operator.axes.length(group[0]) != operator.axes.count((*outer, *inner)):
        raise UnreadableError("GroupNormalization with parameters of another length")
    # One number for each channel: named by all axes of the channels at once.
    return Tensor(renamed(vector.expr, {group[0]: (*outer, *inner)}), laid)


def mean_variance_normalization(operator: Operator) -> Value:
    """MeanVarianceNormalization: (x - m) / (sqrt(v) + 1e-9), as the specification's function body has it."""
    x = operator.tensor()
    axes = operator.attributes.get("axes", (0, 2, 3))
    if any(not -x.rank <= axis < x.rank for axis in axes):
        raise UnreadableError(f"axes {tuple(axes)} of rank {x.rank}")
    over = _axes_in(tuple(x.layout[axis % x.rank] for axis in {axis % x.rank for axis in axes}))
    deviation = variance(x.expr, over) ** HALF + Expr.number(exact(float(np.float32(_MVN_EPSILON))))
    return Tensor((x.expr - mean(x.expr, over)) / deviation, x.layout)
