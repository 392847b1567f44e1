"""Rules of operators that lay a tensor out anew, and leave its values alone."""

from __future__ import annotations

from normswap.algebra.errors import UnreadableError
from normswap.algebra.expressions import Expr
from normswap.algebra.layouts import reshaped, unique
from normswap.algebra.operator import Operator
from normswap.algebra.values import Layout, Sizes, Tensor, Value

__all__ = ["expand", "flatten", "reshape", "squeeze", "tile", "transpose", "unsqueeze"]


def transpose(operator: Operator) -> Value:
    """Transpose: dimensions in another order, the reverse one where none is given."""
    tensor = operator.tensor()
    order = operator.attributes.get("perm") or tuple(reversed(range(tensor.rank)))
    if sorted(order) != list(range(tensor.rank)):
        raise UnreadableError(f"perm {list(order)} of a tensor of rank {tensor.rank}")
    return Tensor(tensor.expr, tuple(tensor.layout[place] for place in order))


def squeeze(operator: Operator) -> Value:
    """Squeeze: drop dimensions of length one."""
    value = operator.value(0)
    if isinstance(value, Sizes):
        if value.scalar or len(value.entries) != 1:
            raise UnreadableError("Squeeze of several sizes")
        return Sizes(value.entries, scalar=True, whole=value.whole)
    tensor = operator.tensor()
    given = operator.integers("axes", 1)
    if given is None:
        places = frozenset(place for place, group in enumerate(tensor.layout) if _is_one(operator, group))
        if any(not operator.axes.count(group).is_number for group in tensor.layout):
            raise UnreadableError("Squeeze without axes, where a length is not known")
    else:
        places = _places(given, tensor.rank)
        if any(not _is_one(operator, tensor.layout[place]) for place in places):
            raise UnreadableError("Squeeze of an axis that is not known to have length one")
    return Tensor(tensor.expr, tuple(group for place, group in enumerate(tensor.layout) if place not in places))


def _is_one(operator: Operator, group: tuple[str, ...]) -> bool:
    return operator.axes.count(group) == Expr.number(1)


def _places(given: tuple[int, ...], rank: int) -> frozenset[int]:
    if any(not -rank <= axis < rank for axis in given):
        raise UnreadableError(f"axes {given} of rank {rank}")
    return frozenset(axis % rank for axis in given)


def unsqueeze(operator: Operator) -> Value:
    """Unsqueeze: dimensions of length one, at their places in the result."""
    value = operator.value(0)
    if isinstance(value, Sizes):
        if not value.scalar:
            raise UnreadableError("Unsqueeze of a vector of sizes")
        return Sizes(value.entries, scalar=False, whole=value.whole)
    tensor = operator.tensor()
    given = operator.integers("axes", 1)
    if given is None:
        raise UnreadableError("Unsqueeze without axes")
    layout = list(tensor.layout)
    for place in sorted(_places(given, tensor.rank + len(given))):
        layout.insert(place, ())
    return Tensor(tensor.expr, tuple(layout))


def reshape(operator: Operator) -> Value:
    """Reshape, its shape an attribute or an input; 0 copies a length, -1 stands for what is left."""
    value = operator.value(0)
    if isinstance(value, Sizes):
        return _reshaped_sizes(operator, value)
    tensor = operator.tensor()
    if "shape" in operator.attributes:
        wanted = tuple(Expr.number(length) for length in operator.attributes["shape"])
    else:
        wanted = operator.axes.sizes(operator.value(1)).entries
    if not operator.attribute("allowzero", 0):
        wanted = tuple(length or _copied(operator, tensor.layout, place)
                       for place, length in enumerate(wanted))  # fmt: skip
    return reshaped(operator.axes, tensor, wanted)


def _copied(operator: Operator, layout: Layout, place: int) -> Expr:
    if place >= len(layout):
        raise UnreadableError("a Reshape that copies a dimension that is not there")
    return operator.axes.count(layout[place])


def _reshaped_sizes(operator: Operator, value: Sizes) -> Sizes:
    wanted = operator.integers("shape", 1)
    if wanted == () and len(value.entries) == 1:
        return Sizes(value.entries, scalar=True, whole=value.whole)
    if wanted in ((-1,), (len(value.entries),)):
        return Sizes(value.entries, scalar=False, whole=value.whole)
    raise UnreadableError("a Reshape of sizes")


def flatten(operator: Operator) -> Value:
    """Flatten: all dimensions before an axis as one, and all others as one."""
    tensor = operator.tensor()
    axis = operator.attribute("axis", 1)
    axis = axis + tensor.rank if axis < 0 else axis
    if not 0 <= axis <= tensor.rank:
        raise UnreadableError(f"Flatten at axis {axis} of rank {tensor.rank}")
    front, back = tensor.layout[:axis], tensor.layout[axis:]
    groups = tuple(tuple(axis for group in part for axis in group) for part in (front, back))
    return Tensor(tensor.expr, groups)


def expand(operator: Operator) -> Value:
    """Expand: dimensions of length one repeated along axes of their own, which take the name of what they meet."""
    operator.refuse_sizes_of_data()
    tensor = operator.tensor()
    wanted = operator.axes.sizes(operator.value(1)).entries
    rank = max(tensor.rank, len(wanted))
    groups = ((),) * (rank - tensor.rank) + tensor.layout
    lengths = (Expr.number(1),) * (rank - len(wanted)) + tuple(wanted)
    return Tensor(tensor.expr, unique(_repeated(operator, groups, lengths, expands=True)))


def tile(operator: Operator) -> Value:
    """Tile, a number of times that is an input from version 6 on."""
    operator.refuse_sizes_of_data()
    tensor = operator.tensor()
    times = operator.axes.sizes(operator.value(1)).entries
    if len(times) != tensor.rank:
        raise UnreadableError("Tile of another rank")
    return Tensor(tensor.expr, unique(_repeated(operator, tensor.layout, times, expands=False)))


def _repeated(operator: Operator, groups: Layout, lengths: tuple[Expr, ...], *, expands: bool) -> Layout:
    layout = []
    for place, (group, length) in enumerate(zip(groups, lengths, strict=True)):
        if length == Expr.number(1) or (expands and length == operator.axes.count(group)):
            layout.append(group)
        elif expands and group:
            raise UnreadableError("Expand of an axis whose length is not that of the shape")
        else:
            fresh = operator.axes.fresh(place, length)
            layout.append((fresh, *group))
    return tuple(layout)
