"""Means over axes, in normal form: linear, dropped where nothing varies, merged where they nest."""

from __future__ import annotations

from fractions import Fraction

from normswap.algebra.expressions import ONE, Expr, Mean, Monomial, axes_of, axes_of_monomial

__all__ = ["mean", "variance"]


def mean(value: Expr, over: frozenset[str]) -> Expr:
    """Average over axes.

    A factor that does not vary along an axis leaves the mean over that axis. Grids are full, so that a mean over one
    axis of a mean over another is the mean over both, whatever their lengths.
    """
    total = Expr({})
    for monomial, factor in value.terms.items():
        total = total + Expr.number(factor) * _mean_of(monomial, over)
    return total


def variance(value: Expr, over: frozenset[str]) -> Expr:
    """Average the squared distance from the mean: the biased variance."""
    centred = value - mean(value, over)
    return mean(centred * centred, over)


def _mean_of(monomial: Monomial, over: frozenset[str]) -> Expr:
    over = over & axes_of_monomial(monomial)
    if not over:
        return Expr({monomial: Fraction(1)})
    for axis in sorted(over):
        varying = frozenset(factor for factor in monomial if axis in axes_of(factor[0]))
        if varying != monomial:
            # The means over the axes along which these very factors vary are taken at once, so that they merge.
            inner = frozenset(a for a in over if varying == {f for f in monomial if a in axes_of(f[0])})
            outer = Expr({monomial - varying: Fraction(1)}) * _mean_of(varying, inner)
            return mean(outer, over - inner)
    if len(monomial) == 1:
        ((atom, power),) = monomial
        if isinstance(atom, Mean) and power == 1:
            return Expr.of(Mean(atom.over | over, atom.of))
    assert monomial != ONE, "a constant varies along no axis"
    return Expr.of(Mean(over, monomial))
