"""Tell what a BatchNormalization whose mean and variance are computed in the graph computes.

Exporters write the statistics of a batch in a dozen ways, so they are recognised by what they compute, not by
how: the operators between the layer's input and its mean and variance are cut out, run on random data, and
compared with the statistics of that data.
"""

from __future__ import annotations

import math

import numpy as np
import onnx

from normswap.backends.onnx_graph.cut import CutError, cut_out
from normswap.backends.onnx_graph.graph.model import OnnxModel
from normswap.backends.onnx_graph.graph.scopes import Scope
from normswap.backends.onnx_graph.graph.shapes import dims_of
from normswap.backends.onnx_graph.runtime import Session
from normswap.errors import CannotRunError
from normswap.layer import Array, Dim, Floats, Role

__all__ = ["is_instance_in_disguise", "recognise"]

# float32 statistics of a few hundred values are right to about 1e-6 of the spread, half precision to 1e-2
# or so; the wrong ones (other axes, N - 1) are off by more than 1e-2 of it for the sizes below.
_RELATIVE = {"float16": 2e-2, "bfloat16": 5e-2}
_RELATIVE_DEFAULT = 1e-4
_UNKNOWN_DIMS = (2, 3, 5, 6, 4)
_MOST_ELEMENTS = 1 << 26  # of the data that statistics are recognised by, half a gigabyte in float64


def recognise(scope: Scope, x: str, mean: str, var: str, dtype: str, channels: int | None) -> tuple[Role, str]:
    """Return ``batch-stat``, or ``unknown`` and the reason.

    Args:
        scope: Where the names live.
        x: What is normalized.
        mean: What it is normalized with.
        var: The same.
        dtype: Element type of x.
        channels: Length of its axis of channels, None where unknown.
    """
    known = scope.value_type(x)
    dims = dims_of(known)
    shapes = [_concrete(dims, channels)] if dims else [_concrete((None,) * rank, channels) for rank in (4, 3, 5, 2)]
    element = known.tensor_type.elem_type if known is not None else onnx.TensorProto.FLOAT
    reason = ""
    for shape in shapes:
        if len(shape) < 2 or not 0 < math.prod(shape) <= _MOST_ELEMENTS:
            wanted = f"1 to {_MOST_ELEMENTS:,} elements in two dimensions or more"
            return "unknown", f"its mean and variance are computed at run time, and {shape} is no input of {wanted}"
        x_type = onnx.helper.make_tensor_type_proto(element, [None] * len(shape))
        data = _styled(shape, dtype)
        try:
            model = cut_out(scope, [mean, var], {x: ("x", x_type)})
            found = Session(OnnxModel(model), optimize=False, threads=1).run({"x": data})
        except CutError as error:
            return "unknown", f"its mean or variance is computed at run time, and not from its input: {error}"
        except CannotRunError as error:
            reason = f"its mean and variance are computed at run time in a way that does not run alone: {error}"
            continue
        with np.errstate(all="ignore"):  # what is computed may be anything
            role, reason = _compare(data.astype(np.float64), found["out0"], found["out1"], dtype)
        if role != "unknown":
            return role, reason
    return "unknown", reason


def is_instance_in_disguise(scope: Scope, x: str) -> bool:
    """Whether x is (N, C, ...) reshaped to (1, N * C, ...), whose batch statistics are per sample."""
    origin = scope.resolve(x)
    if origin.node is None or origin.node.op_type != "Reshape" or not origin.node.input:
        return False
    before = dims_of(origin.scope.value_type(origin.node.input[0]))
    after = dims_of(scope.value_type(x))
    if before is None or after is None or len(before) < 3 or len(after) < 2:
        return False
    if after[0] != 1 or before[0] == 1:
        return False
    batch, channels, folded = before[0], before[1], after[1]
    if isinstance(batch, int) and isinstance(channels, int) and isinstance(folded, int):
        return folded == batch * channels
    return True


def _concrete(dims: tuple[Dim, ...], channels: int | None) -> tuple[int, ...]:
    shape = [dim if isinstance(dim, int) else default for dim, default in zip(dims, _UNKNOWN_DIMS, strict=False)]
    if channels is not None and len(shape) > 1:
        shape[1] = channels
    return tuple(shape)


def _styled(shape: tuple[int, ...], dtype: str) -> Array:
    """Random data whose samples and channels differ in mean and spread, as no wrong axes could miss."""
    rng = np.random.default_rng(0)
    style = (*shape[:2], *(1,) * (len(shape) - 2))
    data = rng.standard_normal(shape) * rng.uniform(0.5, 2, style) + rng.uniform(-2, 2, style)
    return np.asarray(data).astype(dtype)


def _compare(x: Floats, mean: Array, var: Array, dtype: str) -> tuple[Role, str]:
    axes = (0, *range(2, x.ndim))
    count = x.size // max(x.shape[1], 1)
    biased = x.var(axis=axes)
    tolerance = _RELATIVE.get(dtype, _RELATIVE_DEFAULT)

    def close(found: Array, expected: Floats, scale: Floats) -> bool:
        wanted = found.astype(np.float64).reshape(-1)
        return wanted.shape == expected.shape and bool(np.all(np.abs(wanted - expected) <= tolerance * scale))

    if not close(mean, x.mean(axis=axes), np.sqrt(biased) + np.abs(x.mean(axis=axes))):
        return "unknown", "its mean is computed at run time and is not that of the batch"
    if close(var, biased, biased):
        return "batch-stat", ""
    if count > 1 and close(var, biased * count / (count - 1), biased):
        return (
            "unknown",
            "it normalizes with the unbiased variance (divided by the count less one), as no BatchNorm does",
        )
    return "unknown", "its variance is computed at run time and is not that of the batch"
