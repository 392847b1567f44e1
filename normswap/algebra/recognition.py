"""Recognize (x - m) * g / sqrt(v + eps) + b in an expression, and where m and v come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias

from normswap.algebra.errors import UnreadableError
from normswap.algebra.expressions import HALF, Call, Expr, Input, Mean, Parameter, Root, of_terms
from normswap.algebra.substitution import plain

__all__ = ["Form", "Kind", "is_whole", "normalizes_without_form", "recognized"]

# Where the variance comes from: x itself; stored values; x, nothing being subtracted; x, by a variance that is off by
# a factor; x, corrected within bounds; or in a way that is none of these.
Kind: TypeAlias = Literal["own", "stored", "rms", "scaled", "corrected", "unknown"]

_MINUS_HALF = -HALF


@dataclass(frozen=True)
class Form:
    """An expression as (x - m) * g / sqrt(v + eps) + b.

    Attributes:
        kind: Where v comes from.
        m: What is subtracted.
        v: The variance.
        eps: What is added to it.
        g: The gain.
        b: The offset.
        over: Axes that v is a statistic over.
    """

    kind: Kind
    m: Expr
    v: Expr
    eps: Fraction
    g: Expr
    b: Expr
    over: frozenset[str] = frozenset()


def recognized(value: Expr, x: Input) -> Form | None:
    """Return an expression as a normalization of x, None where it is none."""
    parts = _linear(value, x)
    if parts is None:
        return None
    gain, offset = parts
    common = [root for root, power in frozenset.intersection(*gain.terms) if isinstance(root, Root) and power < 0]
    for root in common:
        if all(dict(monomial)[root] == _MINUS_HALF for monomial in gain.terms):
            form = _form(gain, offset, root, x)
            if form is not None:
                return form
    return None


def _linear(value: Expr, x: Input) -> tuple[Expr, Expr] | None:
    """Write a value as gain * x + offset, None where it is not linear in x as an element."""
    gain: dict[frozenset[tuple[object, Fraction]], Fraction] = {}
    offset = dict(gain)
    for monomial, factor in value.terms.items():
        powers = dict(monomial)
        power = powers.pop(x, Fraction(0))
        if power not in (0, 1) or any(x in Expr.of(a).atoms(inside_means=False) for a in powers):
            return None
        (gain if power else offset)[frozenset(powers.items())] = factor
    if not gain:
        return None
    return Expr(gain), Expr(offset)  # type: ignore[arg-type]  # atoms as keys, as they were


def _form(gain: Expr, offset: Expr, root: Root, x: Input) -> Form | None:
    base = plain(root.base) if x in root.base.atoms() else root.base
    eps = base.constant
    v = base - Expr.number(eps)
    if not v or eps < 0:
        return None
    g = gain * Expr.of(root, HALF)
    return _own(g, offset, root, v, eps, x) if x in v.atoms() else _stored(g, offset, root, v, eps, x)


def _own(g: Expr, offset: Expr, root: Root, v: Expr, eps: Fraction, x: Input) -> Form | None:
    kind, m, over = _statistic(v, x)
    b = offset + g * Expr.of(root, _MINUS_HALF) * m
    if kind == "unknown" and not _is_centred(root, x):
        return None
    corrected = any(_is_correction(atom, x) for part in (g, b) for atom in part.atoms())
    if kind == "own" and corrected:
        kind = "corrected"
    elif kind == "own" and (_reads(g, x) or _reads(b, x) or _has_roots(g) or root in b.atoms()):
        return None  # no whole normalization yet: x / sqrt(v + eps), from which its mean is still to be taken
    return Form(kind, m, v, eps, g, b, over)


def _is_correction(atom: object, x: Input) -> bool:
    """Whether an atom is a function of a statistic of x, as a clipped ratio to the stored one is."""
    return isinstance(atom, Call) and any(x in argument.atoms() for argument in atom.arguments)


def _statistic(v: Expr, x: Input) -> tuple[Kind, Expr, frozenset[str]]:
    """Say what statistic of x a value is: its kind, the mean that goes with it, and the axes."""
    for over in {atom.over for atom in v.atoms() if isinstance(atom, Mean) and atom.of == _square(x)}:
        square = Expr.of(Mean(over, _square(x)))
        m = Expr.of(Mean(over, frozenset([(x, Fraction(1))])))
        centred = square - m * m
        if v == centred:
            return "own", m, over
        if v == square:
            return "rms", Expr({}), over
        if _is_multiple(v, centred):
            return "scaled", m, over
    return "unknown", Expr({}), frozenset()


def _square(x: Input) -> frozenset[tuple[Input, Fraction]]:
    return frozenset([(x, Fraction(2))])


def _is_multiple(value: Expr, of: Expr) -> bool:
    """Whether a value is a variance times something in which x has no part, as n / (n - 1) is."""
    try:
        ratio = value / of
        first = next(iter(of.terms))
        factor = of_terms((monomial - first, number / of.terms[first])
                          for monomial, number in value.terms.items() if first <= monomial)  # fmt: skip
    except UnreadableError:
        return False
    return (
        bool(factor)
        and factor * of == value
        and bool(ratio)
        and not any(isinstance(atom, Input) for atom in factor.atoms())
    )


def _stored(g: Expr, offset: Expr, root: Root, v: Expr, eps: Fraction, x: Input) -> Form | None:
    if len(g.terms) != 1 or not any(isinstance(atom, Parameter) for atom in v.atoms()):
        return None
    shifted = of_terms((monomial, factor) for monomial, factor in offset.terms.items()
                       if (root, _MINUS_HALF) in monomial)  # fmt: skip
    b = offset - shifted
    try:
        m = -shifted * Expr.of(root, HALF) / g
    except UnreadableError:
        return None
    if any(_reads(part, x) or _has_roots(part) for part in (g, m)) or _reads(b, x) or root in b.atoms():
        return None
    if any(isinstance(atom, Call) for part in (g, m, b) for atom in part.atoms()):
        return None
    return Form("stored", m, v, eps, g, b)


def _reads(value: Expr, x: Input) -> bool:
    return any(atom == x or isinstance(atom, Mean) for atom in value.atoms())


def _has_roots(value: Expr) -> bool:
    return any(isinstance(atom, Root) for atom in value.atoms())


def is_whole(form: Form) -> bool:
    """Whether gain and offset are one parameter or number each, so that nothing else has been taken in."""
    return form.kind == "corrected" or (_is_single(form.g) and _is_single(form.b))


def _is_single(value: Expr) -> bool:
    value = plain(value)
    if value.is_number:
        return True
    if len(value.terms) != 1:
        return False
    ((monomial, factor),) = value.terms.items()
    return factor == 1 and len(monomial) == 1 and all(isinstance(a, Parameter) and p == 1 for a, p in monomial)


def normalizes_without_form(value: Expr, x: Input) -> bool:
    """Whether a value divides x by a root of a centred statistic of x, though it is no normalization that has a name.

    Attention, distances and spectra have roots too: what tells a normalization is x, its mean and the root together.
    """
    return any(_divides(value, x, root) for root in _roots_of(value))


def _roots_of(value: Expr) -> Iterator[Root]:
    for monomial in value.terms:
        for atom, power in monomial:
            if isinstance(atom, Root) and power < 0:
                yield atom


def _is_centred(root: Root, x: Input) -> bool:
    """Whether both a mean of x and one of its square stand below the root."""
    inside = {atom.of for atom in root.base.atoms() if isinstance(atom, Mean)}
    return _square(x) in inside and frozenset([(x, Fraction(1))]) in inside


def _divides(value: Expr, x: Input, root: Root) -> bool:
    return _is_centred(root, x) and any((x, Fraction(1)) in monomial and any(a == root for a, _ in monomial)
                           for monomial in value.terms)  # fmt: skip
