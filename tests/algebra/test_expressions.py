"""Laws of the normal form, and a second opinion by sympy and by numbers."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import sympy  # type: ignore[import-untyped]  # it has no stubs
from hypothesis import given, settings
from hypothesis import strategies as st
from support.oracles.expression_values import Numbers

from normswap.algebra.equality import equal
from normswap.algebra.errors import TooLargeError, UnreadableError
from normswap.algebra.expressions import HALF, Call, Expr, Input, Mean, Parameter, Root, Size
from normswap.algebra.means import mean, variance
from normswap.algebra.spelling import spelled
from normswap.algebra.substitution import plain, renamed
from normswap.algebra.values import Axes

X = Input(frozenset({"N", "C", "S"}))
x = Expr.of(X)
p, q = (Expr.of(Parameter(name, (("C",),))) for name in "pq")
n = Expr.of(Size("N"))
one = Expr.number(1)
LEAVES = {"x": x, "p": p, "q": q, "n": n, "2/3": Expr.number(Fraction(2, 3)), "-1": Expr.number(-1)}
LETTERS = {name: sympy.Symbol(name, positive=True) for name in "xpqn"} | {
    "2/3": sympy.Rational(2, 3),
    "-1": sympy.Integer(-1),
}


def trees() -> st.SearchStrategy[Any]:
    return st.recursive(
        st.sampled_from(sorted(LEAVES)),
        lambda inner: st.tuples(st.sampled_from("+-*"), inner, inner),
        max_leaves=8,
    )


def built(tree: Any, leaves: Any) -> Any:
    if isinstance(tree, str):
        return leaves[tree]
    operator, left, right = tree
    one, two = built(left, leaves), built(right, leaves)
    return one + two if operator == "+" else one - two if operator == "-" else one * two


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(trees(), trees())
def test_polynomials_are_equal_where_sympy_says_so(left: Any, right: Any) -> None:
    ours = built(left, LEAVES) == built(right, LEAVES)
    assert ours == (sympy.expand(built(left, LETTERS) - built(right, LETTERS)) == 0)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(trees(), st.sets(st.sampled_from("NCS")), st.integers(0, 99))
def test_a_mean_is_the_mean_of_the_numbers(tree: Any, over: set[str], seed: int) -> None:
    value = built(tree, LEAVES)
    rng = np.random.default_rng(seed)
    numbers = Numbers(rng.uniform(1, 2, (2, 3, 4)), (("N",), ("C",), ("S",)), Axes(),
                      {name: rng.uniform(1, 2, 3) for name in "pq"})  # fmt: skip
    order = [numbers.order.index(axis) for axis in over]
    array = np.broadcast_to(numbers.expr(value), (2, 3, 4))
    expected = array.mean(tuple(order), keepdims=True)
    found = numbers.expr(mean(value, frozenset(over)))
    np.testing.assert_allclose(np.broadcast_to(found, (2, 3, 4)), np.broadcast_to(expected, (2, 3, 4)), rtol=1e-9)


def test_means_are_linear_drop_and_merge() -> None:
    batch = frozenset({"N", "S"})
    assert mean(x + p, batch) == mean(x, batch) + p
    assert mean(p * x, batch) == p * mean(x, batch)
    assert mean(p, batch) == p
    assert mean(mean(x, frozenset("S")), frozenset("N")) == mean(x, batch)
    assert mean(mean(x, batch), batch) == mean(x, batch)
    m = mean(x, frozenset("S"))
    assert mean(m * x, batch) == mean(m * m, frozenset("N"))
    assert mean(x - mean(x, batch), batch) == Expr({})


def test_the_variance_by_one_pass_is_that_by_two() -> None:
    batch = frozenset({"N", "S"})
    assert variance(x, batch) == mean(x * x, batch) - mean(x, batch) ** 2
    assert variance(x, batch) != variance(x, frozenset("S"))


def test_roots_come_together() -> None:
    root = (p + q) ** HALF
    assert root * root == p + q
    assert root**-1 * root == one
    assert (root**-1) ** 2 == (p + q) ** -1
    assert Expr.number(Fraction(4, 9)) ** HALF == Expr.number(Fraction(2, 3))


def test_the_root_of_a_square_is_not_the_value() -> None:
    assert (x * x) ** HALF != x
    assert not equal((x * x) ** HALF, x)


def test_sums_cancel_against_their_denominator() -> None:
    total = n + Expr.number(16)
    assert equal(n / total + Expr.number(16) / total, one)
    assert not equal(n / total + Expr.number(17) / total, one)
    assert equal((p + q) / (p + q) ** HALF, (p + q) ** HALF)
    assert equal(x / (one / total + p), x * total / (one + p * total))


def test_roots_of_equal_bases_are_equal() -> None:
    total = n + Expr.number(2)
    left, right = (p + n / total) ** -HALF, (p + one - Expr.number(2) / total) ** -HALF
    assert left != right and equal(x * left, x * right)
    assert not equal(x * left, x * (p + one - Expr.number(3) / total) ** -HALF)


def test_unequal_functions_are_not_proved_equal() -> None:
    assert not equal(Expr.of(Call("Max", (p, q))), Expr.of(Call("Max", (p, x))))
    assert not equal(Expr.of(Mean(frozenset("N"), frozenset([(X, Fraction(1))]))), x)


def test_what_has_no_value_is_refused() -> None:
    with pytest.raises(UnreadableError, match="zero"):
        one / (p - p)
    with pytest.raises(UnreadableError, match="power"):
        x ** Fraction(1, 3)


def test_an_expression_does_not_outgrow_its_bound() -> None:
    wide = sum((Expr.of(Parameter(i, (("C",),))) for i in range(90)), start=Expr({}))
    with pytest.raises(TooLargeError):
        wide * wide


def test_a_parameter_takes_the_name_of_the_axis_that_it_meets() -> None:
    fresh = Expr.of(Parameter("w", (("?w.0",),)))
    assert renamed(fresh, {"?w.0": ("C",)}) == Expr.of(Parameter("w", (("C",),)))
    # The axis of a mean is its own: it keeps its name.
    inner = mean(fresh * fresh, frozenset({"?w.0"}))
    assert renamed(inner * p, {"?w.0": ("C",)}) == inner * p
    both = mean((fresh + Expr.of(Parameter("u", (("?u.0",),)))) ** -1, frozenset({"?w.0"}))
    with pytest.raises(UnreadableError, match="averaged"):
        renamed(both, {"?u.0": ("?w.0",)})


def test_a_uniform_parameter_is_a_number_where_that_is_asked_for() -> None:
    ones = Expr.of(Parameter("w", (("C",),), Fraction(1)))
    assert ones != one and plain(ones) == one and plain(ones * p) == p
    assert plain((ones + p) ** -HALF) == (one + p) ** -HALF


def test_expressions_are_spelled_in_one_order() -> None:
    assert spelled(x * p + one) == spelled(one + p * x)
    assert spelled(mean(x, frozenset("S")) - Expr.number(Fraction(1, 2))) == "-1/2 + mean[S](x)"
    assert spelled(Expr.of(Root(p + q), -HALF)) == "(p + q)^(-1/2)"
