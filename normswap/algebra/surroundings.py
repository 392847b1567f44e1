"""Surroundings of an anchor: what it is computed from, what is computed from it, and what serves a value alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from normswap.algebra.graph import Graph, Key, Node
from normswap.algebra.rules_onnx import Rules

__all__ = ["Bounds", "behind", "cuts", "serving"]

_MOST_BEFORE = 200  # values that are followed back from an anchor
_MOST_BEHIND = 60  # nodes that are followed from an anchor on


_REDUCING = frozenset({"ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "GlobalAveragePool"})


class Bounds:
    """Whether a search came to its bound, so that what it did not find may still be there."""

    def __init__(self) -> None:
        self.reached = False


def cuts(graph: Graph, rules: Rules, start: Iterable[Key], bounds: Bounds, *, reduced: bool = False) -> Iterator[Key]:
    """Yield the values that all of ``start`` is computed from, the latest first.

    Args:
        graph: The graph.
        rules: Operators without a rule are not looked behind.
        start: The values.
        bounds: Notes that the search came to a bound.
        reduced: Only values that a mean or sum has been taken of: over no other are they a statistic.
    """
    front = {key for key in start if not graph.is_constant(key)}
    seen = not reduced
    for _ in range(_MOST_BEFORE):
        if not front:
            return
        latest = max(front, key=lambda key: _position(graph, key))
        if len(front) == 1 and seen:
            yield latest
        front.discard(latest)
        node = graph.producer(latest)
        if node is None or (node.kind not in rules and node.branches is None):
            return
        seen = seen or node.op_type in _REDUCING
        # Whole numbers are lengths, wherever they come from.
        front |= {key for key in _data(node) if not graph.is_constant(key) and graph.is_real(key)}
    bounds.reached |= seen


def _position(graph: Graph, key: Key) -> int:
    node = graph.producer(key)
    return -1 if node is None else node.position


def _data(node: Node) -> Iterator[Key]:
    """Yield the inputs whose values matter, not only their shape."""
    if node.op_type in ("Shape", "Size"):
        return
    if node.branches is not None:
        for outputs in node.branches.values():
            yield from outputs
        return
    for key in node.inputs[:1] if node.op_type == "Reshape" else node.inputs:
        if key is not None:
            yield key


def behind(graph: Graph, rules: Rules, start: Key, bounds: Bounds, most: int = _MOST_BEHIND) -> list[Key]:
    """Return the values that are computed from one by operators that have rules, in the order of their positions."""
    seen: set[int] = set()
    found: list[tuple[int, Key]] = []
    pending = [start]
    for key in pending:
        for user in graph.users(key):
            if user.position in seen or (user.kind not in rules and user.branches is None) or user.output is None:
                continue
            if len(seen) >= most:
                bounds.reached = True
                break
            seen.add(user.position)
            found.append((user.position, user.output))
            pending.append(user.output)
    return [key for _, key in sorted(found, key=lambda pair: pair[0])]


def serving(graph: Graph, x: Key, y: Key) -> tuple[Node, ...]:
    """Return the nodes that compute y from x and from constants, and nothing else that is read anywhere.

    Nodes that compute constants are among them where nothing else reads these.
    """
    found: dict[int, Node] = {}
    pending = [y]
    while pending:
        key = pending.pop()
        node = graph.producer(key)
        if key == x or node is None or node.position in found:
            continue
        found[node.position] = node
        pending += [read for read in _all_reads(node) if read != x]
    kept = dict(found)
    for position in sorted(found, reverse=True):
        node = found[position]
        outputs = [key for key in node.outputs if key is not None]
        outside = any(
            graph.is_output(key) or any(user.position not in kept for user in graph.users(key))
            for key in outputs
            if key != y
        )
        if outside and y not in outputs:
            del kept[position]
    return tuple(kept[position] for position in sorted(kept))


def _all_reads(node: Node) -> list[Key]:
    reads = [key for key in node.inputs if key is not None]
    for outputs in (node.branches or {}).values():
        reads += outputs
    return reads
