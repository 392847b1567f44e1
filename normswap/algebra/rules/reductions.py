"""Rules of operators that reduce dimensions."""

from __future__ import annotations

from collections.abc import Callable

from normswap.algebra.errors import UnreadableError
from normswap.algebra.expressions import HALF, Expr
from normswap.algebra.means import mean
from normswap.algebra.operator import Operator
from normswap.algebra.values import Axes, Constant, Sizes, Tensor, Value

__all__ = [
    "global_average",
    "mean_of",
    "norm_of",
    "product_of",
    "sum_of",
    "sum_of_squares",
]


def _reduced(operator: Operator, compute: Callable[[Expr, frozenset[str], Axes], Expr]) -> Value:
    tensor = operator.tensor()
    places = _places(operator, tensor)
    over = frozenset(axis for place in places for axis in tensor.layout[place])
    keep = operator.attribute("keepdims", 1)
    layout = tuple(
        () if place in places else group for place, group in enumerate(tensor.layout) if keep or place not in places
    )
    return Tensor(compute(tensor.expr, over, operator.axes), layout)


def _places(operator: Operator, tensor: Tensor) -> frozenset[int]:
    """Return the dimensions that are reduced."""
    given = operator.integers("axes", 1)
    if not given:
        return frozenset() if operator.attribute("noop_with_empty_axes", 0) else frozenset(range(tensor.rank))
    if any(not -tensor.rank <= axis < tensor.rank for axis in given):
        raise UnreadableError(f"axes {given} of a tensor of rank {tensor.rank}")
    return frozenset(axis % tensor.rank for axis in given)


def _sum(value: Expr, over: frozenset[str], axes: Axes) -> Expr:
    return mean(value, over) * axes.count(sorted(over))


def mean_of(operator: Operator) -> Value:
    """ReduceMean."""
    operator.refuse_sizes()
    return _reduced(operator, lambda value, over, _: mean(value, over))


def sum_of(operator: Operator) -> Value:
    """ReduceSum: the mean, as many times as there are elements; of sizes, their sum."""
    if isinstance(operator.value(0), Sizes):
        return _of_sizes(operator, lambda a, b: a + b)
    return _reduced(operator, _sum)


def sum_of_squares(operator: Operator) -> Value:
    """ReduceSumSquare."""
    operator.refuse_sizes()
    return _reduced(operator, lambda value, over, axes: _sum(value * value, over, axes))


def norm_of(operator: Operator) -> Value:
    """ReduceL2: the root of the sum of squares."""
    operator.refuse_sizes()
    return _reduced(operator, lambda value, over, axes: _sum(value * value, over, axes) ** HALF)


def product_of(operator: Operator) -> Value:
    """ReduceProd of sizes; of a tensor it has no expression here."""
    value = operator.value(0)
    if isinstance(value, Sizes) or (isinstance(value, Constant) and value.array.ndim <= 1):
        return _of_sizes(operator, lambda a, b: a * b)
    raise UnreadableError("a product over an axis")


def _of_sizes(operator: Operator, combine: Callable[[Expr, Expr], Expr]) -> Sizes:
    sizes = operator.axes.sizes(operator.value(0))
    given = operator.integers("axes", 1)
    if sizes.scalar or (given and set(given) - {0, -1}):
        raise UnreadableError("a reduction of sizes along another axis")
    if not given and operator.attribute("noop_with_empty_axes", 0):
        return sizes
    if not sizes.entries:
        raise UnreadableError("a reduction of no sizes")
    found = sizes.entries[0]
    for entry in sizes.entries[1:]:
        found = combine(found, entry)
    return Sizes((found,), not operator.attribute("keepdims", 1), sizes.whole)


def global_average(operator: Operator) -> Value:
    """GlobalAveragePool: the mean over all dimensions but the first two, which stay, of length one."""
    operator.refuse_sizes()
    tensor = operator.tensor()
    over = frozenset(axis for group in tensor.layout[2:] for axis in group)
    return Tensor(mean(tensor.expr, over), tensor.layout[:2] + ((),) * (tensor.rank - 2))
