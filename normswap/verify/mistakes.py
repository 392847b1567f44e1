"""MISTAKES: the table of wrong normalizations that people and tools make, each as float64 arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from normswap.layer import Floats, NormLayer
from normswap.norms import NORMS, Blend, Norm
from normswap.norms.base import Statistics, batch_moments, blended, share_of

__all__ = ["MISTAKES", "Mistake", "with_parameters"]


@dataclass(frozen=True)
class Mistake:
    """A wrong normalization; with no argument it is right.

    Attributes:
        of: Makes of the target's statistics those that are used instead.
        with_: Makes of the layer one with the parameters that are used instead.
        to: Names of the targets that it can happen to.
        needs: Parameters of the layer that have to be stored for it to happen.
        cancels: Whether the variance may be off by as much as E[x^2] - E[x]^2 is.
        pools: Whether channels are computed together, so that none of them can be looked at alone.
    """

    of: Callable[[Norm, NormLayer], Statistics] = lambda norm, layer: norm
    with_: Callable[[NormLayer], NormLayer] = lambda layer: layer
    to: tuple[str, ...] = tuple(NORMS)
    needs: tuple[str, ...] = ()
    cancels: bool = False
    pools: bool = False


# ((mean, var) of the input, those stored, share of the input's, count) -> var
_Mixes: TypeAlias = Callable[[tuple[Floats, Floats], tuple[Floats, Floats], float, int], Floats]
# (mean, var, count, eps) -> (mean, var)
_Changes: TypeAlias = Callable[[Floats, Floats, int, float], tuple[Floats, Floats]]


@dataclass(frozen=True)
class _Over(Statistics):
    """Statistics over some axes, of all channels together, say, with which stored ones may be blended.

    Attributes:
        axes: By the rank of x.
        prior: As how many samples the stored statistics count.
        samples: How many x counts as, by its shape.
    """

    axes: Callable[[int], tuple[int, ...]]
    prior: float = 0.0
    samples: Callable[[tuple[int, ...]], float] = lambda shape: 1.0

    def moments(self, x: Floats, layer: NormLayer) -> tuple[Floats, Floats]:
        return blended(self.own_moments(x, layer), self.share(x.shape), layer, x.ndim)

    def own_moments(self, x: Floats, layer: NormLayer) -> tuple[Floats, Floats]:
        return batch_moments(x, self.axes(x.ndim))

    def share(self, shape: tuple[int, ...]) -> float:
        return share_of(self.samples(shape), self.prior)

    def count(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape[axis] for axis in self.axes(len(shape)))


@dataclass(frozen=True)
class _Mixed(Statistics):
    """A blend whose variances are mixed in another way."""

    norm: Norm
    mixes: _Mixes

    def moments(self, x: Floats, layer: NormLayer) -> tuple[Floats, Floats]:
        share = self.share(x.shape)
        (own_mean, own_var), stored = self.own_moments(x, layer), blended(None, 0.0, layer, x.ndim)
        mean, _ = blended((own_mean, own_var), share, layer, x.ndim)
        return mean, self.mixes((own_mean, own_var), stored, share, self.count(x.shape))

    def own_moments(self, x: Floats, layer: NormLayer) -> tuple[Floats, Floats]:
        return self.norm.own_moments(x, layer)

    def share(self, shape: tuple[int, ...]) -> float:
        return self.norm.share(shape)

    def count(self, shape: tuple[int, ...]) -> int:
        return self.norm.count(shape)


@dataclass(frozen=True)
class _Changed(Statistics):
    """A target's statistics, changed; eps is the one that the layer should have."""

    norm: Norm
    eps: float
    changes: _Changes

    def moments(self, x: Floats, layer: NormLayer) -> tuple[Floats, Floats]:
        return self.changes(*self.norm.moments(x, layer), self.count(x.shape), self.eps)

    def own_moments(self, x: Floats, layer: NormLayer) -> tuple[Floats, Floats]:
        return self.changes(*self.norm.own_moments(x, layer), self.count(x.shape), self.eps)

    def share(self, shape: tuple[int, ...]) -> float:
        return self.norm.share(shape)

    def count(self, shape: tuple[int, ...]) -> int:
        return self.norm.count(shape)


def _changed(changes: _Changes) -> Callable[[Norm, NormLayer], Statistics]:
    return lambda norm, layer: _Changed(norm, layer.eps, changes)


def _mixed(mixes: _Mixes) -> Callable[[Norm, NormLayer], Statistics]:
    return lambda norm, layer: _Mixed(norm, mixes)


def _over(axes: Callable[[int], tuple[int, ...]]) -> Callable[[Norm, NormLayer], Statistics]:
    """Take the statistics over other axes, and blend them as the target does."""
    return lambda norm, layer: _Over(axes, 0.0 if math.isinf(norm.prior) else norm.prior, norm.samples)


def _counting(samples: Callable[[Norm, tuple[int, ...]], float]) -> Callable[[Norm, NormLayer], Statistics]:
    """Count other samples than the target does."""
    return lambda norm, layer: _Over(_axes_of(norm), norm.prior, lambda shape: samples(norm, shape))


def _axes_of(norm: Norm) -> Callable[[int], tuple[int, ...]]:
    return _of_sample if norm.by_sample else _of_batch


def _of_batch(rank: int) -> tuple[int, ...]:
    return (0, *range(2, rank))


def _of_sample(rank: int) -> tuple[int, ...]:
    return tuple(range(2, rank))


def _as(name: str) -> Callable[[Norm, NormLayer], Statistics]:
    return lambda norm, layer: NORMS[name]


def _given(**sources: str | float) -> Callable[[NormLayer], NormLayer]:
    return lambda layer: with_parameters(layer, **sources)


def with_parameters(layer: NormLayer, **sources: str | float) -> NormLayer:
    """Put other parameters of the layer, or one number, in the place of parameters."""
    values: dict[str, Any] = {
        name: getattr(layer, source) if isinstance(source, str) else np.full(layer.num_features or 0, source)
        for name, source in sources.items()
    }
    return replace(layer, **values)


def _unbiased(n: int) -> float:
    return n / (n - 1) if n > 1 else math.nan


_TRAINED = ("instance", "batch-stat")
_FED = (*_TRAINED, "blend")  # what takes statistics of its input
_STORED = ("running_mean", "running_var")

# What goes on after "looks as if", the likeliest first: where two fit, the first one is named.
MISTAKES: dict[str, Mistake] = {
    "the running statistics were used (eval mode)": Mistake(_as("population"), to=_FED, needs=_STORED),
    "the running statistics were not counted": Mistake(lambda norm, layer: _Over(_axes_of(norm)), to=("blend",)),
    "the blend were with the batch, not with each sample, or the other way round": Mistake(
        lambda norm, layer: Blend(norm.prior, "batch" if norm.by_sample else "sample"), to=("blend",)
    ),
    "the statistics were of the whole batch, not of each sample": Mistake(_over(_of_batch), to=("instance", "blend")),
    "the statistics were of each sample, not of the batch": Mistake(_over(_of_sample), to=("batch-stat", "blend")),
    "the batch were counted as one sample": Mistake(_counting(lambda norm, shape: 1), to=("blend",)),
    "each sample were counted as the whole batch": Mistake(_counting(lambda norm, shape: shape[0]), to=("blend",)),
    "one sample too many were counted": Mistake(_counting(lambda norm, shape: norm.samples(shape) + 1), to=("blend",)),
    "elements were counted, not samples": Mistake(_counting(lambda norm, shape: norm.count(shape)), to=("blend",)),
    "the statistics were of the batch, not the running ones (train mode)": Mistake(
        _as("batch-stat"), to=("population",)
    ),
    "the statistics were of each sample, not the running ones": Mistake(_as("instance"), to=("population",)),
    "weight and bias were dropped": Mistake(with_=_given(weight=1.0, bias=0.0)),
    "weight were dropped": Mistake(with_=_given(weight=1.0)),
    "bias were dropped": Mistake(with_=_given(bias=0.0)),
    "weight and bias were swapped": Mistake(with_=_given(weight="bias", bias="weight")),
    "running mean and variance were swapped": Mistake(
        with_=_given(running_mean="running_var", running_var="running_mean"), to=("population", "blend"), needs=_STORED
    ),
    "weight were the running variance": Mistake(with_=_given(weight="running_var"), needs=("running_var",)),
    "bias were the running mean": Mistake(with_=_given(bias="running_mean"), needs=("running_mean",)),
    "eps were dropped": Mistake(with_=lambda layer: replace(layer, eps=0.0)),
    "eps were added to the standard deviation, not to the variance": Mistake(
        _changed(lambda mean, var, n, eps: (mean, np.square(np.sqrt(var) + eps))), lambda layer: replace(layer, eps=0.0)
    ),
    "the variance were divided by n - 1, not by n": Mistake(
        _changed(lambda mean, var, n, eps: (mean, var * _unbiased(n))), to=_TRAINED
    ),
    "the variance of the input were divided by n - 1, not by n": Mistake(
        _mixed(lambda own, stored, share, n: share * own[1] * _unbiased(n) + (1 - share) * stored[1]), to=("blend",)
    ),
    "the variance were of both together, the distance of their means in it": Mistake(
        _mixed(
            lambda own, stored, share, n: (
                share * own[1] + (1 - share) * stored[1] + share * (1 - share) * np.square(own[0] - stored[0])
            )
        ),
        to=("blend",),
    ),
    "the mean were not subtracted": Mistake(
        _changed(lambda mean, var, n, eps: (np.zeros_like(mean), var)), cancels=True
    ),
    "the statistics were of each sample over its channels too": Mistake(
        _over(lambda rank: tuple(range(1, rank))), pools=True
    ),
    "the statistics were of the batch over its channels too": Mistake(
        _over(lambda rank: tuple(range(rank))), pools=True
    ),
    "the statistics were over the channels of each place": Mistake(_over(lambda rank: (1,)), pools=True),
    "the statistics were over the last axis alone": Mistake(_over(lambda rank: (rank - 1,)), to=_FED),
    "nothing were computed, and the output were the input": Mistake(
        _changed(lambda mean, var, n, eps: (np.zeros_like(mean), np.full_like(var, 1 - eps))),
        _given(weight=1.0, bias=0.0),
    ),
    "the variance were E[x^2] - E[x]^2, which cancels": Mistake(cancels=True, to=_FED),
}
