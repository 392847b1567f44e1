"""Prove that two expressions are equal, where both are defined, for every value of their atoms."""

from __future__ import annotations

import math
from fractions import Fraction

from normswap.algebra.errors import TooLargeError, UnreadableError
from normswap.algebra.expressions import HALF, Atom, Expr, Root, of_terms

__all__ = ["equal"]

_MOST_DENOMINATORS = 16


def equal(left: Expr, right: Expr) -> bool:
    """Whether two expressions are the same function of their atoms.

    True is a proof. False means that they differ, or that no proof was found.
    """
    if left == right:
        return True
    try:
        return not _cleared(_with_common_roots(left - right))
    except UnreadableError:
        return False


def _with_common_roots(value: Expr) -> Expr:
    """Write roots of equal bases as roots of one of them."""
    bases: list[Expr] = []
    same: dict[Atom, Atom] = {}
    for root in [atom for monomial in value.terms for atom, _ in monomial if isinstance(atom, Root)]:
        if root in same:
            continue
        base = next((known for known in bases if equal(known, root.base)), None)
        if base is None:
            bases.append(root.base)
        same[root] = root if base is None else Root(base)
    if all(old == new for old, new in same.items()):
        return value
    total = Expr({})
    for monomial, factor in value.terms.items():
        term = Expr.number(factor)
        for atom, power in monomial:
            term = term * Expr.of(same.get(atom, atom), power)
        total = total + term
    return total


def _cleared(value: Expr) -> Expr:
    """Multiply by every denominator, so that sums cancel against them; none of these is zero where it is defined."""
    for _ in range(_MOST_DENOMINATORS):
        lowest: dict[Root, Fraction] = {}
        for monomial in value.terms:
            for atom, power in monomial:
                if isinstance(atom, Root):
                    lowest[atom] = min(power, lowest.get(atom, power))
        root = next((root for root, power in lowest.items() if power < 0), None)
        if root is None:
            return value
        shift = math.ceil(-lowest[root])
        total = Expr({})
        for monomial, factor in value.terms.items():
            powers = dict(monomial)
            power = powers.pop(root, Fraction(0)) + shift
            rest = of_terms(iter([(frozenset(powers.items()), factor)]))
            broken = HALF if power.denominator == 2 else Fraction(0)
            rest = rest * Expr.of(root, broken) if broken else rest
            total = total + rest * root.base ** (power - broken)
        value = total
    raise TooLargeError("an expression of too many denominators")
