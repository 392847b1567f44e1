"""Substitution in expressions: other names for axes, and numbers for parameters that are one number everywhere."""

from __future__ import annotations

from collections.abc import Mapping

from normswap.algebra.errors import UnreadableError
from normswap.algebra.expressions import ONE, Atom, Call, Expr, Group, Mean, Parameter, Root, of_terms

__all__ = ["plain", "renamed"]


def renamed(value: Expr, to: Mapping[str, Group]) -> Expr:
    """Return an expression with axes of parameters replaced, each by a group of axes."""
    if not to.keys() & value.axes:
        return value
    return of_terms((frozenset((_renamed(atom, to), power) for atom, power in monomial), factor)
                    for monomial, factor in value.terms.items())  # fmt: skip


def plain(value: Expr) -> Expr:
    """Return an expression with parameters that are the same everywhere as numbers."""
    total = Expr({})
    for monomial, factor in value.terms.items():
        term = Expr({ONE: factor})
        for atom, power in monomial:
            uniform = atom.uniform if isinstance(atom, Parameter) else None
            if uniform is not None and (uniform or power > 0):
                term = term * Expr.number(uniform) ** power
            elif isinstance(atom, Root):
                term = term * plain(atom.base) ** power
            else:
                term = term * Expr.of(atom, power)
        total = total + term
    return total


def _renamed(atom: Atom, to: Mapping[str, Group]) -> Atom:
    if isinstance(atom, Parameter):
        dims = tuple(tuple(new for axis in group for new in to.get(axis, (axis,))) for group in atom.dims)
        return Parameter(atom.name, dims, atom.uniform)
    if isinstance(atom, Mean):
        # The axes of a mean are its own: they keep their names, and no other axis may take one of these.
        free = {axis: group for axis, group in to.items() if axis not in atom.over}
        if any(new in atom.over for group in free.values() for new in group):
            raise UnreadableError("an axis takes the name of one that is averaged over")
        return Mean(atom.over, frozenset((_renamed(inner, free), power) for inner, power in atom.of))
    if isinstance(atom, Root):
        return Root(renamed(atom.base, to))
    if isinstance(atom, Call):
        return Call(atom.function, tuple(renamed(argument, to) for argument in atom.arguments))
    return atom
