"""What a name in a graph stands for: a tensor, sizes, or a stored array."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeAlias

import numpy as np

from normswap.algebra.errors import UnreadableError
from normswap.algebra.expressions import Expr, Group, Parameter, Size
from normswap.layer import Array

__all__ = ["Axes", "Constant", "Layout", "Sizes", "Tensor", "Value", "exact", "is_fresh"]

Layout: TypeAlias = tuple[Group, ...]


@dataclass(frozen=True)
class Tensor:
    """A tensor: what it computes, and which axes its dimensions stand for.

    Attributes:
        expr: The expression.
        layout: A group of axes for each dimension, outermost first; empty for a dimension of length one.
    """

    expr: Expr
    layout: Layout

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.layout)


@dataclass(frozen=True)
class Sizes:
    """A vector or scalar of sizes, as Shape gives and Reshape takes.

    Attributes:
        entries: The sizes.
        scalar: Whether it has no dimension.
        whole: Whether its type is an integer, so that a division rounds.
    """

    entries: tuple[Expr, ...]
    scalar: bool = False
    whole: bool = True


@dataclass(frozen=True, eq=False)
class Constant:
    """A stored array.

    Attributes:
        array: Its values.
        name: Of the value that holds it.
        named: Whether it stands for itself even where it holds one number only, as a parameter does.
    """

    array: Array
    name: Hashable
    named: bool = False


Value: TypeAlias = Tensor | Sizes | Constant


def is_fresh(axis: str) -> bool:
    """Whether an axis is that of a parameter, which takes the name of the axis that it meets."""
    return axis.startswith("?")


def exact(value: float) -> Fraction:
    """Return the number that a floating-point value is.

    Raises:
        UnreadableError: If it is not finite.
    """
    if not math.isfinite(value):
        raise UnreadableError(f"a constant is {value}")
    return Fraction(value)


@dataclass
class Axes:
    """What is known of the axes of one reading, and what it takes for granted.

    Attributes:
        lengths: Length of each axis: a number, or that of another axis; unknown where it is missing.
        assumed: Axes of unknown length that met one of a known length: they are taken to be as long.
        ideals: Numbers whose roundings stand for them, as 1/3 in float32.
        counts: Whether the rounding of 1/k stands for 1/k, whatever the whole number k.
        rounded: The numbers that were taken so, and what stands there in their place.
    """

    lengths: dict[str, Expr] = field(default_factory=dict)
    assumed: dict[str, Expr] = field(default_factory=dict)
    ideals: tuple[Fraction, ...] = ()
    counts: bool = False
    rounded: dict[Fraction, Fraction] = field(default_factory=dict)

    def fresh(self, place: int, length: Expr) -> str:
        """Return a new axis, along which something is repeated."""
        axis = f"?repeated{len(self.lengths)}.{place}"
        self.lengths[axis] = length
        return axis

    def length(self, axis: str) -> Expr:
        """Return the length of an axis."""
        return self.lengths.get(axis) or Expr.of(Size(axis))

    def count(self, axes: Iterable[str]) -> Expr:
        """Return the number of elements along axes."""
        total = Expr.number(1)
        for axis in axes:
            total = total * self.length(axis)
        return total

    def is_one(self, axis: str) -> bool:
        """Whether an axis is known to have length one."""
        return self.length(axis) == Expr.number(1)

    def number(self, value: float, dtype: np.dtype[np.generic]) -> Fraction:
        """Return what a constant stands for: itself, or the number that it is the rounding of."""
        found = exact(float(value))
        if dtype.kind != "f" or not found:
            return found
        for ideal in self.ideals:
            # A double that is computed may be off by one in its last place before it is rounded.
            if found != ideal and abs(found - ideal) <= Fraction(
                float(np.spacing(np.asarray(float(ideal)).astype(dtype)))
            ):
                self.rounded[ideal] = found
                return ideal
        if self.counts and 0 < found < 1 and (k := round(1 / found)) < 1 << 24:
            count = Fraction(1, k)
            if found != count and float(np.asarray(1 / k).astype(dtype)) == found:
                self.rounded[count] = found
                return count
        return found

    def tensor(self, value: Value | None) -> Tensor:
        """Return a value as a tensor.

        Raises:
            UnreadableError: If it is none, or a constant that has no numbers.
        """
        if isinstance(value, Tensor):
            return value
        if isinstance(value, Sizes):
            if len(value.entries) == 1:
                return Tensor(value.entries[0], () if value.scalar else ((),))
            raise UnreadableError("several sizes as a tensor")
        if value is None:
            raise UnreadableError("an input is missing")
        return self._stored(value)

    def _stored(self, value: Constant) -> Tensor:
        array = value.array
        if array.dtype.kind not in "fiuV" or array.size == 0:
            raise UnreadableError(f"a constant of type {array.dtype} and shape {array.shape}")
        first = array.ravel()[0]
        if array.size == 1 and not value.named:
            return Tensor(Expr.number(self.number(first, array.dtype)), ((),) * array.ndim)
        uniform = None
        if not value.named and bool(np.all(array == first)) and math.isfinite(float(first)):
            uniform = self.number(first, array.dtype)
        layout: Layout = tuple(
            (f"?{value.name}.{place}",) if length > 1 or value.named else () for place, length in enumerate(array.shape)
        )
        for group, length in zip(layout, array.shape, strict=True):
            for axis in group:
                self.lengths[axis] = Expr.number(length)
        return Tensor(Expr.of(Parameter(value.name, layout, uniform)), layout)

    def sizes(self, value: Value | None) -> Sizes:
        """Return a value as sizes.

        Raises:
            UnreadableError: If it is none.
        """
        if isinstance(value, Sizes):
            return value
        if isinstance(value, Constant) and value.array.ndim <= 1 and value.array.dtype.kind in "iuf":
            whole = value.array.dtype.kind in "iu"
            entries = tuple(Expr.number(exact(float(entry))) for entry in value.array.ravel())
            return Sizes(entries, value.array.ndim == 0, whole)
        raise UnreadableError("a tensor is read as sizes")

    def integers(self, value: Value | None) -> tuple[int, ...]:
        """Return a value as whole numbers.

        Raises:
            UnreadableError: If it is none.
        """
        entries = [entry.integer for entry in self.sizes(value).entries]
        found = tuple(entry for entry in entries if entry is not None)
        if len(found) != len(entries):
            raise UnreadableError("numbers that are computed at run time")
        return found
