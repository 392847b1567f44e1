"""How targets are written as ONNX operators: what an emitter is given, and the parts that several share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

__all__ = [
    "Body",
    "Mix",
    "OnnxOps",
    "Pool",
    "along_channels",
    "compute_dtype",
    "emit_in",
    "emit_two_pass",
    "over_batch",
]


class OnnxOps(Protocol):
    """What an emitter may use: the layer's values by name, facts about them, and a way to add operators."""

    x: str
    y: str
    scale: str
    bias: str
    mean: str
    var: str
    rank: int | None
    channels: int | None
    dtype: str
    param_dtype: str  # of scale and bias
    stat_dtype: str  # of mean and var

    def op(self, op_type: str, *inputs: str, output: str | None = None, **attributes: int | float | list[int]) -> str:
        """Add an operator of the default domain and return the name of its output."""
        ...

    def eps_attribute(self, op_type: str, *inputs: str, output: str | None = None) -> str:
        """Add an operator that takes ``epsilon`` as an attribute."""
        ...

    def eps_constant(self, dtype: str) -> str:
        """Add a scalar constant that holds eps."""
        ...

    def number(self, value: float, dtype: str) -> str:
        """Add a scalar constant."""
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

    def reduce_sum(self, value: str, axes: list[int]) -> str:
        """Add a ReduceSum that keeps the reduced axes."""
        ...


# (x, rank of x, name that y is to have or None) -> y
Body: TypeAlias = Callable[[str, int, str | None], str]


def emit_in(compute: str, ops: OnnxOps, body: Body) -> None:
    """Write ``ops.y = body(ops.x)`` in the type ``compute``, between Casts where ``ops.dtype`` is another.

    Where the rank is unknown, x is taken as (N, C, L), with L = 1 for rank 2.
    """
    x = ops.cast(ops.x, ops.dtype, compute)
    last = ops.y if ops.dtype == compute else None
    if ops.rank is None:
        y = body(ops.op("Reshape", x, ops.ints([0, 0, -1])), 3, None)  # 0 copies a dimension
        y = ops.op("Reshape", y, ops.op("Shape", x), output=last)
    else:
        y = body(x, ops.rank, last)
    if last is None:
        ops.cast(y, compute, ops.dtype, output=ops.y)


def compute_dtype(ops: OnnxOps) -> str:
    """Return the type in which primitives compute: never half, since a square overflows float16 from 256 on."""
    return "float64" if ops.dtype == "float64" else "float32"


def along_channels(ops: OnnxOps, parameter: str, dtype: str, rank: int) -> str:
    """Shape a parameter of type ``dtype`` so that it broadcasts against (N, C, *spatial), in the computing type."""
    return ops.unsqueeze(ops.cast(parameter, dtype, compute_dtype(ops)), [0, *range(2, rank)])


# (operators, a value of shape (N, C, 1, ..., 1), its rank) -> its mean over more axes, which broadcasts against x
Pool: TypeAlias = Callable[[OnnxOps, str, int], str]
# (operators, the mean of each sample) -> ((a statistic of x, the stored one as a column) -> the one to use)
Mix: TypeAlias = Callable[[OnnxOps, str], Callable[[str, str], str]]


def over_batch(ops: OnnxOps, value: str, _rank: int) -> str:
    """Pool over the batch axis."""
    return ops.reduce_mean(value, [0])


def emit_two_pass(ops: OnnxOps, *, pool: Pool | None = None, mix: Mix | None = None) -> None:
    """Write ``(x - mean(x)) * scale / sqrt(mean((x - mean(x))**2) + eps) + bias`` as ONNX primitives.

    Two passes, because E[x²] - E[x]² cancels. The batch axis is reduced after the spatial axes, not with them:
    OpenCV 5 fuses a ReduceMean over (0, 2, 3) into a normalization of each sample.

    Args:
        ops: Where to write.
        pool: Averages further what was averaged over the spatial axes, for statistics over more axes than these.
        mix: Turns the statistics of x and the stored ones into those to use. With m in place of the mean a,
            y = (x - a) k + ((a - m) k + bias), so that x is not read once more.
    """

    def body(x: str, rank: int, y: str | None) -> str:
        spatial = list(range(2, rank))

        def of_samples(value: str) -> str:
            return ops.reduce_mean(value, spatial) if spatial else value

        def of_all(means: str) -> str:
            return means if pool is None else pool(ops, means, rank)

        means = of_samples(x)
        own_mean = of_all(means)
        centred = ops.op("Sub", x, own_mean)
        var = of_all(of_samples(ops.op("Mul", centred, centred)))
        if mix is not None:
            used = mix(ops, means)
            used_mean, var = (
                used(own, along_channels(ops, stored, ops.stat_dtype, rank))
                for own, stored in ((own_mean, ops.mean), (var, ops.var))
            )
        std = ops.op("Sqrt", ops.op("Add", var, ops.eps_constant(compute_dtype(ops))))
        k = ops.op("Div", along_channels(ops, ops.scale, ops.param_dtype, rank), std)
        scaled = ops.op("Mul", centred, k)
        bias = along_channels(ops, ops.bias, ops.param_dtype, rank)
        if mix is not None:
            bias = ops.op("Add", ops.op("Mul", ops.op("Sub", own_mean, used_mean), k), bias)
        return ops.op("Add", scaled, bias, output=y)

    emit_in(compute_dtype(ops), ops, body)
