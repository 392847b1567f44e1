"""How an expression is written for people, as in a report that says what was seen."""

from __future__ import annotations

from collections.abc import Hashable
from fractions import Fraction

from normswap.algebra.expressions import Atom, Call, Expr, Input, Mean, Monomial, Parameter, Root, Size

__all__ = ["name_of", "spelled"]


def name_of(key: Hashable) -> str:
    """Spell the key of a value: its name after the path of its graph."""
    if isinstance(key, tuple) and len(key) == 2 and isinstance(key[0], tuple):
        return "/".join((*key[0], str(key[1])))
    return str(key)


def spelled(value: Expr) -> str:
    """Spell an expression, terms in a fixed order."""
    if not value.terms:
        return "0"
    return " + ".join(sorted(_term(monomial, factor) for monomial, factor in value.terms.items()))


def _term(monomial: Monomial, factor: Fraction) -> str:
    parts = sorted(_power(atom, power) for atom, power in monomial)
    if factor != 1 or not parts:
        parts.insert(0, str(factor) if factor.denominator < 10_000 else f"{float(factor):.9g}")
    return " * ".join(parts)


def _power(atom: Atom, power: Fraction) -> str:
    text = _atom(atom)
    return text if power == 1 else f"{text}^{power}" if power.denominator == 1 and power > 0 else f"{text}^({power})"


def _atom(atom: Atom) -> str:
    if isinstance(atom, Input):
        return "x"
    if isinstance(atom, Parameter):
        return name_of(atom.name)
    if isinstance(atom, Size):
        return f"size[{atom.axis}]"
    if isinstance(atom, Mean):
        return f"mean[{', '.join(sorted(atom.over))}]({_term(atom.of, Fraction(1))})"
    if isinstance(atom, Call):
        return f"{atom.function}({', '.join(map(spelled, atom.arguments))})"
    assert isinstance(atom, Root), "all kinds of atoms are named here"
    return f"({spelled(atom.base)})"
