"""Layouts: how two tensors broadcast, and how Reshape merges and splits axes."""

from __future__ import annotations

from normswap.algebra.errors import AxisSplitError, UnreadableError
from normswap.algebra.expressions import Expr, Group
from normswap.algebra.substitution import renamed
from normswap.algebra.values import Axes, Layout, Tensor, is_fresh

__all__ = ["aligned", "reshaped", "unique"]


def unique(layout: Layout) -> Layout:
    """Return a layout, each of whose axes stands in one dimension alone.

    Raises:
        UnreadableError: If one stands in two, as in an outer product: the expression would be its diagonal.
    """
    names = [axis for group in layout for axis in group]
    if len(names) != len(set(names)):
        raise UnreadableError("an outer product: one axis in two dimensions")
    return layout


def aligned(axes: Axes, *tensors: Tensor) -> tuple[list[Expr], Layout]:
    """Broadcast tensors against each other: lay their expressions out over the same axes."""
    exprs = [tensors[0].expr]
    layout = tensors[0].layout
    for tensor in tensors[1:]:
        first, second, layout = _both(axes, layout, tensor.layout)
        exprs = [*(renamed(expr, first) for expr in exprs), renamed(tensor.expr, second)]
    return exprs, unique(layout)


def _both(axes: Axes, left: Layout, right: Layout) -> tuple[dict[str, Group], dict[str, Group], Layout]:
    """Return what the axes of either are to be called, and the layout of both."""
    rank = max(len(left), len(right))
    names: tuple[dict[str, Group], dict[str, Group]] = ({}, {})
    layout: list[Group] = []
    for one, two in zip(_padded(left, rank), _padded(right, rank), strict=True):
        if not one or not two or one == two:
            layout.append(one or two)
        elif _takes(axes, two, one):
            names[1].update(_names(two, one))
            layout.append(one)
        elif _takes(axes, one, two):
            names[0].update(_names(one, two))
            layout.append(two)
        else:
            raise UnreadableError(f"axes {one} and {two} do not line up")
    return *names, tuple(layout)


def _padded(layout: Layout, rank: int) -> Layout:
    return ((),) * (rank - len(layout)) + layout


def _names(fresh: Group, group: Group) -> dict[str, Group]:
    if len(fresh) == 1:
        return {fresh[0]: group}
    return {new: (old,) for new, old in zip(fresh, group, strict=True)}


def _takes(axes: Axes, fresh: Group, group: Group) -> bool:
    """Whether a group of fresh axes can stand for another group; an unknown length is noted as assumed."""
    if not all(map(is_fresh, fresh)) or len(fresh) not in (1, len(group)):
        return False
    pairs = [(fresh, group)] if len(fresh) == 1 else [((new,), (old,)) for new, old in zip(fresh, group, strict=True)]
    for new, old in pairs:
        own, other = axes.count(new), axes.count(old)
        if own == other:
            continue
        if own.is_number and other.is_number:
            raise UnreadableError(f"lengths {own.constant} and {other.constant} meet")
        # Either may be 1, and then it broadcasts: what is read holds where they are equal.
        open_axes = [axis for axis in (*old, *new) if not axes.length(axis).is_number]
        known = own if own.is_number else other
        axes.assumed.update(dict.fromkeys(open_axes, known))
        if len(open_axes) == 1 and len(old) == 1 and known.is_number:
            axes.lengths[open_axes[0]] = known
    return True


def reshaped(axes: Axes, tensor: Tensor, wanted: tuple[Expr, ...]) -> Tensor:
    """Lay the elements of a tensor out in another shape, in which axes are merged or split but never cut unevenly.

    Args:
        axes: Lengths of the axes.
        tensor: The tensor.
        wanted: Lengths, of which one may be -1: what is left.

    Raises:
        AxisSplitError: If an axis has to be split in two.
        UnreadableError: If the dimensions do not line up.
    """
    source = [axis for group in tensor.layout for axis in group]
    rest = Expr.number(-1)
    if list(wanted).count(rest) > 1:
        raise UnreadableError("a shape with two unknown lengths")
    place = wanted.index(rest) if rest in wanted else len(wanted)
    front = [_take(axes, length, source, first=True) for length in wanted[:place]]
    back = [_take(axes, length, source, first=False) for length in reversed(wanted[place + 1 :])]
    middle: list[Group] = []
    if place < len(wanted):
        middle, source = [tuple(source)], []
    if any(not axes.is_one(axis) for axis in source):
        raise UnreadableError("a shape of fewer elements")
    return Tensor(tensor.expr, (*front, *middle, *reversed(back)))


def _take(axes: Axes, length: Expr, source: list[str], *, first: bool) -> Group:
    """Take as many axes off one end of ``source`` as make a length."""
    end = 0 if first else -1
    if length == Expr.number(1):
        return (source.pop(end),) if source and axes.is_one(source[end]) else ()
    taken: list[str] = []
    while source:
        axis = source[end]
        together = [*taken, axis] if first else [axis, *taken]
        count = axes.count(together)
        if count.is_number and length.is_number and count.constant > length.constant:
            raise _split(axes, axis, axes.count(taken), length, first=first)
        source.pop(end)
        taken = together
        if count == length:
            return tuple(taken)
    raise UnreadableError("the dimensions of a Reshape do not line up")


def _split(axes: Axes, axis: str, before: Expr, length: Expr, *, first: bool) -> AxisSplitError | UnreadableError:
    whole = axes.length(axis).integer
    part = (length / before).integer
    if whole is None or part is None or part <= 1 or whole % part or is_fresh(axis) or "." in axis:
        return UnreadableError("a Reshape that cuts across an axis")
    return AxisSplitError(axis, (part, whole // part) if first else (whole // part, part))
