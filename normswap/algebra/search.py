"""Find normalizations in a graph by what they compute.

Around every anchor (a root, or an operator that normalizes) the graph is read over one tensor x; a value counts as
normalized if it equals (x - m) * g / sqrt(v + eps) + b. Three choices carry the search:

- x: the values that all of the anchor is computed from, the latest first. The first over which v is a centred variance
  is taken, then the one before a Reshape or Transpose as long as it stays true, since a GroupNorm is an
  InstanceNormalization between two Reshapes.
- y: the last value of that form along single readers, as long as gain and offset are one parameter each.
- Which way an If goes: once each way, where it matters; the two readings are the two roles of one layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeAlias, cast

from normswap.algebra.errors import TooLargeError, UnreadableError
from normswap.algebra.expressions import HALF, Expr, Parameter
from normswap.algebra.graph import Graph, Key, Node
from normswap.algebra.hits import Hit, hits_over
from normswap.algebra.recognition import Form
from normswap.algebra.roles import Meaning, NormRole, meaning_of
from normswap.algebra.rules_onnx import RULES, Rules
from normswap.algebra.substitution import plain
from normswap.algebra.surroundings import Bounds, behind, cuts, serving

__all__ = ["ANCHORS", "FUSED", "Held", "Missed", "Normalization", "Survey", "find"]

FUSED = frozenset({"BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization",
                   "MeanVarianceNormalization", "RMSNormalization"})  # fmt: skip
ANCHORS = FUSED | {"Sqrt", "Pow"}
_LAYOUT = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast"})
_MOST_CANDIDATES = 14
_NEAR = 12  # operators between a stored deviation and what it scales

Held: TypeAlias = Key | Fraction | None  # the value that holds a parameter, a number, or neither


@dataclass(frozen=True, eq=False)
class Normalization:
    """A piece of a graph that normalizes.

    Attributes:
        meaning: Its role, channels and axes.
        other: Its role where the condition that decides goes the other way; None where nothing decides.
        x: What it normalizes.
        y: What it computes.
        gamma: What holds the gain.
        beta: What holds the offset.
        mean: What holds the stored mean.
        var: What holds the stored variance.
        eps: What is added to the variance.
        places: For each dimension of y, the dimension of x that it is; None for one of length one.
        anchor: The node that it was found by.
        serves: The nodes that compute y and serve nothing else.
        hit: The reading itself.
    """

    meaning: Meaning
    other: NormRole | None
    x: Key
    y: Key
    gamma: Held
    beta: Held
    mean: Held
    var: Held
    eps: Fraction
    places: tuple[int | None, ...]
    anchor: Node
    serves: tuple[Node, ...]
    hit: Hit

    @property
    def role(self) -> NormRole:
        """Its role."""
        return self.meaning.role


@dataclass(frozen=True, eq=False)
class Missed:
    """An anchor whose search came to a bound, so that nothing is known of it."""

    anchor: Node
    reason: str


@dataclass
class Survey:
    """What was found, and what could not be looked at whole."""

    found: list[Normalization] = field(default_factory=list)
    missed: list[Missed] = field(default_factory=list)


def find(graph: Graph, rules: Rules = RULES, *, native: bool = True) -> Survey:
    """Find every normalization of a graph, in the order of the anchors.

    Args:
        graph: The graph.
        rules: The table of rules.
        native: Whether operators that normalize by themselves are read as well. What they compute is known without;
            one whose mean and variance are computed in the graph is always read.
    """
    survey = Survey()
    done: set[Key] = set()
    for anchor in graph.nodes(ANCHORS):
        if anchor.domain or anchor.output is None or not _is_anchor(graph, anchor, native=native):
            continue
        bounds = Bounds()
        x, hits = _best(graph, rules, anchor, bounds)
        for hit in hits:
            if hit.y not in done:
                done.add(hit.y)
                survey.found.append(_normalization(graph, rules, anchor, x, hit))
        if not hits and bounds.reached and not graph.is_constant(anchor.output):
            survey.missed.append(Missed(anchor, "its surroundings are larger than those of any normalization"))
    return survey


def _is_anchor(graph: Graph, node: Node, *, native: bool) -> bool:
    if node.op_type in FUSED:
        wanted = native or _takes_computed_statistics(graph, node)
        return wanted and node.inputs[0] is not None and not graph.is_constant(node.inputs[0])
    if node.op_type == "Sqrt":
        return True
    exponent = node.inputs[1] if len(node.inputs) > 1 else None
    array = graph.array(exponent) if exponent is not None and graph.is_constant(exponent) else None
    return array is not None and array.size == 1 and abs(float(array.ravel()[0])) == float(HALF)


def _best(graph: Graph, rules: Rules, anchor: Node, bounds: Bounds) -> tuple[Key, list[Hit]]:
    """Return the x that an anchor is best read over, with what is found over it."""
    assert anchor.output is not None, "an anchor has an output"
    best: list[Hit] = []
    weak: list[Hit] = []
    best_x = weak_x = last = anchor.output
    for x in _candidates(graph, rules, anchor, bounds):
        if best and (best[0].form.kind == "stored" or not _is_laid_out_from(graph, last, x)):
            break
        try:
            hits = hits_over(graph, rules, anchor, x, fused=anchor.op_type in FUSED, bounds=bounds)
        except TooLargeError:
            bounds.reached, hits = True, []
        except UnreadableError:
            hits = []
        strong = [hit for hit in hits if hit.form.kind in ("own", "stored", "corrected")]
        if strong and len(strong) >= len(best):
            best, best_x = strong, x
        elif hits and not best and not weak:
            weak, weak_x = hits, x
        last = x
    return (best_x, best) if best else (weak_x, weak)


def _is_laid_out_from(graph: Graph, key: Key, x: Key) -> bool:
    node = graph.producer(key)
    return node is not None and node.op_type in _LAYOUT and node.inputs[0] == x


def _candidates(graph: Graph, rules: Rules, anchor: Node, bounds: Bounds) -> Iterator[Key]:
    """Yield values that may be what is normalized, the most likely first."""
    assert anchor.output is not None, "an anchor has an output"
    if anchor.op_type in FUSED and not _takes_computed_statistics(graph, anchor):
        x = anchor.inputs[0]
        assert x is not None, "an anchor has an input"
        yield from _first(cuts(graph, rules, [x], Bounds()), Bounds())
    elif anchor.op_type in FUSED:
        yield from _first(cuts(graph, rules, [anchor.output], bounds, reduced=True), bounds)
    elif graph.is_constant(anchor.output):
        yield from _scaled_by(graph, rules, anchor.output)
    else:
        yield from _first(cuts(graph, rules, [anchor.output], bounds, reduced=True), bounds)


def _first(keys: Iterable[Key], bounds: Bounds) -> Iterator[Key]:
    for count, key in enumerate(keys):
        if count == _MOST_CANDIDATES:
            bounds.reached = True
            return
        yield key


def _takes_computed_statistics(graph: Graph, node: Node) -> bool:
    stored = node.inputs[3:5]
    computed = any(key is not None and not graph.is_constant(key) and not graph.is_input(key) for key in stored)
    return node.op_type == "BatchNormalization" and computed and not node.attributes.get("training_mode", 0)


def _scaled_by(graph: Graph, rules: Rules, key: Key) -> Iterator[Key]:
    """Yield what a stored deviation is brought together with."""
    for reached in behind(graph, rules, key, Bounds(), _NEAR):
        if graph.is_constant(reached):
            continue
        node = graph.producer(reached)
        mixed = [read for read in (node.inputs if node else ()) if read is not None and not graph.is_constant(read)]
        if len(mixed) != 1:
            return
        before = graph.producer(mixed[0])
        if before is not None and before.op_type in ("Sub", "Add"):
            open_inputs = [read for read in before.inputs if read is not None and not graph.is_constant(read)]
            if len(open_inputs) == 1:
                yield open_inputs[0]
        yield mixed[0]
        return


def _normalization(graph: Graph, rules: Rules, anchor: Node, x: Key, hit: Hit) -> Normalization:
    meaning = meaning_of(hit.form, hit.layout)
    if (
        anchor.op_type == "BatchNormalization"
        and meaning.role == "batch-stat"
        and not _takes_computed_statistics(graph, anchor)
    ):
        meaning = Meaning("train", meaning.channels, meaning.over, meaning.note)
    stored, named = hit.form.kind == "stored", hit.form.kind != "unknown"
    trains = meaning.role == "train"
    return Normalization(
        meaning=meaning,
        other=_other(graph, rules, anchor, x, hit),
        x=x,
        y=hit.y,
        gamma=_held(hit.form.g) if named else None,
        beta=_held(hit.form.b) if named else None,
        mean=_held(hit.form.m) if stored else anchor.inputs[3] if trains else None,
        var=_held(hit.form.v) if stored else anchor.inputs[4] if trains else None,
        eps=hit.axes.rounded.get(hit.form.eps, hit.form.eps),
        places=tuple(hit.layout.index(group) if group in hit.layout else None for group in hit.tensor.layout),
        anchor=anchor,
        serves=serving(graph, x, hit.y),
        hit=hit,
    )


def _held(value: Expr) -> Held:
    """Return the key of the one parameter that a value is, or the number."""
    for form in (value, plain(value)):  # a gain of ones, as a GroupNorm's InstanceNormalization has, is none
        if len(form.terms) == 1:
            ((monomial, factor),) = form.terms.items()
            if len(monomial) == 1 and factor == 1:
                ((atom, power),) = monomial
                if isinstance(atom, Parameter) and power == 1:
                    return cast(Key, atom.name)  # since it was read from a graph
    number = plain(value)
    return number.constant if number.is_number else None


def _other(graph: Graph, rules: Rules, anchor: Node, x: Key, hit: Hit) -> NormRole | None:
    """Return the role of the same value where the conditions that were met go the other way."""
    path = dict(anchor.conditions)
    decided = {condition: way if condition in path else not way for condition, way in hit.world.items()}
    if decided == hit.world:
        return None
    try:
        form: Form | None = hits_over(graph, rules, anchor, x, world=decided, only=hit.y)[0].form
    except (UnreadableError, IndexError):
        return "unknown"
    assert form is not None, "a hit has a form"
    return meaning_of(form, hit.layout).role
