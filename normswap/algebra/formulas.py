"""Formulas: what each target computes, as expressions that the reading of its operators is held to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from normswap.algebra.expressions import HALF, Expr
from normswap.algebra.means import mean, variance

__all__ = ["Parameters", "Target", "formula", "ideals", "normalization"]


@dataclass(frozen=True)
class Parameters:
    """What belongs to a layer, as expressions.

    Attributes:
        weight: gamma.
        bias: beta.
        eps: Added to the variance, as an exact number.
        mean: The stored mean, if there is one.
        var: The stored variance, if there is one.
    """

    weight: Expr
    bias: Expr
    eps: Fraction
    mean: Expr | None = None
    var: Expr | None = None


@dataclass(frozen=True)
class Target:
    """What a target normalizes with.

    Attributes:
        over: Axes of x that its own statistics span, empty where only stored ones count.
        samples: As how many samples its own statistics count.
        prior: As how many samples the stored statistics count: 0, or infinity where nothing else counts.
    """

    over: frozenset[str]
    samples: Expr
    prior: float = 0.0


def normalization(x: Expr, m: Expr, v: Expr, parameters: Parameters) -> Expr:
    """Return (x - m) * weight / sqrt(v + eps) + bias."""
    return (x - m) * parameters.weight * (v + Expr.number(parameters.eps)) ** -HALF + parameters.bias


def formula(x: Expr, target: Target, parameters: Parameters) -> Expr:
    """Return what a target computes of x.

    Mean and variance are (prior * stored + samples * own) / (prior + samples), the variance biased.
    """
    if target.prior == 0:
        return normalization(x, mean(x, target.over), variance(x, target.over), parameters)
    assert parameters.mean is not None and parameters.var is not None, "a target that reads stored statistics"
    if math.isinf(target.prior):
        return normalization(x, parameters.mean, parameters.var, parameters)
    prior = Expr.number(Fraction(target.prior))
    total = prior + target.samples
    of_stored, of_own = prior / total, target.samples / total
    m = of_stored * parameters.mean + of_own * mean(x, target.over)
    v = of_stored * parameters.var + of_own * variance(x, target.over)
    return normalization(x, m, v, parameters)


def ideals(target: Target) -> tuple[Fraction, ...]:
    """Return the numbers of a target that a file holds rounded, so that they are read as what they stand for."""
    if target.prior == 0 or math.isinf(target.prior):
        return ()
    prior = Fraction(target.prior)
    counted = target.samples.integer
    shares = () if counted is None else (prior / (prior + counted), counted / (prior + counted))
    return (prior, *shares)
