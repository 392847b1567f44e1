"""Rules of operators that compute with shapes."""

from __future__ import annotations

from normswap.algebra.errors import UnreadableError
from normswap.algebra.operator import Operator
from normswap.algebra.values import Constant, Sizes, Value

__all__ = ["concat", "gather", "shape", "size", "slice_of"]


def shape(operator: Operator) -> Value:
    """Shape, or from version 15 on a part of it."""
    entries = [operator.axes.count(group) for group in operator.tensor().layout]
    return Sizes(tuple(entries[operator.attributes.get("start") : operator.attributes.get("end")]))


def size(operator: Operator) -> Value:
    """Size: the number of elements."""
    return Sizes((operator.axes.count(axis for group in operator.tensor().layout for axis in group),), scalar=True)


def gather(operator: Operator) -> Value:
    """Gather entries of sizes."""
    sizes, index = operator.axes.sizes(_sizes_or_array(operator)), operator.value(1)
    if sizes.scalar or not isinstance(index, Constant) or index.array.ndim > 1 or operator.attribute("axis", 0):
        raise UnreadableError("Gather of anything but entries of a shape")
    places = [int(place) for place in index.array.ravel()]
    if any(not -len(sizes.entries) <= place < len(sizes.entries) for place in places):
        raise UnreadableError("Gather outside of a shape")
    return Sizes(tuple(sizes.entries[place] for place in places), index.array.ndim == 0, sizes.whole)


def _sizes_or_array(operator: Operator) -> Value | None:
    value = operator.value(0)
    if isinstance(value, Sizes) or (isinstance(value, Constant) and value.array.dtype.kind in "iu"):
        return value
    raise UnreadableError(f"{operator.op_type} of a tensor")


def slice_of(operator: Operator) -> Value:
    """Slice of sizes, its bounds attributes or, from version 10 on, inputs."""
    sizes = operator.axes.sizes(_sizes_or_array(operator))
    starts, ends = operator.integers("starts", 1), operator.integers("ends", 2)
    steps = operator.integers("steps", 4) or (1,)
    axes = operator.integers("axes", 3) or (0,)
    if sizes.scalar or starts is None or ends is None or len(starts) != 1 or set(axes) - {0, -1} or steps[0] == 0:
        raise UnreadableError("Slice of anything but a shape")
    count = len(sizes.entries)
    # Python cuts as ONNX does, but for an end below -count going backwards, which means "to the very first".
    end: int | None = ends[0]
    if steps[0] < 0 and ends[0] < -count:
        end = None
    return Sizes(sizes.entries[starts[0] : end : steps[0]], False, sizes.whole)


def concat(operator: Operator) -> Value:
    """Concat of sizes along their only axis."""
    parts = [operator.axes.sizes(value) for value in operator.inputs]
    if any(part.scalar for part in parts) or operator.attribute("axis", 0) not in (0, -1):
        raise UnreadableError("Concat of anything but sizes")
    if not any(isinstance(value, Sizes) for value in operator.inputs):
        raise UnreadableError("Concat of constants alone")
    return Sizes(tuple(entry for part in parts for entry in part.entries), False, all(part.whole for part in parts))
