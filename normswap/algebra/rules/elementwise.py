"""Rules of operators that work element by element, on tensors that broadcast."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from normswap.algebra.errors import UnreadableError
from normswap.algebra.expressions import HALF, Call, Expr
from normswap.algebra.layouts import aligned
from normswap.algebra.operator import Operator
from normswap.algebra.spelling import spelled
from normswap.algebra.substitution import plain
from normswap.algebra.values import Constant, Sizes, Tensor, Value, exact

__all__ = [
    "absolute",
    "cast",
    "chosen",
    "clipped",
    "compared",
    "difference",
    "dropout",
    "extreme",
    "negated",
    "plain_call",
    "power",
    "product",
    "quotient",
    "reciprocal",
    "same",
    "square_root",
    "total",
]

_INTEGER_TYPES = frozenset({2, 3, 4, 5, 6, 7, 12, 13})  # of onnx.TensorProto.DataType
_REAL_TYPES = frozenset({1, 10, 11, 16})
_OLD_BROADCAST = 7  # the first version with NumPy's broadcasting


def _binary(operator: Operator, compute: Callable[[Expr, Expr], Expr], *, divides: bool = False) -> Value:
    if any(isinstance(value, Sizes) for value in operator.inputs):
        try:
            return _of_sizes(operator, compute, divides=divides)
        except UnreadableError:
            if any(isinstance(value, Sizes) and len(value.entries) > 1 for value in operator.inputs):
                raise
    one, two = operator.tensor(0), _second(operator)
    (left, right), layout = aligned(operator.axes, one, two)
    return Tensor(compute(left, right), layout)


def _second(operator: Operator) -> Tensor:
    """Return the second input, laid out as versions before 7 say."""
    tensor = operator.tensor(1)
    if operator.opset >= _OLD_BROADCAST:
        return tensor
    first = operator.tensor(0)
    if not operator.attributes.get("broadcast", 0):
        if tensor.rank != first.rank:
            raise UnreadableError("inputs of different ranks without broadcast=1")
        return tensor
    axis = operator.attributes.get("axis", first.rank - tensor.rank)
    behind = first.rank - (axis % max(first.rank, 1)) - tensor.rank
    if behind < 0:
        raise UnreadableError(f"broadcast along axis {axis}, where the second input has too many dimensions")
    return Tensor(tensor.expr, tensor.layout + ((),) * behind)


def _of_sizes(operator: Operator, compute: Callable[[Expr, Expr], Expr], *, divides: bool) -> Sizes:
    one, two = (operator.axes.sizes(value) for value in operator.inputs[:2])
    count = max(len(one.entries), len(two.entries))
    if {len(one.entries), len(two.entries)} - {1, count}:
        raise UnreadableError("sizes of different lengths")
    whole = one.whole and two.whole
    entries = []
    for place in range(count):
        left, right = one.entries[place % len(one.entries)], two.entries[place % len(two.entries)]
        entries.append(_rounded_down(left, right) if divides and whole else compute(left, right))
    return Sizes(tuple(entries), one.scalar and two.scalar, whole)


def _rounded_down(left: Expr, right: Expr) -> Expr:
    """Divide whole numbers, of which the quotient is cut: exact only where nothing is left over."""
    found = left / right
    if left.integer is not None and right.integer is not None:
        if left.integer < 0 or right.integer < 0:
            raise UnreadableError("a division of negative whole numbers")
        return Expr.number(left.integer // right.integer)
    powers = [power for monomial in found.terms for _, power in monomial]
    if any(power < 0 or power.denominator != 1 for power in powers) or any(
        factor.denominator != 1 for factor in found.terms.values()
    ):
        raise UnreadableError("a division of whole numbers that may have a remainder")
    return found


def total(operator: Operator) -> Value:
    """Add."""
    return _binary(operator, lambda a, b: a + b)


def difference(operator: Operator) -> Value:
    """Sub."""
    return _binary(operator, lambda a, b: a - b)


def product(operator: Operator) -> Value:
    """Mul."""
    return _binary(operator, lambda a, b: a * b)


def quotient(operator: Operator) -> Value:
    """Div."""
    return _binary(operator, lambda a, b: a / b, divides=True)


def negated(operator: Operator) -> Value:
    """Neg."""
    return _unary(operator, lambda a: -a)


def square_root(operator: Operator) -> Value:
    """Sqrt."""
    return _unary(operator, lambda a: a**HALF)


def reciprocal(operator: Operator) -> Value:
    """Reciprocal."""
    return _unary(operator, lambda a: a**-1)


def absolute(operator: Operator) -> Value:
    """Abs, whose argument is kept as it is: no sign is guessed."""
    return _unary(operator, lambda a: Expr.number(abs(a.constant)) if a.is_number else Expr.of(Call("Abs", (a,))))


def _unary(operator: Operator, compute: Callable[[Expr], Expr]) -> Value:
    operator.refuse_sizes()
    tensor = operator.tensor()
    return Tensor(compute(tensor.expr), tensor.layout)


def power(operator: Operator) -> Value:
    """Pow by a constant: a whole number, or half of one."""
    operator.refuse_sizes()
    base, exponent = operator.tensor(0), _second(operator)
    number = plain(exponent.expr)
    if not number.is_number:
        raise UnreadableError("a power that is not a constant")
    (left, _), layout = aligned(operator.axes, base, exponent)
    return Tensor(left**number.constant, layout)


def extreme(operator: Operator) -> Value:
    """Max or Min of several tensors, whose order does not matter."""
    operator.refuse_sizes()
    if operator.opset < 8 and len({operator.tensor(i).rank for i in range(len(operator.inputs))}) > 1:
        raise UnreadableError("inputs of different ranks before version 8")
    exprs, layout = aligned(operator.axes, *(operator.tensor(i) for i in range(len(operator.inputs))))
    return Tensor(_extreme(operator.op_type, exprs), layout)


def _extreme(function: str, exprs: list[Expr]) -> Expr:
    if all(expr.is_number for expr in exprs):
        return Expr.number((max if function == "Max" else min)(expr.constant for expr in exprs))
    distinct = sorted(set(exprs), key=spelled)
    return distinct[0] if len(distinct) == 1 else Expr.of(Call(function, tuple(distinct)))


def clipped(operator: Operator) -> Value:
    """Clip: Min of Max, its bounds attributes or, from version 11 on, inputs."""
    operator.refuse_sizes()
    tensor = operator.tensor()
    expr = tensor.expr
    for place, (word, function) in enumerate((("min", "Max"), ("max", "Min")), 1):
        bound = _bound(operator, word, place)
        if bound is not None:
            expr = _extreme(function, [expr, bound])
    return Tensor(expr, tensor.layout)


def _bound(operator: Operator, word: str, place: int) -> Expr | None:
    value = operator.value(place)
    if value is not None:
        bound = operator.axes.tensor(value)
        if any(bound.layout):
            raise UnreadableError("a bound of Clip that is not a scalar")
        return bound.expr
    given = operator.attributes.get(word)
    unbounded = {"min": -3.4028234663852886e38, "max": 3.4028234663852886e38}[word]
    return None if given is None or given == unbounded else Expr.number(exact(given))


def compared(operator: Operator) -> Value:
    """Greater, Less, Equal and their like: a truth value, kept as it is written."""
    operator.refuse_sizes()
    exprs, layout = aligned(operator.axes, operator.tensor(0), _second(operator))
    return Tensor(Expr.of(Call(operator.op_type, tuple(exprs))), layout)


def plain_call(operator: Operator) -> Value:
    """Return a function of one tensor without attributes, kept as it is written: Not, Sign, Exp, Log."""
    return _unary(operator, lambda a: Expr.of(Call(operator.op_type, (a,))))


def chosen(operator: Operator) -> Value:
    """Where: one tensor or the other, element by element."""
    operator.refuse_sizes()
    condition = operator.value(0)
    if isinstance(condition, Constant):
        truth = {bool(entry) for entry in condition.array.ravel()}
        if len(truth) != 1:
            raise UnreadableError("a constant condition that differs by element")
        taken, other = (1, 2) if truth == {True} else (2, 1)
        shape = Tensor(Expr.number(0), ((),) * condition.array.ndim)
        if any(length > 1 for length in condition.array.shape):
            raise UnreadableError("a condition that broadcasts")
        exprs, layout = aligned(operator.axes, operator.tensor(taken), operator.tensor(other), shape)
        return Tensor(exprs[0], layout)
    exprs, layout = aligned(operator.axes, operator.tensor(0), operator.tensor(1), operator.tensor(2))
    if exprs[1] == exprs[2]:
        return Tensor(exprs[1], layout)
    return Tensor(Expr.of(Call("Where", tuple(exprs))), layout)


def same(operator: Operator) -> Value:
    """Identity."""
    value = operator.value(0)
    if value is None:
        raise UnreadableError("an input is missing")
    return value


def dropout(operator: Operator) -> Value:
    """Dropout outside of training: the identity."""
    training = operator.value(2)
    if training is not None and not (isinstance(training, Constant) and not np.any(training.array)):
        raise UnreadableError("Dropout in training mode")
    if operator.opset < _OLD_BROADCAST and not operator.attributes.get("is_test", 0):
        raise UnreadableError("Dropout in training mode")
    return same(operator)


def cast(operator: Operator) -> Value:
    """Cast to a real type: the identity over the reals, since rounding is no part of them."""
    value = same(operator)
    to = operator.attributes.get("to")
    if to in _REAL_TYPES:
        if isinstance(value, Sizes):
            return Sizes(value.entries, value.scalar, whole=False)
        if isinstance(value, Constant) and value.array.dtype.kind not in "fiuV":
            raise UnreadableError(f"a Cast of {value.array.dtype}")
        # The array keeps its own type: the type that it is stored in tells what it is the rounding of.
        return value
    if to in _INTEGER_TYPES and isinstance(value, Sizes) and value.whole:
        return value
    if to in _INTEGER_TYPES and isinstance(value, Constant) and value.array.dtype.kind in "iu":
        return value
    raise UnreadableError(f"a Cast to element type {to}")
