"""Expressions over the reals in a normal form: polynomials over atoms, with exact rational coefficients.

A monomial is a set of (atom, exponent); an expression is a sum of monomials, each with a coefficient. Exponents are
multiples of 1/2. Equal expressions of the same atoms are equal objects, so that ``==`` proves equality; what it cannot
see (sums that cancel against a denominator) is the work of equality.py. Expressions stand for values where they are
defined: sqrt(b) * sqrt(b) is b, which holds where b is not negative.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import TypeAlias

from normswap.algebra.errors import TooLargeError, UnreadableError
from normswap.algebra.rational import rational_root

__all__ = [
    "HALF",
    "ONE",
    "Atom",
    "Call",
    "Expr",
    "Group",
    "Input",
    "Mean",
    "Monomial",
    "Parameter",
    "Root",
    "Size",
    "axes_of",
    "axes_of_monomial",
    "of_terms",
]

HALF = Fraction(1, 2)
_MOST_PRODUCTS = 4000  # of terms in one multiplication; a normalization needs a few dozen
_MOST_TERMS = 400
_MOST_POWER = 8

Group: TypeAlias = tuple[str, ...]  # the axes that one dimension stands for, outermost first


@dataclass(frozen=True)
class Input:
    """The tensor x that everything is read over; it varies along all of its axes."""

    axes: frozenset[str]


@dataclass(frozen=True)
class Parameter:
    """A stored tensor, or one that the caller gives.

    Attributes:
        name: Which one.
        dims: Axes of its dimensions, in their order; empty for a dimension of length one.
        uniform: The number that all of its elements are, if they are one: the axes still tell the channel.
    """

    name: Hashable
    dims: tuple[Group, ...]
    uniform: Fraction | None = None


@dataclass(frozen=True)
class Size:
    """The length of an axis, one or more."""

    axis: str


@dataclass(frozen=True)
class Mean:
    """The mean of a monomial over axes along which all of its factors vary."""

    over: frozenset[str]
    of: Monomial


@dataclass(frozen=True)
class Root:
    """The base of a power whose exponent is negative or broken."""

    base: Expr


@dataclass(frozen=True)
class Call:
    """A function without a law here, element by element: equal only where all arguments are.

    Attributes:
        function: Operator, with attributes that matter.
        arguments: In their order.
    """

    function: str
    arguments: tuple[Expr, ...]


Atom: TypeAlias = Input | Parameter | Size | Mean | Root | Call
Monomial: TypeAlias = frozenset[tuple[Atom, Fraction]]
ONE: Monomial = frozenset()


class Expr:
    """A sum of monomials; immutable.

    >>> n = Expr.of(Size("N"))
    >>> (n + Expr.number(1)) * (n - Expr.number(1)) == n * n - Expr.number(1)
    True
    """

    def __init__(self, terms: Mapping[Monomial, Fraction]) -> None:
        if len(terms) > _MOST_TERMS:
            raise TooLargeError(f"an expression of {len(terms)} terms")
        self.terms = terms

    @staticmethod
    def number(value: Expr | Fraction | float) -> Expr:
        """Return a constant; an expression is returned as it is."""
        if isinstance(value, Expr):
            return value
        return Expr({ONE: Fraction(value)} if value else {})

    @staticmethod
    def of(atom: Atom, exponent: int | Fraction = 1) -> Expr:
        """Return a power of an atom."""
        return Expr({frozenset([(atom, Fraction(exponent))]): Fraction(1)})

    @cached_property
    def _key(self) -> frozenset[tuple[Monomial, Fraction]]:
        return frozenset(self.terms.items())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expr) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(self._key)

    def __bool__(self) -> bool:
        return bool(self.terms)

    def __add__(self, other: Expr | float) -> Expr:
        return self._plus(Expr.number(other), 1)

    __radd__ = __add__

    def __sub__(self, other: Expr | float) -> Expr:
        return self._plus(Expr.number(other), -1)

    def __neg__(self) -> Expr:
        return Expr({monomial: -factor for monomial, factor in self.terms.items()})

    def _plus(self, other: Expr, sign: int) -> Expr:
        terms = dict(self.terms)
        for monomial, factor in other.terms.items():
            _accumulate(terms, monomial, sign * factor)
        return Expr(terms)

    def __mul__(self, other: Expr | float) -> Expr:
        other = Expr.number(other)
        if len(self.terms) * len(other.terms) > _MOST_PRODUCTS:
            raise TooLargeError(f"a product of {len(self.terms)} and {len(other.terms)} terms")
        terms: dict[Monomial, Fraction] = {}
        for left, one in self.terms.items():
            for right, two in other.terms.items():
                monomial, bases = _joined(left, right)
                if not bases:
                    _accumulate(terms, monomial, one * two)
                    continue
                product = Expr({monomial: one * two})
                for base, exponent in bases:
                    product = product * base**exponent
                for found, factor in product.terms.items():
                    _accumulate(terms, found, factor)
        return Expr(terms)

    __rmul__ = __mul__

    def __truediv__(self, other: Expr | float) -> Expr:
        return self * Expr.number(other) ** -1

    def __rtruediv__(self, other: float) -> Expr:
        return Expr.number(other) / self

    def __pow__(self, exponent: int | Fraction) -> Expr:
        exponent = Fraction(exponent)
        if (2 * exponent).denominator != 1 or abs(exponent) > _MOST_POWER:
            raise UnreadableError(f"a power of {float(exponent):g}")
        if exponent.denominator == 1 and exponent >= 0:
            result = Expr.number(1)
            for _ in range(int(exponent)):
                result = result * self
            return result
        if not self.terms:
            if exponent > 0:
                return self
            raise UnreadableError("a division by zero")
        if len(self.terms) == 1:
            ((monomial, factor),) = self.terms.items()
            if exponent.denominator == 1:
                return Expr({frozenset((atom, power * exponent) for atom, power in monomial): factor ** int(exponent)})
            root = rational_root(factor)
            if root is not None and all(isinstance(atom, Root | Size) for atom, _ in monomial):
                found = frozenset((atom, power * exponent) for atom, power in monomial)
                if all((2 * power).denominator == 1 for _, power in found):
                    return Expr({found: root ** int(2 * exponent)})
        return Expr.of(Root(self), exponent)

    @property
    def is_number(self) -> bool:
        """Whether it is a constant."""
        return self.terms.keys() <= {ONE}

    @property
    def constant(self) -> Fraction:
        """The constant term."""
        return self.terms.get(ONE, Fraction(0))

    @property
    def integer(self) -> int | None:
        """Its value if it is a whole number, else None."""
        return int(self.constant) if self.is_number and self.constant.denominator == 1 else None

    @cached_property
    def axes(self) -> frozenset[str]:
        """The axes along which it varies."""
        return frozenset().union(*(axes_of_monomial(monomial) for monomial in self.terms))

    def atoms(self, *, inside_means: bool = True) -> Iterator[Atom]:
        """Yield every atom, those inside roots and calls too."""
        for monomial in self.terms:
            yield from _atoms_of(monomial, inside_means)


def of_terms(terms: Iterator[tuple[Monomial, Fraction]]) -> Expr:
    """Sum monomials with their factors."""
    total: dict[Monomial, Fraction] = {}
    for monomial, factor in terms:
        _accumulate(total, monomial, factor)
    return Expr(total)


def _accumulate(terms: dict[Monomial, Fraction], monomial: Monomial, factor: Fraction) -> None:
    found = terms.get(monomial, 0) + factor
    if found:
        terms[monomial] = Fraction(found)
    else:
        terms.pop(monomial, None)


@lru_cache(1 << 16)
def _joined(left: Monomial, right: Monomial) -> tuple[Monomial, tuple[tuple[Expr, int], ...]]:
    """Multiply two monomials; roots that came to a whole positive power are their bases again, given apart."""
    powers: dict[Atom, Fraction] = dict(left)
    for atom, power in right:
        powers[atom] = powers.get(atom, Fraction(0)) + power
    bases: list[tuple[Expr, int]] = []
    for atom, power in list(powers.items()):
        if isinstance(atom, Root) and power >= 1:
            bases.append((atom.base, math.floor(power)))
            powers[atom] = power - math.floor(power)
    return frozenset((atom, power) for atom, power in powers.items() if power), tuple(bases)


@lru_cache(1 << 16)
def axes_of(atom: Atom) -> frozenset[str]:
    """Return the axes along which an atom varies."""
    if isinstance(atom, Input):
        return atom.axes
    if isinstance(atom, Parameter):
        return frozenset(axis for group in atom.dims for axis in group)
    if isinstance(atom, Mean):
        return axes_of_monomial(atom.of) - atom.over
    if isinstance(atom, Root):
        return atom.base.axes
    if isinstance(atom, Call):
        return frozenset().union(*(argument.axes for argument in atom.arguments))
    return frozenset()


def axes_of_monomial(monomial: Monomial) -> frozenset[str]:
    """Return the axes along which a product varies."""
    return frozenset().union(*(axes_of(atom) for atom, _ in monomial))


def _atoms_of(monomial: Monomial, inside_means: bool) -> Iterator[Atom]:
    for atom, _ in monomial:
        yield atom
        if isinstance(atom, Root):
            yield from atom.base.atoms(inside_means=inside_means)
        elif isinstance(atom, Call):
            for argument in atom.arguments:
                yield from argument.atoms(inside_means=inside_means)
        elif isinstance(atom, Mean) and inside_means:
            yield from _atoms_of(atom.of, inside_means)
