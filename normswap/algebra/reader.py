"""Reader: the expressions of a graph's values over one tensor x."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from normswap.algebra.errors import AxisSplitError, TooLargeError, UnreadableError
from normswap.algebra.expressions import Expr, Group, Input, Parameter, Size
from normswap.algebra.graph import Graph, Key, Node
from normswap.algebra.operator import Operator
from normswap.algebra.rules_onnx import RULES, Rules
from normswap.algebra.values import Axes, Constant, Layout, Sizes, Tensor, Value
from normswap.layer import Dim

__all__ = ["Reader", "layout_of", "retried", "split_layout"]

_MOST_OPERATORS = 400  # read for one x; a normalization has about twenty
_DEEPEST = 150  # of one operator reading another
_MOST_SPLITS = 4

# Operators of which constants are read as expressions, so that sqrt(var + eps) of stored values shows what it is.
_TRANSPARENT = frozenset({"Add", "Sub", "Mul", "Div", "Sqrt", "Reciprocal", "Pow", "Neg", "Identity", "Cast", "Reshape",
                          "Unsqueeze", "Squeeze", "Transpose"})  # fmt: skip

T = TypeVar("T")


def layout_of(dims: tuple[Dim, ...], names: tuple[str, ...] | None = None) -> tuple[Layout, dict[str, Expr]]:
    """Name the dimensions of x, after their places where no names are given; return known lengths too."""
    names = names or tuple(map(str, range(len(dims))))
    lengths = {name: Expr.number(dim) for name, dim in zip(names, dims, strict=True) if isinstance(dim, int)}
    return tuple((name,) for name in names), lengths


class Reader:
    """Reads values of a graph as expressions over x.

    Args:
        graph: The graph.
        x: Key of the tensor that values are read over.
        layout: Axes of its dimensions.
        axes: Lengths of these, and what counts as a rounding of what.
        given: Values that stand for themselves, as parameters do.
        symbols: Axes of x by the strings that stand for their lengths.
        world: Which way conditions go; the branch that is taken where nothing is known is noted in it.
        rules: The table of rules.
    """

    def __init__(
        self,
        graph: Graph,
        x: Key,
        layout: Layout,
        axes: Axes,
        *,
        given: Mapping[Key, Value] | None = None,
        symbols: Mapping[str, str] | None = None,
        world: Mapping[Key, bool] | None = None,
        rules: Rules = RULES,
    ) -> None:
        self.graph = graph
        self.x = x
        self.layout = layout
        self.axes = axes
        self.world = dict(world or {})
        self.input = Input(frozenset(axis for group in layout for axis in group))
        self._rules = rules
        self._symbols = symbols or {}
        self._known: dict[Key, Value | UnreadableError] = {**(given or {}), x: Tensor(Expr.of(self.input), layout)}
        producer = graph.producer(x)
        self._start = -1 if producer is None else producer.position
        self._read = 0
        self._depth = 0

    def value(self, key: Key) -> Value:
        """Read a value.

        Raises:
            UnreadableError: If it has no expression.
            AxisSplitError: If an axis of x has to be split first.
        """
        if key not in self._known:
            try:
                self._known[key] = self._computed(key)
            except UnreadableError as error:
                self._known[key] = error
        found = self._known[key]
        if isinstance(found, UnreadableError):
            raise found
        return found

    def tensor(self, key: Key) -> Tensor:
        """Read a value as a tensor; see ``value``."""
        return self.axes.tensor(self.value(key))

    def _computed(self, key: Key) -> Value:
        node = self.graph.producer(key)
        constant = self.graph.is_constant(key)
        if node is None or (constant and node.op_type not in _TRANSPARENT):
            return self._stored(key) if constant else self._given(key)
        if node.kind == ("", "Shape") and node.inputs[0] is not None and not self._is_readable(node.inputs[0]):
            return self._lengths_of(node, node.inputs[0])
        if node.position < self._start and not constant:
            raise UnreadableError("it is not computed from x")
        if node.branches is not None:
            return self._branch(node, key)
        rule = self._rules.get(node.kind)
        if rule is None:
            raise UnreadableError(f"{node.op_type} has no rule")
        if node.output != key:
            raise UnreadableError(f"a further output of {node.op_type} has no rule")
        self._read += 1
        if self._read > _MOST_OPERATORS or self._depth > _DEEPEST:
            raise TooLargeError("more operators than a normalization has")
        self._depth += 1
        try:
            inputs = tuple(None if read is None else self.value(read) for read in node.inputs)
        finally:
            self._depth -= 1
        if constant and any(isinstance(value, Constant) and value.array.dtype.kind in "iub" for value in inputs[:1]):
            return self._stored(key)
        outputs = sum(output is not None for output in node.outputs)
        return rule(Operator(node.op_type, node.attributes, inputs, node.opset, self.axes, outputs, node.domain))

    def _is_readable(self, key: Key) -> bool:
        try:
            self.value(key)
        except UnreadableError:
            return False
        return True

    def _lengths_of(self, node: Node, key: Key) -> Value:
        """Return the shape of a value that is not computed from x: what is declared of it, or lengths of their own."""
        dims = self.graph.dims(key)
        if dims is None:
            raise UnreadableError("a shape of unknown rank")
        entries = []
        for place, dim in enumerate(dims):
            if isinstance(dim, int):
                entries.append(Expr.number(dim))
            elif dim is not None and dim in self._symbols:
                entries.append(self.axes.length(self._symbols[dim]))
            else:
                entries.append(Expr.of(Size(f"#{dim or f'{key}.{place}'}")))
        return Sizes(tuple(entries[node.attributes.get("start") : node.attributes.get("end")]))

    def _stored(self, key: Key) -> Value:
        array = self.graph.array(key)
        if array is None:
            raise UnreadableError("a constant that cannot be evaluated")
        return Constant(array, key)

    def _given(self, key: Key) -> Value:
        """Take a vector that the caller gives as a parameter."""
        dims = self.graph.dims(key)
        if not self.graph.is_input(key) or dims is None or len(dims) != 1 or not self.graph.is_real(key):
            raise UnreadableError("it is not computed from x")
        axis = f"?{key}.0"
        if isinstance(dims[0], int):
            self.axes.lengths[axis] = Expr.number(dims[0])
        layout: Layout = ((axis,),)
        return Tensor(Expr.of(Parameter(key, layout)), layout)

    def _branch(self, node: Node, key: Key) -> Value:
        assert node.branches is not None and node.inputs[0] is not None, "an If has a condition"
        place = node.outputs.index(key)
        condition = node.inputs[0]
        if condition not in self.world:
            array = self.graph.array(condition) if self.graph.is_constant(condition) else None
            if array is not None:
                return self.value(node.branches[bool(array.ravel()[0])][place])
        if condition not in self.world:
            branches = [self._attempt(node.branches[way][place]) for way in (True, False)]
            if isinstance(branches[0], Tensor) and branches[0] == branches[1]:
                return branches[0]
            self.world.setdefault(condition, True)
        return self.value(node.branches[self.world[condition]][place])

    def _attempt(self, key: Key) -> Value | None:
        try:
            return self.value(key)
        except UnreadableError:
            return None


def retried(make: Callable[[Mapping[str, tuple[int, int]]], T]) -> T:
    """Do something that reads, again and again with the axes split that it asks for.

    Raises:
        UnreadableError: If it asks for too many.
    """
    splits: dict[str, tuple[int, int]] = {}
    for _ in range(_MOST_SPLITS):
        try:
            return make(splits)
        except AxisSplitError as error:
            if error.axis in splits:
                break
            splits[error.axis] = error.lengths
    raise UnreadableError("an axis is split more than once")


def split_layout(layout: Layout, axes: Axes, splits: Mapping[str, tuple[int, int]]) -> Layout:
    """Return a layout whose axes are split, the outer part first, and note the lengths of the parts."""
    groups: list[Group] = []
    for group in layout:
        parts: list[str] = []
        for axis in group:
            if axis not in splits:
                parts.append(axis)
                continue
            for name, length in zip((f"{axis}.0", f"{axis}.1"), splits[axis], strict=True):
                axes.lengths[name] = Expr.number(length)
                parts.append(name)
        groups.append(tuple(parts))
    return tuple(groups)
