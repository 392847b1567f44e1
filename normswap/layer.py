"""NormLayer: one BatchNorm as plain NumPy data, whatever framework it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Dim", "Floats", "NormLayer", "Refusal", "Role"]

Array: TypeAlias = NDArray[Any]
Floats: TypeAlias = NDArray[np.float64]
Dim: TypeAlias = int | str | None

Role: TypeAlias = Literal["eval", "train", "batch-stat", "instance", "weight", "unknown"]


@dataclass(frozen=True, eq=False)
class NormLayer:
    r"""One BatchNorm layer of a model.

    Attributes:
        name: Unique in the model and kept by every rewrite: in ONNX the path of the value that the layer
            writes, ``owner:branch/value`` inside a subgraph and ``call/value`` inside a local function.
        role: What the source operator computes today.

            - ``eval``: normalizes with stored running statistics.
            - ``train``: normalizes with the statistics of the batch (ONNX ``training_mode=1``).
            - ``batch-stat``: as ``train``, with statistics that other operators of the graph compute.
            - ``instance``: InstanceNorm written as a reshape around a train-mode BatchNorm.
            - ``weight``: normalizes a parameter (weight standardisation), not activations.
            - ``unknown``: could not be established; ``blocked`` says why.
        num_features: Number of channels C, None if it is known only at run time.
        eps: Added to the variance, in units of x squared.
        weight: gamma (ONNX ``scale``), shape (C,), None if it is given at run time.
        bias: beta (ONNX ``B``), shape (C,), None if it is given at run time.
        running_mean: Stored mean (ONNX ``input_mean``), shape (C,), None if none is stored.
        running_var: Stored variance (ONNX ``input_var``), shape (C,), None if none is stored.
        dtype: Element type of the layer's input, as NumPy (or ml_dtypes) spells it.
        shape: The layer's input as (N, C, \\*spatial); a string or None is a dimension known at run time,
            None for the whole means that the rank is unknown.
        body: Names the code that this layer shares with others (a local function called more than once);
            such layers are rewritten together or not at all. Empty if the code is its own.
        blocked: Why no target can replace this layer; empty if one can.
    """

    name: str
    role: Role
    num_features: int | None
    eps: float
    weight: Array | None
    bias: Array | None
    running_mean: Array | None
    running_var: Array | None
    dtype: str = "float32"
    shape: tuple[Dim, ...] | None = None
    body: str = ""
    blocked: str = ""

    @property
    def rank(self) -> int | None:
        """Number of dimensions of the layer's input, None if unknown."""
        return None if self.shape is None else len(self.shape)

    def per_channel(self, values: Array | float, rank: int) -> Floats:
        """Shape (C,) values, or a scalar, so that they broadcast against (N, C, *spatial), in float64."""
        array = np.asarray(values).astype(np.float64)
        return array.reshape((1, -1) + (1,) * (rank - 2)) if array.ndim else array


@dataclass(frozen=True)
class Refusal:
    """A selected layer that the target cannot take, and why."""

    layer: NormLayer
    reason: str
