"""Norm: what a target computes, in float64, which layers it refuses, and how it is written.

The arithmetic by itself is Statistics, which mistakes have too, where they are named.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from normswap.layer import Array, Floats, NormLayer, Role
from normswap.norms.onnx import OnnxOps
from normswap.norms.parameters import Parameter

if TYPE_CHECKING:
    from normswap.norms.torch import Kernel

__all__ = [
    "Form",
    "Norm",
    "Statistics",
    "affine",
    "batch_moments",
    "blended",
    "by_name",
    "no_stored_statistics",
    "share_of",
    "single_elements",
]


@dataclass(frozen=True)
class Form:
    """One way of writing a target as ONNX operators; all forms of a target have the same meaning.

    Attributes:
        name: As reports and the table of runtimes have it.
        emit: Writes operators that read ``ops.x`` and write ``ops.y``.
        dtypes: Types of the layer's input that the form has operators for, itself or between Casts.
        needs_channels: Whether the number of channels must be known.
    """

    name: str
    emit: Callable[[OnnxOps], None]
    dtypes: tuple[str, ...] = ("float32", "float16", "bfloat16", "float64")
    needs_channels: bool = False

    def takes(self, layer: NormLayer) -> bool:
        """Whether the form can be written for a layer."""
        return layer.dtype in self.dtypes and not (self.needs_channels and layer.num_features is None)


def by_name(*forms: Form) -> Mapping[str, Form]:
    """Return forms in their order, by their names."""
    return {form.name: form for form in forms}


class Statistics(ABC):
    """Which mean and variance a normalization is made with, and so what it computes, in float64."""

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
        """Compute what of ``moments`` is from x alone; all of it, unless stored statistics have a share."""
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


class Norm(Statistics):
    """A target of the conversion: one meaning of a trained BatchNorm.

    Attributes:
        name: As given to ``--to``.
        meaning: What the result equals, as one phrase for people.
        equals: The role that has this meaning already, None where no role has.
        trains: Whether that meaning is train mode, which has no use for the stored running statistics.
        by_sample: Whether it is fed one sample at a time, or the whole batch.
        prior: As how many samples the stored statistics count beside those that it is fed: 0 where these count
            alone, infinity where the stored ones do.
        takes: The parameters that it has besides its name: attributes of the same names, arguments when it is made.
        forms: How it can be written in ONNX, by name, the default first; the last takes every layer.
    """

    name: str
    meaning: str
    equals: Role | None = None
    trains: bool = True
    by_sample: bool = False
    prior: float = 0.0
    takes: tuple[Parameter, ...] = ()
    forms: Mapping[str, Form]

    @abstractmethod
    def refuse(self, layer: NormLayer) -> str | None:
        """Say why this target has no meaning for the layer, or None where it has one."""

    @property
    def parameters(self) -> dict[str, Any]:
        """The values of its parameters, by name."""
        return {parameter.name: getattr(self, parameter.name) for parameter in self.takes}

    def samples(self, shape: tuple[int, ...]) -> int:
        """Count the samples that the target is fed at once."""
        return 1 if self.by_sample else shape[0]

    def own_moments(self, x: Floats, layer: NormLayer) -> tuple[Floats, Floats]:
        """Compute mean and biased variance of what the target is fed at once."""
        return batch_moments(x, (*(() if self.by_sample else (0,)), *range(2, x.ndim)))

    def share(self, shape: tuple[int, ...]) -> float:
        """Return n / (prior + n) for n samples."""
        return share_of(self.samples(shape), self.prior)

    def moments(self, x: Floats, layer: NormLayer) -> tuple[Floats, Floats]:
        """Blend those of the input with those that are stored, each by its share."""
        share = self.share(x.shape)
        own = self.own_moments(x, layer) if share else None
        return blended(own, share, layer, x.ndim)

    def count(self, shape: tuple[int, ...]) -> int:
        """Count the elements that one statistic is computed over; 0 where only stored ones count."""
        return 0 if math.isinf(self.prior) else math.prod(shape[2:]) * self.samples(shape)

    def form_of(self, layer: NormLayer) -> Form:
        """Return the form that a layer is written in where nothing else is asked for."""
        return next(form for form in self.forms.values() if form.takes(layer))

    @abstractmethod
    def torch_kernel(self) -> Kernel:
        """Return how the target is computed in torch, in a module and as operators of a graph."""


def affine(normalized: Floats, layer: NormLayer) -> Floats:
    """Scale by weight and shift by bias, channel by channel."""
    assert layer.weight is not None and layer.bias is not None, "the caller fills in run-time parameters"
    weight = layer.per_channel(layer.weight, normalized.ndim)
    return normalized * weight + layer.per_channel(layer.bias, normalized.ndim)


def batch_moments(x: Floats, axes: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Mean and biased variance of x over ``axes``, kept as axes of length 1, by two passes."""
    mean = x.mean(axis=axes, keepdims=True)
    return mean, np.square(x - mean).mean(axis=axes, keepdims=True)


def share_of(samples: float, prior: float) -> float:
    """Return the weight of samples beside stored statistics that count as ``prior`` samples."""
    return samples / (prior + samples) if prior else 1.0


def blended(own: tuple[Floats, Floats] | None, share: float, layer: NormLayer, rank: int) -> tuple[Floats, Floats]:
    """Give mean and variance their share, and the rest to the stored ones, mean and variance alike.

    Args:
        own: Mean and variance of the input; not needed if their share is 0.
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


def no_stored_statistics(layer: NormLayer) -> str | None:
    """Say why a layer has no stored statistics that were ever its meaning, or None where it has."""
    if layer.role == "instance":
        return "it is an InstanceNorm written with BatchNorm; its running statistics were never its meaning"
    if layer.role == "batch-stat":
        return "its statistics are computed in the graph and none are stored"
    if layer.running_mean is None or layer.running_var is None:
        return "its running statistics are not stored in the model but computed or given at run time"
    return None


def single_elements(layer: NormLayer) -> str | None:
    """Say that a sample has one element of each channel, of variance 0 whatever it is, or None where it has more."""
    if layer.shape is None:
        return None
    if len(layer.shape) < 3:
        return f"its input has rank {len(layer.shape)}, one value per sample and channel"
    spatial = [dim for dim in layer.shape[2:] if isinstance(dim, int)]
    if len(spatial) == len(layer.shape) - 2 and math.prod(spatial) == 1:
        return "its input has one spatial element per sample and channel"
    return None
