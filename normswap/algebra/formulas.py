"""Formulas: what each target computes, as expressions that the reading of its operators is held to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

from normswap.algebra.expressions import HALF, Expr, Root
from normswap.algebra.means import mean, variance

__all__ = ["Parameters", "Target", "Weights", "formula", "ideals", "normalization"]

# The number of samples -> the weights of the statistics of the input and of the stored ones, by +, -, * and / alone.
Weights: TypeAlias = Callable[[Any], tuple[Any, Any]]


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
    """Which statistics a target normalizes with.

    Attributes:
        over: Axes of x that its own statistics span; none where stored ones alone are used.
        samples: As how many samples its own statistics count.
        weights: For a mixture: the weights of its own statistics and of the stored ones, by the number of samples.
    """

    over: frozenset[str]
    samples: Expr
    weights: Weights | None = None


def normalization(x: Expr, m: Expr, v: Expr, parameters: Parameters) -> Expr:
    """Return (x - m) * weight / sqrt(v + eps) + bias."""
    return (x - m) * parameters.weight * (v + Expr.number(parameters.eps)) ** -HALF + parameters.bias


def formula(x: Expr, target: Target, parameters: Parameters) -> Expr:
    """Return what a target computes of x; mean and variance are mixed by the same weights, the variance biased."""
    if target.over and target.weights is None:
        return normalization(x, mean(x, target.over), variance(x, target.over), parameters)
    assert parameters.mean is not None and parameters.var is not None, "a target that reads stored statistics"
    if target.weights is None:
        return normalization(x, parameters.mean, parameters.var, parameters)
    of_own, of_stored = target.weights(target.samples)
    m = of_own * mean(x, target.over) + of_stored * parameters.mean
    v = of_own * variance(x, target.over) + of_stored * parameters.var
    return normalization(x, m, v, parameters)


def ideals(target: Target) -> tuple[Fraction, ...]:
    """Return the numbers of a target that a file may hold rounded, so that they are read as what they stand for."""
    if target.weights is None:
        return ()
    found = [number for weight in target.weights(target.samples) for number in _numbers(weight)]
    return tuple(dict.fromkeys(number for number in found if number != 1))


def _numbers(value: Expr) -> Iterator[Fraction]:
    for monomial, factor in value.terms.items():
        yield factor
        for atom, _ in monomial:
            if isinstance(atom, Root):
                yield from _numbers(atom.base)
