"""Formula: which mean and variance a normalization uses, as data, and what it computes with them in float64."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from normswap.layer import Array, Floats, NormLayer

__all__ = ["Axis", "Formula", "Native", "Statistics", "Weights", "affine", "batch_moments", "mixed"]

Axis: TypeAlias = Literal["batch", "channel", "spatial", "last"]
# n, the number of samples -> the weights of the statistics of the input and of the stored ones, whose sum is 1
Weights: TypeAlias = Callable[[Any], tuple[Any, Any]]
Native: TypeAlias = Literal["train", "eval", "given"]


class Statistics(ABC):
    """The mean and the variance that a normalization uses, and so what it computes, in float64."""

    @abstractmethod
    def moments(self, x: Floats, layer: NormLayer) -> tuple[Floats, Floats]:
        """Compute the mean and the variance that x is normalized with.

        Args:
            x: Layer input, shape (N, C, *spatial), float64.
            layer: The BatchNorm replaced.

        Returns:
            Mean and variance, each broadcastable against x, in units of x and x squared. The variance of every target
            is biased (divided by the count).
        """

    @abstractmethod
    def count(self, shape: tuple[int, ...]) -> int:
        """Count the elements that one statistic is computed over; 0 where statistics are stored."""

    def own_moments(self, x: Floats, layer: NormLayer) -> tuple[Floats, Floats]:
        """Compute the part of ``moments`` that is from x alone; all of it, unless stored statistics have a weight."""
        return self.moments(x, layer)

    def share(self, shape: tuple[int, ...]) -> float:
        """Return the weight in ``moments`` of what is from x alone, for x of a shape; the stored ones have the rest."""
        return 1.0

    def reference(self, x: Array, layer: NormLayer) -> Floats:
        """Normalize x in float64; for a target it is the arithmetic that every rewrite is held to.

        Args:
            x: Layer input, shape (N, C, *spatial).
            layer: The BatchNorm replaced, with its weight and bias known; eps is in units of x squared.

        Returns:
            Normalized x, same shape, float64.

        Raises:
            ValueError: If axis 1 of x is not layer.num_features long.

        References:
            Ioffe & Szegedy 2015, algorithm 1.
        """
        if x.ndim < 2 or (layer.num_features is not None and x.shape[1] != layer.num_features):
            raise ValueError(f"{layer.name}: expected x of shape (N, {layer.num_features}, *spatial), got {x.shape}")
        x64 = np.asarray(x).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            mean, var = self.moments(x64, layer)
            return affine((x64 - mean) / np.sqrt(var + layer.eps), layer)


@dataclass(frozen=True)
class Formula(Statistics):
    """``(x - mean) / sqrt(var + eps) * weight + bias`` with statistics of x, stored ones, or a mixture.

    It is data: the float64 reference follows from it, so do the causes that a failed probe looks for, and so does the
    way in which native BatchNorm is fed to compute the same end to end.

    Attributes:
        over: The axes of x, shape (N, C, *spatial), that its mean and its biased variance are taken over; none where
            the stored statistics alone are used.
        groups: Where channels are among the axes: into how many groups of neighbours they are divided, by their
            number. One group if None.
        weights: For a mixture: the weights of x's own statistics and of the stored ones, by the number of samples
            that x counts as. It uses +, -, * and / alone, since witnesses also give it values of a graph. Where it is
            None, x's own statistics are used alone.
    """

    over: tuple[Axis, ...]
    groups: Callable[[int], int] | None = None
    weights: Weights | None = None

    @property
    def reads_stored(self) -> bool:
        """Whether the stored running statistics are used."""
        return not self.over or self.weights is not None

    @property
    def alone(self) -> bool:
        """Whether each sample has statistics of its own."""
        return bool(self.over) and "batch" not in self.over

    @property
    def joins_channels(self) -> bool:
        """Whether channels share statistics, so that none of them can be computed by itself."""
        return "channel" in self.over

    @property
    def native(self) -> Native:
        """The mode of a native BatchNorm that computes it, given each sample by itself, or the batch.

        ``train`` and ``eval`` are its own modes; ``given`` is eval mode with other statistics in the place of the
        stored ones, computed from what it is given.
        """
        if not self.over:
            return "eval"
        return "given" if self.joins_channels or self.weights is not None else "train"

    def groups_of(self, channels: int) -> int:
        """Count the sets of channels that share statistics."""
        if not self.joins_channels:
            return channels
        return 1 if self.groups is None else self.groups(channels)

    def samples(self, shape: tuple[int, ...]) -> int:
        """Count the samples that one statistic is computed over."""
        return 1 if self.alone else shape[0]

    def statistics(self, batch: int, channels: int) -> int:
        """Count the means of x, as many as there are variances."""
        return self.groups_of(channels) * (batch if self.alone else 1)

    def moments(self, x: Floats, layer: NormLayer) -> tuple[Floats, Floats]:
        """Mix the statistics of x with the stored ones, by their weights."""
        share = self.share(x.shape)
        own = self.own_moments(x, layer) if share else None
        return mixed(own, share, layer, x.ndim)

    def own_moments(self, x: Floats, layer: NormLayer) -> tuple[Floats, Floats]:
        """Compute mean and biased variance of x over the axes, by two passes."""
        if not self.joins_channels:
            return batch_moments(x, self._axes(x.ndim))
        batch, channels, *spatial = x.shape
        groups = self.groups_of(channels)
        parts = x.reshape(batch, groups, channels // groups, *spatial)
        axes = tuple(axis + (axis > 0) for axis in self._axes(x.ndim))

        def per_channel(moment: Floats) -> Floats:
            return np.repeat(moment, channels // groups, axis=2).reshape(len(moment), channels, *moment.shape[3:])

        mean, var = batch_moments(parts, axes)
        return per_channel(mean), per_channel(var)

    def share(self, shape: tuple[int, ...]) -> float:
        """Return the weight of x's own statistics."""
        if self.weights is None:
            return float(bool(self.over))
        samples = self.samples(shape)
        return float(self.weights(samples)[0]) if samples else 0.0

    def count(self, shape: tuple[int, ...]) -> int:
        """Count the elements that one statistic of x is computed over; 0 where stored ones alone are used."""
        if not self.over:
            return 0
        sizes = math.prod(shape[axis] for axis in self._axes(len(shape)))
        return sizes // self.groups_of(shape[1]) if self.joins_channels else sizes

    def _axes(self, rank: int) -> tuple[int, ...]:
        axes: dict[Axis, tuple[int, ...]] = {
            "batch": (0,),
            "channel": (1,),
            "spatial": tuple(range(2, rank)),
            "last": (rank - 1,),
        }
        return tuple(sorted(axis for name in self.over for axis in axes[name]))


def affine(normalized: Floats, layer: NormLayer) -> Floats:
    """Scale by weight and shift by bias, channel by channel."""
    assert layer.weight is not None and layer.bias is not None, "the caller fills in run-time parameters"
    weight = layer.per_channel(layer.weight, normalized.ndim)
    return normalized * weight + layer.per_channel(layer.bias, normalized.ndim)


def batch_moments(x: Floats, axes: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Mean and biased variance of x over ``axes``, kept as axes of length 1, by two passes."""
    mean = x.mean(axis=axes, keepdims=True)
    return mean, np.square(x - mean).mean(axis=axes, keepdims=True)


def mixed(own: tuple[Floats, Floats] | None, share: float, layer: NormLayer, rank: int) -> tuple[Floats, Floats]:
    """Give mean and variance their weight, and the rest to the stored ones, mean and variance alike.

    Args:
        own: Mean and variance of the input; not needed if their weight is 0.
        share: Their weight, from 0 to 1.
        layer: Has the stored ones; not needed if that weight is 1.
        rank: Of the layer's input.
    """
    if own is not None and share == 1:
        return own
    assert layer.running_mean is not None and layer.running_var is not None, "refused otherwise"
    stored = layer.per_channel(layer.running_mean, rank), layer.per_channel(layer.running_var, rank)
    if own is None or share == 0:
        return stored
    (mean, var), (stored_mean, stored_var) = own, stored
    return share * mean + (1 - share) * stored_mean, share * var + (1 - share) * stored_var
