"""Hits: the values around an anchor that are normalizations of one tensor x."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

from normswap.algebra.errors import TooLargeError, UnreadableError
from normswap.algebra.expressions import Expr, Mean, Root
from normswap.algebra.graph import Graph, Key, Node
from normswap.algebra.reader import Reader, layout_of, retried, split_layout
from normswap.algebra.recognition import Form, is_whole, normalizes_without_form, recognized
from normswap.algebra.rules_onnx import Rules
from normswap.algebra.surroundings import Bounds, behind
from normswap.algebra.values import Axes, Layout, Tensor

__all__ = ["Hit", "hits_over"]

_LAYOUT = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast"})


@dataclass(frozen=True, eq=False)
class Hit:
    """A value that is a normalization of x.

    Attributes:
        form: How it is one.
        y: Its key.
        tensor: What it computes.
        layout: Axes of the dimensions of x.
        axes: What was known and assumed of these.
        world: Which way conditions went.
    """

    form: Form
    y: Key
    tensor: Tensor
    layout: Layout
    axes: Axes
    world: Mapping[Key, bool]

    @property
    def rounded(self) -> frozenset[Fraction]:
        """Numbers of which the graph holds the rounding."""
        return frozenset(self.axes.rounded)


def hits_over(
    graph: Graph,
    rules: Rules,
    anchor: Node,
    x: Key,
    *,
    fused: bool = False,
    world: Mapping[Key, bool] | None = None,
    only: Key | None = None,
    bounds: Bounds | None = None,
) -> list[Hit]:
    """Return the values around an anchor that are normalizations of x, each the last along its readers.

    Args:
        graph: The graph.
        rules: The table of rules.
        anchor: The node around which to look.
        x: The tensor.
        fused: Whether the anchor's own output may be one.
        world: Which way conditions go; those of the anchor's own branches where it is left out.
        only: The value to look at, where it is known already.
        bounds: Notes that the search came to a bound.

    Raises:
        UnreadableError: If nothing can be read over x.
    """
    dims = graph.dims(x)
    if dims is None:
        raise UnreadableError("an x of unknown rank")
    if not graph.is_real(x):
        raise UnreadableError("an x of whole numbers")
    assert anchor.output is not None, "an anchor has an output"
    bounds = bounds or Bounds()
    names = [only] if only is not None else [
        *([anchor.output] if fused else []), *behind(graph, rules, anchor.output, bounds)
    ]  # fmt: skip
    start = dict(anchor.conditions) if world is None else world

    symbols = {dim: str(place) for place, dim in enumerate(dims) if isinstance(dim, str)}

    def read(splits: Mapping[str, tuple[int, int]], *, counts: bool) -> list[Hit]:
        layout, lengths = layout_of(dims)
        axes = Axes(lengths, counts=counts)
        named = split_layout(layout, axes, splits)
        reader = Reader(graph, x, named, axes, symbols=symbols, world=start, rules=rules)
        if only is None and not fused and not start and not _may_normalize(reader, anchor):
            return []
        return _heads(reader, names, _readings(reader, names, bounds))

    # Numbers are what they are, unless a count that is written as the rounding of 1/k is needed to see a mean.
    hits = retried(partial(read, counts=False))
    if any(hit.form.kind in ("own", "stored", "corrected") for hit in hits):
        return hits
    return retried(partial(read, counts=True)) or hits


def _may_normalize(reader: Reader, anchor: Node) -> bool:
    """Whether an anchor is the root of a statistic of x, or of stored values."""
    assert anchor.output is not None, "an anchor has an output"
    if reader.graph.is_constant(anchor.output):
        return True
    roots = [atom for atom in reader.tensor(anchor.output).expr.atoms() if isinstance(atom, Root)]
    return any(isinstance(atom, Mean) for root in roots for atom in root.base.atoms())


def _readings(reader: Reader, names: list[Key], bounds: Bounds) -> dict[Key, Hit]:
    found: dict[Key, Hit] = {}
    vague: dict[Key, Hit] = {}
    for name in names:
        try:
            tensor = reader.tensor(name)
            form = recognized(tensor.expr, reader.input)
            if form is not None:
                found[name] = Hit(form, name, tensor, reader.layout, reader.axes, reader.world)
            elif normalizes_without_form(tensor.expr, reader.input):
                zero = Expr({})
                form = Form("unknown", zero, zero, Fraction(0), zero, zero)
                vague[name] = Hit(form, name, tensor, reader.layout, reader.axes, reader.world)
        except TooLargeError:
            bounds.reached = True
        except UnreadableError:
            continue
    return found or vague


def _heads(reader: Reader, names: list[Key], found: Mapping[Key, Hit]) -> list[Hit]:
    """Return, of values that are read one by the next, the last that is a whole normalization."""
    graph = reader.graph
    heads: list[Hit] = []
    used: set[Key] = set()
    for name in names:
        if name not in found or name in used:
            continue
        chain = [name]
        while True:
            used.add(chain[-1])
            following = _following(graph, chain[-1])
            if following is None or following not in found:
                break
            if is_whole(found[chain[-1]].form) and not is_whole(found[following].form):
                break
            chain.append(following)
        used.update(key for key in _reached(graph, name, found) if key in found)
        if last := _last(graph, reader.layout, [found[key] for key in chain]):
            heads.append(last)
    return heads


def _following(graph: Graph, key: Key) -> Key | None:
    """Return the output of the only reader of a value."""
    users = graph.users(key)
    if len(users) != 1 or graph.is_output(key) or users[0].branches is not None:
        return None
    return users[0].output


def _reached(graph: Graph, start: Key, among: Mapping[Key, Hit]) -> set[Key]:
    """Return which of some values are computed from one."""
    reached: set[Key] = set()
    pending = [start]
    while pending:
        for user in graph.users(pending.pop()):
            output = user.output
            if output is not None and output in among and output not in reached:
                reached.add(output)
                pending.append(output)
    return reached


def _last(graph: Graph, layout: Layout, chain: list[Hit]) -> Hit | None:
    whole = [hit for hit in chain if sorted(filter(None, hit.tensor.layout)) == sorted(layout)]
    whole = [hit for hit in whole if hit.tensor.rank == len(layout)] or whole
    computing = [hit for hit in whole if (node := graph.producer(hit.y)) is not None and node.op_type not in _LAYOUT]
    best = computing or whole
    return best[-1] if best else None
