"""What an expression of normswap.algebra is for given numbers, in float64: by NumPy, one atom after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np

from normswap.algebra.expressions import Atom, Call, Expr, Input, Mean, Monomial, Parameter, Root, Size
from normswap.algebra.values import Axes, Layout, Tensor

__all__ = ["Numbers"]

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Abs": np.abs,
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Max": lambda *values: np.maximum.reduce(np.broadcast_arrays(*values)),
    "Min": lambda *values: np.minimum.reduce(np.broadcast_arrays(*values)),
    "Not": np.logical_not,
    "Where": np.where,
}


class Numbers:
    """Numbers for x, parameters and lengths, with which expressions are computed.

    Args:
        x: The tensor that was read over.
        layout: Axes of its dimensions.
        axes: What the reading knew of them.
        parameters: Arrays by the names of parameters.
    """

    def __init__(self, x: Any, layout: Layout, axes: Axes, parameters: Mapping[Hashable, Any]) -> None:
        self.x = np.asarray(x, np.float64)
        self.layout = layout
        self.axes = axes
        self.parameters = parameters
        self.lengths: dict[str, int] = {}
        for group, length in zip(layout, self.x.shape, strict=True):
            if len(group) == 1:
                self.lengths[group[0]] = length
            else:
                self.lengths |= {axis: int(axes.length(axis).constant) for axis in group}
                assert math.prod(self.lengths[axis] for axis in group) == length
        self.order: list[str] = list(self.lengths)

    def tensor(self, value: Tensor) -> Any:
        """Compute a tensor, its dimensions as its layout says."""
        named = [axis for group in value.layout for axis in group]
        for axis in named:
            self._place(axis)
        array = self.expr(value.expr)
        array = array.reshape(array.shape + (1,) * (len(self.order) - array.ndim))
        shape = [self.lengths[axis] if axis in named else 1 for axis in self.order]
        assert all(have in (1, want) for have, want in zip(array.shape, shape, strict=True)), "it varies along more"
        array = np.broadcast_to(array, shape)
        kept = [self.order.index(axis) for axis in named]
        rest = [place for place in range(array.ndim) if place not in kept]
        return array.transpose(*kept, *rest).reshape([math.prod(self.lengths[a] for a in g) for g in value.layout])

    def expr(self, value: Expr) -> Any:
        """Compute an expression, one dimension for each axis, in the order that they were met in."""
        total = np.zeros(())
        for monomial, factor in value.terms.items():
            total = _added(total, self._monomial(monomial) * float(factor))
        return total

    def _monomial(self, monomial: Monomial) -> Any:
        product = np.ones(())
        for atom, power in monomial:
            array = self._atom(atom)
            product, array = _padded(product, array)
            product = product * array ** float(power)
        return product

    def _place(self, axis: str) -> int:
        if axis not in self.lengths:
            self.lengths[axis] = int(np.ravel(self.expr(self.axes.length(axis)))[0])
            self.order.append(axis)
        return self.order.index(axis)

    def _laid(self, array: Any, dims: Layout) -> Any:
        """Lay an array out, one dimension for each axis."""
        named = [axis for group in dims for axis in group]
        places = [self._place(axis) for axis in named]
        flat = array.reshape([self.lengths[axis] for axis in named])
        shape = [1] * len(self.order)
        order = sorted(range(len(named)), key=lambda i: places[i])
        for i in order:
            shape[places[i]] = self.lengths[named[i]]
        return flat.transpose(order).reshape(shape)

    def _atom(self, atom: Atom) -> Any:
        if isinstance(atom, Input):
            return self._laid(self.x, self.layout)
        if isinstance(atom, Parameter):
            return self._laid(np.asarray(self.parameters[atom.name], np.float64), atom.dims)
        if isinstance(atom, Size):
            return np.asarray(float(self.lengths[atom.axis]))
        if isinstance(atom, Mean):
            array = self._monomial(atom.of)
            return array.mean(axis=tuple(self._place(axis) for axis in atom.over), keepdims=True)
        if isinstance(atom, Call):
            arrays = [self.expr(argument) for argument in atom.arguments]
            rank = max(array.ndim for array in arrays)
            arrays = [array.reshape(array.shape + (1,) * (rank - array.ndim)) for array in arrays]
            return np.asarray(_FUNCTIONS[atom.function](*arrays), np.float64)
        assert isinstance(atom, Root), "all kinds of atoms are here"
        return self.expr(atom.base)


def _padded(one: Any, two: Any) -> tuple[Any, Any]:
    """Give arrays the same number of dimensions; axes that were met later come last."""
    rank = max(one.ndim, two.ndim)
    first, second = (array.reshape(array.shape + (1,) * (rank - array.ndim)) for array in (one, two))
    return first, second


def _added(one: Any, two: Any) -> Any:
    one, two = _padded(one, two)
    return one + two
