"""Prove that a value of a graph is what a target computes of x, for every batch, channel count, size and input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from normswap.algebra.equality import equal
from normswap.algebra.errors import UnreadableError
from normswap.algebra.expressions import Expr, Parameter, Size
from normswap.algebra.formulas import Parameters, Target, Weights, formula, ideals
from normswap.algebra.graph import Graph, Key
from normswap.algebra.reader import Reader, layout_of, retried, split_layout
from normswap.algebra.rules_onnx import RULES, Rules
from normswap.algebra.spelling import spelled
from normswap.algebra.substitution import plain
from normswap.algebra.values import Axes, Layout, Tensor, Value

__all__ = ["Claim", "Proof", "prove"]

_BATCH, _CHANNELS = "N", "C"
_LONGEST = 300  # characters of what was read, where it is shown


@dataclass(frozen=True)
class Claim:
    """What a value is to compute.

    Attributes:
        x: What the layer reads.
        y: What it writes.
        rank: Of x, whose first dimension is the batch and whose second is the channels.
        weight: Where gamma is.
        bias: Where beta is.
        mean: Where the stored mean is, if the target reads it.
        var: Where the stored variance is, likewise.
        eps: The exact number that is added to the variance.
        over: Which axes of x its own statistics span: "batch", "channel", "spatial", "last"; none where stored ones
            alone are used.
        groups: Into how many groups the channels are divided where they are among these, None for one group.
        weights: For a mixture: the weights of its own statistics and of the stored ones, by the number of samples.
        channels: The number of channels, where it is known.
    """

    x: Key
    y: Key
    rank: int
    weight: Key
    bias: Key
    mean: Key | None
    var: Key | None
    eps: Fraction
    over: tuple[str, ...]
    groups: int | None = None
    weights: Weights | None = None
    channels: int | None = None


@dataclass(frozen=True)
class Proof:
    """Whether a claim was proved, and for what.

    Attributes:
        holds: Whether the value is the formula, over the reals, for every batch, size and input.
        reason: Why it is not, or could not be shown to be.
        channels: The only number of channels that it was proved for, None for every number.
        readable: Whether the value could be read at all; if not, nothing is known.
        rounded: Numbers of the formula that the file holds rounded.
    """

    holds: bool
    reason: str = ""
    channels: int | None = None
    readable: bool = True
    rounded: frozenset[Fraction] = frozenset()


def prove(graph: Graph, claim: Claim, rules: Rules = RULES) -> Proof:
    """Read the value of a claim and compare it with the formula.

    A shape that is written into the file holds for one number of channels alone: where nothing is proved for every
    number, it is tried for the one that the layer has.
    """
    proof = _proved(graph, claim, rules, None)
    if not proof.holds and claim.channels is not None:
        with_channels = _proved(graph, claim, rules, claim.channels)
        if with_channels.holds or not proof.readable:
            return with_channels
    return proof


def _proved(graph: Graph, claim: Claim, rules: Rules, channels: int | None) -> Proof:
    names = (_BATCH, _CHANNELS, *(f"S{place}" for place in range(2, claim.rank)))
    groups = claim.groups if "channel" in claim.over else None
    if groups not in (None, 1) and (channels is None or channels % groups):
        return Proof(False, "its channels are not known to divide into its groups", channels, readable=False)
    target = _target(claim, names)

    def read(splits: Mapping[str, tuple[int, int]]) -> tuple[Reader, Tensor, Layout]:
        layout, _ = layout_of((None,) * claim.rank, names)
        axes = Axes(ideals=ideals(target))
        if channels is not None:
            axes.lengths[_CHANNELS] = Expr.number(channels)
            if groups not in (None, 1):
                splits = {**splits, _CHANNELS: (groups, channels // groups)}
        layout = split_layout(layout, axes, splits)
        reader = Reader(graph, claim.x, layout, axes, given=_given(claim, layout), rules=rules)
        return reader, reader.tensor(claim.y), layout

    try:
        reader, found, layout = retried(read)
        expected = _expected(reader, claim, target)
    except UnreadableError as error:
        return Proof(False, f"its operators cannot be read: {error}", channels, readable=False)
    rounded = frozenset(reader.axes.rounded)
    if reader.axes.assumed:
        return Proof(False, "it holds only where lengths that nothing fixes are equal", channels, rounded=rounded)
    if reader.world:
        return Proof(False, "it depends on the condition of an If", channels, rounded=rounded)
    if found.layout != layout:
        return Proof(False, "its output has the axes of its input in another order", channels, rounded=rounded)
    value = plain(found.expr)  # the gain of ones of an operator within is a number
    if not equal(value, expected):
        text = spelled(value)
        text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
        return Proof(False, f"it computes another formula: {text}", channels, rounded=rounded)
    return Proof(True, "", channels, rounded=rounded)


def _target(claim: Claim, names: tuple[str, ...]) -> Target:
    axes = {"batch": names[:1], "channel": names[1:2], "spatial": names[2:], "last": names[-1:]}
    over = frozenset(name for word in claim.over for name in axes[word])
    samples = Expr.of(Size(names[0])) if "batch" in claim.over else Expr.number(1)
    return Target(over, samples, claim.weights)


def _vector(key: Key, layout: Layout) -> Tensor:
    """Return a parameter as a vector along the channels."""
    dims: Layout = (layout[1],)
    return Tensor(Expr.of(Parameter(key, dims)), dims)


def _given(claim: Claim, layout: Layout) -> dict[Key, Value]:
    keys = (claim.weight, claim.bias, claim.mean, claim.var)
    return {key: _vector(key, layout) for key in keys if key is not None}


def _expected(reader: Reader, claim: Claim, target: Target) -> Expr:
    # The parts of an axis that is split stand for it; of the channels in groups, the part within a group.
    grouped = claim.groups not in (None, 1)
    parts = [axis for group in reader.layout for axis in group if axis.split(".")[0] in target.over]
    over = frozenset(axis for axis in parts if not (grouped and axis == f"{_CHANNELS}.0"))
    weight, bias, mean, var = (
        None if key is None else _vector(key, reader.layout).expr
        for key in (claim.weight, claim.bias, claim.mean, claim.var)
    )
    assert weight is not None and bias is not None, "every layer has both"
    parameters = Parameters(weight, bias, claim.eps, mean, var)
    return formula(Expr.of(reader.input), Target(over, target.samples, target.weights), parameters)
