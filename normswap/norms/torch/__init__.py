"""What a converted layer computes in PyTorch: each target in several forms, equal in meaning, unequal in speed.

``pick`` chooses the form by device, memory format, shape and whether gradients are needed. Each form is right on any
input all the same, to within the bound of tolerance.py, so that a verifier can run all of them on every probe.
Half precision is computed in float32. An exporter (torch.export, torch.onnx, torch.jit.trace) gets ``export``:
ATen operators alone, the same for every shape, which it knows as the standard operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from normswap.norms.torch.eager import (
    Form,
    blended,
    group_norm,
    group_norm_pooled,
    native_batch_stat,
    native_instance,
    native_population,
    own_statistics,
    per_sample,
    two_pass,
)
from normswap.norms.torch.export import export_form
from normswap.norms.torch.tensors import HALF, memory_format

__all__ = ["BATCH_STAT", "FORMS", "INSTANCE", "POPULATION", "Form", "Kernel", "pick"]

# Elements of a sample from which a call for each pays in channels_last: with a backward pass, and without.
_LARGE_SAMPLE = {True: 2**15, False: 2**18}
# Elements of a channel of a sample from which group_norm, which sees to each by itself, pays.
_LARGE_MAP = 128
_is_tracing: Callable[[], bool] = torch.jit.is_tracing  # type: ignore[attr-defined]  # documented all the same

FORMS: dict[str, dict[str, Form]] = {  # of the targets without parameters
    "instance": {
        "native": own_statistics(native_instance, over_batch=False),
        "group_norm": own_statistics(group_norm, over_batch=False),
        "per_sample": own_statistics(per_sample, over_batch=False),
        "two_pass": own_statistics(two_pass, over_batch=False),
    },
    "batch-stat": {
        "native": own_statistics(native_batch_stat, over_batch=True),
        "group_norm": own_statistics(group_norm_pooled, over_batch=True),
    },
    "population": {"native": native_population},
}


@dataclass(frozen=True)
class Kernel:
    """A target of the conversion in PyTorch: what a converted module computes.

    Attributes:
        target: A key of normswap.NORMS.
        by_sample: Whether each sample is taken by itself.
        prior: As how many samples the stored statistics count, for blend.

    References:
        Ioffe & Szegedy 2015, algorithms 1 and 2; Ulyanov, Vedaldi & Lempitsky 2016, Instance Normalization; Schneider
        et al. 2020, section 3.
    """

    target: str
    by_sample: bool
    prior: float = 0.0

    @property
    def forms(self) -> Mapping[str, Form]:
        """Every form, by name."""
        if self.target == "blend":
            return {
                "native": partial(blended, prior=self.prior, by_sample=self.by_sample),
                "export": self._exported,
            }
        return {**FORMS[self.target], "export": self._exported}

    @property
    def export(self) -> Callable[..., Any]:
        """The form that is made of ATen operators alone, for tensors and proxies."""
        return partial(export_form, target=self.target, prior=self.prior, by_sample=self.by_sample)

    def _exported(
        self,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor | None,
        var: Tensor | None,
        eps: float,
    ) -> Tensor:
        given = next((value.dtype for value in (weight, bias, mean) if value is not None), x.dtype)
        y = self.export(x, weight, bias, mean, var, eps, rank=x.dim(), dtype=x.dtype, param_dtype=given)
        assert isinstance(y, Tensor)
        return y

    def __call__(
        self,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        eps: float,
    ) -> Tensor:
        r"""Normalize x with the target's mean and biased variance, by the form that suits it.

        One element to a statistic gives instance and batch-stat the bias, where torch raises.

        Args:
            x: Shape (N, C, \*spatial), also (N, C) unless each sample is taken by itself, any floating dtype; y has
                its dtype and memory format.
            weight: Shape (C,), None for 1; may be float32 beside x in half precision.
            bias: Shape (C,), None for 0; dtype as weight.
            running_mean: Shape (C,), in units of x; read for population and blend.
            running_var: Shape (C,), in units of x squared; read for population and blend.
            eps: Added to the variance, in units of x squared.

        Raises:
            ValueError: If x has no spatial axis where the target needs one, or not as many channels as the layer.
        """
        axes = "(N, C, *spatial)"
        if x.dim() < 3 and self.by_sample:
            raise ValueError(f"instance statistics need x of shape {axes}, found {tuple(x.shape)}")
        if x.dim() < 2:
            raise ValueError(f"BatchNorm needs x of shape (N, C) or {axes}, found {tuple(x.shape)}")
        parameters = (weight, bias, running_mean, running_var)
        if not _is_tracing():  # which warns of a Python branch on a shape
            channels = x.shape[1]
            for parameter in parameters:
                if parameter is not None and parameter.shape[0] != channels:
                    raise ValueError(
                        f"the layer has {parameter.shape[0]} channels, x of shape {tuple(x.shape)} has {channels}"
                    )
        gradients = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias))
        return self.forms[pick(self.target, x, gradients=gradients)](x, *parameters, eps)


def pick(target: str, x: Tensor, *, gradients: bool) -> str:
    """Choose a key of a kernel's forms: the fastest form on x, as benchmarks/torch_norms.py measures it.

    Args:
        target: Of the kernel.
        x: The layer's input.
        gradients: Whether a backward pass may follow.
    """
    if _is_tracing() or torch.compiler.is_exporting():
        return "export"
    if target in ("population", "blend") or not x.is_cpu or torch.compiler.is_compiling():
        return "native"
    samples, channels_last = x.shape[0], memory_format(x) != torch.contiguous_format
    if target == "instance" and channels_last:
        if samples == 1 or x.numel() >= _LARGE_SAMPLE[gradients] * samples:
            return "per_sample"
        return "group_norm" if gradients else "two_pass"
    if channels_last or x.dtype in HALF:
        return "native"
    # Over several samples, group_norm has no fast backward pass, and on small maps no fast forward pass.
    slow = target == "batch-stat" and samples > 1 and (gradients or x.numel() < _LARGE_MAP * samples * x.shape[1])
    return "native" if slow else "group_norm"


INSTANCE = Kernel("instance", by_sample=True)
BATCH_STAT = Kernel("batch-stat", by_sample=False)
POPULATION = Kernel("population", by_sample=False)
