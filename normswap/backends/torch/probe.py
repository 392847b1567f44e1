"""Second witness, the torch half: one converted layer, run alone in every way that it may be computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from normswap.backends.torch.running import undisturbed
from normswap.backends.torch.tensors import CHANNELS_LAST, to_array, to_tensor
from normswap.errors import CannotRunError, first_line
from normswap.layer import Array, NormLayer

__all__ = ["CutLayer"]


@dataclass(frozen=True, eq=False)
class CutLayer:
    """One converted layer as a function of its input alone.

    Attributes:
        layer: The original layer.
        ways: The layer, by how it is run: every kernel that it may choose by itself is one way.
        device: Where it runs.
        free: Parameters that are taken from the layer given at each call, with the function that sets them.
        rank: Rank of the input that it takes.
        trouble: Why it cannot be run alone; empty where it can.
    """

    layer: NormLayer
    ways: Mapping[str, Callable[[torch.Tensor], Any]]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    free: Mapping[str, Callable[[torch.Tensor], None]] = field(default_factory=dict)
    rank: int = 4
    trouble: str = ""

    def __call__(self, x: Array, layer: NormLayer) -> dict[str, Array]:
        """Run on ``x``, in both memory formats where there are two; return the output by how it was run.

        Raises:
            CannotRunError: If it raises anything, or gives no tensor.
        """
        for name, put in self.free.items():
            put(to_tensor(getattr(layer, name), self.device))
        tensor = to_tensor(x, self.device)
        inputs = {"contiguous": tensor}
        if tensor.ndim in CHANNELS_LAST:
            inputs["channels_last"] = tensor.to(memory_format=CHANNELS_LAST[tensor.ndim])
        outputs = {}
        with undisturbed():
            for form, given in inputs.items():
                for way, run in self.ways.items():
                    try:
                        found = run(given.clone())
                    except Exception as error:  # whatever stands in the layer's place raises
                        reason = f"{type(error).__name__}: {first_line(error)}"
                        raise CannotRunError(f"{way}, {form}: {reason}") from error
                    if not isinstance(found, torch.Tensor):
                        raise CannotRunError(f"{way}, {form}: it returns {type(found).__name__}, expected a tensor")
                    outputs[f"{way}, {form}"] = to_array(found)
        return outputs
