"""Norm: what a target computes, in float64, which layers it refuses, and how it is written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

import numpy as np

from normswap.layer import Array, Floats, NormLayer, Role

if TYPE_CHECKING:
    from normswap.kernels import Kernel

__all__ = ["Norm", "OnnxOps", "affine", "batch_moments", "emit_two_pass"]


class Norm(ABC):
    """A target of the conversion: one meaning of a trained BatchNorm.

    Attributes:
        name: As given to ``--to``.
        meaning: What the result equals, as one phrase for people.
        equals: The role that has this meaning already.
        trains: Whether that meaning is train mode, or the stored running statistics.
        by_sample: Whether it is fed one sample at a time, or the whole batch.
    """

    name: str
    meaning: str
    equals: Role
    trains: bool = True
    by_sample: bool = False

    @abstractmethod
    def refuse(self, layer: NormLayer) -> str | None:
        """Say why this target has no meaning for the layer, or None where it has one."""

    @abstractmethod
    def moments(self, x: Floats, layer: NormLayer) -> tuple[Floats, Floats]:
        """Compute the mean and the biased variance that the target normalizes with.

        Args:
            x: Layer input, shape (N, C, *spatial), float64.
            layer: The BatchNorm replaced.

        Returns:
            Mean and variance (divided by the count), each broadcastable against x, in units of x and x squared.
        """

    @abstractmethod
    def count(self, shape: tuple[int, ...]) -> int:
        """Count the elements that one statistic is computed over; 0 where statistics are stored."""

    @abstractmethod
    def emit_onnx(self, ops: OnnxOps) -> None:
        """Write the target as ONNX operators that read ``ops.x`` and write ``ops.y``."""

    @abstractmethod
    def torch_kernel(self) -> Kernel:
        """Return how the target is computed in torch, in a module and as operators of a graph."""

    def reference(self, x: Array, layer: NormLayer) -> Floats:
        """Normalize x in float64, the arithmetic every rewrite is held to.

        Args:
            x: Layer input, shape (N, C, *spatial).
            layer: The BatchNorm replaced, with its weight and bias known; eps is in units of x squared.

        Returns:
            Normalized x, same shape, float64. Variance is biased (divided by the count).

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


def affine(normalized: Floats, layer: NormLayer) -> Floats:
    """Scale by weight and shift by bias, channel by channel."""
    assert layer.weight is not None and layer.bias is not None, "the caller fills in run-time parameters"
    weight = layer.per_channel(layer.weight, normalized.ndim)
    return normalized * weight + layer.per_channel(layer.bias, normalized.ndim)


def batch_moments(x: Floats, axes: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Mean and biased variance of x over ``axes``, kept as axes of length 1, by two passes."""
    mean = x.mean(axis=axes, keepdims=True)
    return mean, np.square(x - mean).mean(axis=axes, keepdims=True)


class OnnxOps(Protocol):
    """What an emitter may use: the layer's values by name, facts about them, and a way to add operators."""

    x: str
    y: str
    scale: str
    bias: str
    mean: str
    var: str
    rank: int | None
    dtype: str
    param_dtype: str

    def op(self, op_type: str, *inputs: str, output: str | None = None, **attributes: int | float | list[int]) -> str:
        """Add an operator of the default domain and return the name of its output."""
        ...

    def eps_attribute(self, op_type: str, *inputs: str, output: str | None = None) -> str:
        """Add an operator that takes ``epsilon`` as an attribute."""
        ...

    def eps_constant(self, dtype: str) -> str:
        """Add a scalar constant that holds eps."""
        ...

    def ints(self, values: list[int]) -> str:
        """Add a one-dimensional int64 constant."""
        ...

    def cast(self, value: str, dtype: str, to: str, output: str | None = None) -> str:
        """Cast ``value`` from ``dtype`` to ``to``; the value itself where they are the same."""
        ...

    def unsqueeze(self, value: str, axes: list[int]) -> str:
        """Add axes of length 1."""
        ...

    def reduce_mean(self, value: str, axes: list[int]) -> str:
        """Add a ReduceMean that keeps the reduced axes."""
        ...


def emit_two_pass(ops: OnnxOps, *, over_batch: bool) -> None:
    """Write ``(x - mean(x)) * scale / sqrt(mean((x - mean(x))**2) + eps) + bias`` as ONNX primitives.

    Two passes, because E[x²] - E[x]² cancels. Half precision is computed in float32 between Casts, because
    a square overflows float16 from 256 on. The batch axis is reduced after the spatial axes, not with them:
    OpenCV 5 fuses a ReduceMean over (0, 2, 3) into a normalization of each sample.

    Args:
        ops: Where to write.
        over_batch: Whether the statistics also span the batch axis.
    """
    compute = "float64" if ops.dtype == "float64" else "float32"
    x = ops.cast(ops.x, ops.dtype, compute)
    if ops.rank is None:  # (N, C, *spatial) -> (N, C, L), L = 1 for rank 2; 0 copies a dimension
        flat, rank = ops.op("Reshape", x, ops.ints([0, 0, -1])), 3
    else:
        flat, rank = x, ops.rank
    spatial = list(range(2, rank))

    def mean(value: str) -> str:
        if spatial:
            value = ops.reduce_mean(value, spatial)
        return ops.reduce_mean(value, [0]) if over_batch else value

    def along_channels(parameter: str) -> str:
        parameter = ops.cast(parameter, ops.param_dtype, compute)
        return ops.unsqueeze(parameter, [0, *range(2, rank)])

    centred = ops.op("Sub", flat, mean(flat))
    var = mean(ops.op("Mul", centred, centred))
    std = ops.op("Sqrt", ops.op("Add", var, ops.eps_constant(compute)))
    scaled = ops.op("Mul", centred, ops.op("Div", along_channels(ops.scale), std))
    last = ops.rank is not None and ops.dtype == compute
    y = ops.op("Add", scaled, along_channels(ops.bias), output=ops.y if last else None)
    if ops.rank is None:
        shape = ops.op("Shape", x)
        y = ops.op("Reshape", y, shape, output=ops.y if ops.dtype == compute else None)
    if ops.dtype != compute:
        ops.cast(y, compute, ops.dtype, output=ops.y)
