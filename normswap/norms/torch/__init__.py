"""Kernel: what a converted layer computes in PyTorch, in several forms, equal in meaning, unequal in speed.

The form is chosen by device, memory format, shape and whether gradients are needed. Each form is right on any input all
the same, to within the bound of rounding.py, so that a verifier can run all of them on every probe. Half precision is
computed in float32. An exporter (torch.export, torch.onnx, torch.jit.trace) gets ``export``: ATen operators alone, the
same for every shape, which it knows as the standard operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from normswap.norms.torch.eager import Form
from normswap.norms.torch.export import Export, Operands

__all__ = ["Form", "Kernel"]

_is_tracing: Callable[[], bool] = torch.jit.is_tracing  # type: ignore[attr-defined]  # documented all the same


@dataclass(frozen=True)
class Kernel:
    """A target of the conversion in PyTorch: what a converted module computes.

    Attributes:
        eager: Forms that run at once, by name; the first one suits every device.
        export: The form that is made of ATen operators alone, for tensors and proxies.
        on_cpu: Chooses a key of ``eager`` for x on the CPU, by whether a backward pass may follow; the first if None.
        needs_spatial: Whether x has to have spatial axes.

    References:
        Ioffe & Szegedy 2015, algorithms 1 and 2; Ulyanov, Vedaldi & Lempitsky 2016, Instance Normalization; Schneider
        et al. 2020, section 3.
    """

    eager: Mapping[str, Form]
    export: Export
    on_cpu: Callable[[Tensor, bool], str] | None = None
    needs_spatial: bool = False

    @property
    def forms(self) -> Mapping[str, Form]:
        """Every form, by name."""
        return {**self.eager, "export": self._exported}

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
        y = self.export(Operands(x, weight, bias, mean, var, eps, x.dim(), x.dtype, given))
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

        One element to a statistic of x alone gives the bias, where torch raises.

        Args:
            x: Shape (N, C, \*spatial), also (N, C) unless spatial axes are needed, any floating dtype; y has its dtype
                and memory format.
            weight: Shape (C,), None for 1; may be float32 where x is in half precision.
            bias: Shape (C,), None for 0; dtype as weight.
            running_mean: Shape (C,), in units of x; read by targets that use stored statistics.
            running_var: Shape (C,), in units of x squared; read by targets that use stored statistics.
            eps: Added to the variance, in units of x squared.

        Raises:
            ValueError: If x has no spatial axis where the target needs one, or not as many channels as the layer.
        """
        axes = "(N, C, *spatial)"
        if x.dim() < 3 and self.needs_spatial:
            raise ValueError(f"statistics of each sample and channel need x of shape {axes}, found {tuple(x.shape)}")
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
        name = self.pick(x, gradients=gradients)
        form = self._exported if name == "export" else self.eager[name]
        return form(x, *parameters, eps)

    def pick(self, x: Tensor, *, gradients: bool) -> str:
        """Choose a form by name: the fastest one on x, as benchmarks/torch_norms.py measures it.

        Args:
            x: The layer's input.
            gradients: Whether a backward pass may follow.
        """
        if _is_tracing() or torch.compiler.is_exporting():
            return "export"
        if self.on_cpu is None or not x.is_cpu or torch.compiler.is_compiling():
            return next(iter(self.eager))
        return self.on_cpu(x, gradients)
