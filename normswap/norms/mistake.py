"""Mistake: a wrong normalization that people and tools make, as a change of the right one's formula or parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from normswap.layer import Floats, NormLayer
from normswap.norms.formula import Axis, Formula, Statistics, mixed

__all__ = ["Mistake", "changed", "counting", "mixing", "over", "unbiased", "with_parameters"]


@dataclass(frozen=True)
class Mistake:
    """A wrong normalization; with no argument it is right.

    Attributes:
        of: Turns the target's formula into the statistics that are used instead.
        with_: Turns the layer into one with the parameters that are used instead.
        when: Whether it can happen to a formula.
        needs: Parameters of the layer that have to be stored for it to happen.
        cancels: Whether the variance may be off by as much as E[x^2] - E[x]^2 is.
        pools: Whether channels are computed together, so that none of them can be looked at alone.
    """

    of: Callable[[Formula, NormLayer], Statistics] = lambda formula, layer: formula
    with_: Callable[[NormLayer], NormLayer] = lambda layer: layer
    when: Callable[[Formula], bool] = lambda formula: True
    needs: tuple[str, ...] = ()
    cancels: bool = False
    pools: bool = False


# ((mean, var) of the input, those stored, weight of the input's, count) -> var
_Mixes: TypeAlias = Callable[[tuple[Floats, Floats], tuple[Floats, Floats], float, int], Floats]
# (mean, var, count, eps) -> (mean, var)
_Changes: TypeAlias = Callable[[Floats, Floats, int, float], tuple[Floats, Floats]]


@dataclass(frozen=True)
class _Derived(Statistics):
    """Statistics that are computed from those of a formula."""

    right: Formula

    def own_moments(self, x: Floats, layer: NormLayer) -> tuple[Floats, Floats]:
        return self.right.own_moments(x, layer)

    def share(self, shape: tuple[int, ...]) -> float:
        return self.right.share(shape)

    def count(self, shape: tuple[int, ...]) -> int:
        return self.right.count(shape)


@dataclass(frozen=True)
class _Mixed(_Derived):
    """A mixture whose variances are mixed in another way."""

    mixes: _Mixes

    def moments(self, x: Floats, layer: NormLayer) -> tuple[Floats, Floats]:
        share = self.share(x.shape)
        own, stored = self.own_moments(x, layer), mixed(None, 0.0, layer, x.ndim)
        mean, _ = mixed(own, share, layer, x.ndim)
        return mean, self.mixes(own, stored, share, self.count(x.shape))


@dataclass(frozen=True)
class _Changed(_Derived):
    """A formula's statistics, changed; eps is the one that the layer should have."""

    eps: float
    changes: _Changes

    def moments(self, x: Floats, layer: NormLayer) -> tuple[Floats, Floats]:
        return self.changes(*self.right.moments(x, layer), self.count(x.shape), self.eps)

    def own_moments(self, x: Floats, layer: NormLayer) -> tuple[Floats, Floats]:
        return self.changes(*self.right.own_moments(x, layer), self.count(x.shape), self.eps)


@dataclass(frozen=True)
class _Counting(_Derived):
    """A mixture that takes x for another number of samples."""

    samples: Callable[[Formula, tuple[int, ...]], float]

    def moments(self, x: Floats, layer: NormLayer) -> tuple[Floats, Floats]:
        return mixed(self.own_moments(x, layer), self.share(x.shape), layer, x.ndim)

    def share(self, shape: tuple[int, ...]) -> float:
        assert self.right.weights is not None, "a mixture"
        return float(self.right.weights(self.samples(self.right, shape))[0])


@dataclass(frozen=True)
class _Over(_Derived):
    """Statistics over other axes, mixed with stored ones as the formula does."""

    other: Formula

    def moments(self, x: Floats, layer: NormLayer) -> tuple[Floats, Floats]:
        return mixed(self.own_moments(x, layer), self.share(x.shape), layer, x.ndim)

    def own_moments(self, x: Floats, layer: NormLayer) -> tuple[Floats, Floats]:
        return self.other.own_moments(x, layer)

    def count(self, shape: tuple[int, ...]) -> int:
        return self.other.count(shape)


def over(*axes: Axis) -> Callable[[Formula, NormLayer], Statistics]:
    """Take the statistics over other axes."""
    other = Formula(axes)
    return lambda formula, layer: _Over(formula, other) if formula.over else other


def counting(samples: Callable[[Formula, tuple[int, ...]], float]) -> Callable[[Formula, NormLayer], Statistics]:
    """Count other samples, by the shape of x."""
    return lambda formula, layer: _Counting(formula, samples)


def changed(changes: _Changes) -> Callable[[Formula, NormLayer], Statistics]:
    """Change mean and variance after they were computed."""
    return lambda formula, layer: _Changed(formula, layer.eps, changes)


def mixing(mixes: _Mixes) -> Callable[[Formula, NormLayer], Statistics]:
    """Mix the variances in another way."""
    return lambda formula, layer: _Mixed(formula, mixes)


def unbiased(n: int) -> float:
    """Return the factor that turns a variance divided by n into one divided by n - 1."""
    return n / (n - 1) if n > 1 else math.nan


def with_parameters(layer: NormLayer, **sources: str | float) -> NormLayer:
    """Put other parameters of the layer, or one number, in the place of parameters."""
    values: dict[str, Any] = {
        name: getattr(layer, source) if isinstance(source, str) else np.full(layer.num_features or 0, source)
        for name, source in sources.items()
    }
    return replace(layer, **values)
