"""Every target with every kind of parameter, for tests that take a Norm; NORMS has one of each name."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from normswap.norms import NORMS, Blend, Norm

__all__ = ["TARGETS", "Blended", "asked", "options"]

TARGETS: dict[str, Norm] = {**NORMS, "blend": Blend(16, "batch"), "blend of samples": Blend(2, "sample")}


def asked(to: str) -> dict[str, Any]:
    """What a library call takes beside the name of a target, as NORMS has it."""
    return dict(NORMS[to].parameters)


def options(to: str) -> list[str]:
    """What the command line takes beside ``--to``, likewise."""
    return [word for name, value in asked(to).items() for word in (f"--{name}", str(value))]


_SIGNATURE = signature(nn.functional.batch_norm)
_STORED = ("running_mean", "running_var")


class Blended(TorchFunctionMode):
    """A context in which torch's batch_norm computes a blend, by the paper's formula, or torch's group_norm.

    Args:
        norm: The target.
        planned: The running means of the layers that are to compute it; None for every layer.
    """

    def __init__(self, norm: Norm, planned: Iterable[Tensor | None] | None = None) -> None:
        super().__init__()
        self._norm = norm
        self._planned = None if planned is None else {id(mean) for mean in planned}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not nn.functional.batch_norm:
            return func(*args, **(kwargs or {}))
        given = _SIGNATURE.bind(*args, **(kwargs or {}))
        given.apply_defaults()
        if self._planned is not None and id(given.arguments["running_mean"]) not in self._planned:
            return func(*args, **(kwargs or {}))
        return self._blend(*(given.arguments[name] for name in ("input", "weight", "bias", *_STORED, "eps")))

    def _blend(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float
    ) -> Tensor:
        dtype, norm = x.dtype, self._norm
        x = x.double()
        if norm.formula.joins_channels:
            groups = norm.formula.groups_of(x.shape[1])
            scale, shift = (None if given is None else given.double() for given in (weight, bias))
            return nn.functional.group_norm(x, groups, scale, shift, eps).to(dtype)
        axes = [*([] if norm.formula.alone else [0]), *range(2, x.dim())]
        n = 1 if norm.formula.alone else len(x)
        prior: float = norm.parameters["prior"]
        own = torch.var_mean(x, axes, correction=0, keepdim=True) if axes else (torch.zeros_like(x), x)

        def column(values: Tensor) -> Tensor:
            return values.double().reshape(1, -1, *(1,) * (x.dim() - 2))

        kept = (column(var), column(mean))
        blended = [(prior * old + n * new) / (prior + n) for old, new in zip(kept, own, strict=True)]
        y = (x - blended[1]) / torch.sqrt(blended[0] + eps)
        y = y if weight is None else y * column(weight)
        y = y if bias is None else y + column(bias)
        return y.to(dtype)
