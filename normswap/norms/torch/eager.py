"""Kernels that run at once, of which targets are made: for statistics of the input, for stored ones, and for both."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.autograd import forward_ad

from normswap.norms.formula import Formula, Weights
from normswap.norms.torch.tensors import along_channels, cast, compute_dtype, flat, memory_format, parameters

__all__ = [
    "Form",
    "group_norm",
    "group_norm_pooled",
    "mixed",
    "native_batch_stat",
    "native_instance",
    "native_population",
    "own_statistics",
    "per_sample",
    "two_pass",
]

# (x, weight, bias, running_mean, running_var, eps) -> y
Form: TypeAlias = Callable[[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None, float], Tensor]


def native_instance(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Torch's instance_norm: on the CPU slow, and it forgets channels_last."""
    return torch.instance_norm(x, weight, bias, None, None, True, 0.0, eps, torch.backends.cudnn.enabled)


def native_batch_stat(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Torch's train-mode batch_norm: on the CPU slow forward on contiguous input, else fast."""
    return torch.batch_norm(x, weight, bias, None, None, True, 0.0, eps, torch.backends.cudnn.enabled)


def per_sample(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Train-mode batch_norm of one sample at a time, the target's very definition; fast for channels_last.

    Each channel is taken about one of its elements: torch's channels_last kernel adds without compensation, which at
    mean 3000 and deviation 1 costs 1e-2 of the result. Half precision is not, since the difference would be rounded.
    """
    shifted = x.dtype == weight.dtype
    last = (slice(None), slice(None), *(slice(-1, None) for _ in range(x.dim() - 2)))
    parts = torch.split(x, 1)
    if torch.is_grad_enabled() or forward_ad._current_level >= 0:  # what writes into memory given is not differentiated
        parts = tuple(part - part[last].detach() for part in parts) if shifted else parts
        return torch.cat([torch.batch_norm(part, weight, bias, None, None, True, 0.0, eps, False) for part in parts])
    y, statistics = torch.empty_like(x), [torch.empty_like(weight) for _ in range(2)]
    for part, into in zip(parts, torch.split(y, 1), strict=True):
        given = torch.sub(part, part[last], out=into) if shifted else part
        torch.native_batch_norm(given, weight, bias, None, None, True, 0.0, eps, out=(into, *statistics))
    return y


def group_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """A group for each channel. As (N, C, L), because torch's channels_last kernel cancels: E[x²] - E[x]²."""
    return torch.group_norm(flat(x), x.shape[1], weight, bias, eps).view_as(x)


def group_norm_pooled(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalize each sample by torch's fast kernel, then put back what sets it apart from its batch.

    With mean m and variance v of a sample, M and V of the batch, y = (x - m) / std and std = sqrt(v + eps):

        V + eps = mean(std²) + mean((m - M)²),    (x - M) k = y std k + (m - M) k,    k = weight / sqrt(V + eps)
    """
    if x.shape[0] == 1:
        return group_norm(x, weight, bias, eps)
    given = cast(flat(x), weight.dtype).contiguous()
    batch, channels, length = given.shape
    eps = max(eps, torch.finfo(given.dtype).tiny)  # with eps 0, a constant sample would have no y
    y, mean, rstd = torch.native_group_norm(given, None, None, batch, channels, length, channels, eps)
    std, lift = rstd.reciprocal(), mean - mean.mean(0)
    k = weight * torch.rsqrt(torch.addcmul(std * std, lift, lift).mean(0))
    # In place, because fresh memory costs more than arithmetic.
    return y.mul_((std * k).unsqueeze(2)).add_(torch.addcmul(bias, lift, k).unsqueeze(2)).view_as(x)


def two_pass(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Compute the mean, then the mean square about it, in the memory format of x."""
    weight, bias = along_channels(weight, x.dim()), along_channels(bias, x.dim())
    axes = list(range(2, x.dim()))
    x = cast(x, weight.dtype)
    mean = x.mean(axes, keepdim=True)
    var = (x - mean).square_().mean(axes, keepdim=True)  # in place, as above
    k = weight * torch.rsqrt(var + eps)
    return torch.addcmul(bias - mean * k, x, k)


def own_statistics(compute: Callable[[Tensor, Tensor, Tensor, float], Tensor], formula: Formula) -> Form:
    """Make a form of what computes the statistics of x that a formula names."""

    def form(
        x: Tensor, weight: Tensor | None, bias: Tensor | None, _mean: Tensor | None, _var: Tensor | None, eps: float
    ) -> Tensor:
        weight, bias = parameters(x, weight, bias)
        if x.numel() == formula.statistics(x.shape[0], x.shape[1]):  # an element each: the bias, free of rounding
            y = (x - x) * along_channels(weight, x.dim()) + along_channels(bias, x.dim())
        else:
            y = compute(x, weight, bias, eps)
        return cast(y, x.dtype).contiguous(memory_format=memory_format(x))

    return form


def native_population(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, var: Tensor | None, eps: float
) -> Tensor:
    """Torch's eval-mode batch_norm."""
    dtype = compute_dtype(x.dtype)
    weight, bias, mean, var = (None if value is None else cast(value, dtype) for value in (weight, bias, mean, var))
    y = torch.batch_norm(x, weight, bias, mean, var, False, 0.0, eps, torch.backends.cudnn.enabled)
    return y.contiguous(memory_format=memory_format(x))


def mixed(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    stored_mean: Tensor | None,
    stored_var: Tensor | None,
    eps: float,
    *,
    weights: Weights,
    over_batch: bool,
) -> Tensor:
    """Take the mean, then the mean square about it, and mix both with stored ones.

    In the memory format of x; gradients flow through the statistics of x. Not by torch's fast group_norm: its variance
    (Welford) loses |mean| / std units in the last place. That costs instance no more than rounding x does, but not a y
    whose x is far from the mixed mean.
    """
    assert stored_mean is not None and stored_var is not None, "the plan refuses others"
    weight, bias = (along_channels(value, x.dim()) for value in parameters(x, weight, bias))
    wide = cast(x, weight.dtype)
    axes = [*([0] if over_batch else []), *range(2, x.dim())]
    mean = wide.mean(axes, keepdim=True)
    var = (wide - mean).square_().mean(axes, keepdim=True)  # in place, as above
    samples = x.shape[0] if over_batch else 1
    of_own, of_stored = weights(samples) if samples else (0.0, 1.0)  # nothing depends on that
    mean = mean * of_own + along_channels(cast(stored_mean, weight.dtype), x.dim()) * of_stored
    var = var * of_own + along_channels(cast(stored_var, weight.dtype), x.dim()) * of_stored
    k = weight * torch.rsqrt(var + eps)
    y = torch.addcmul(bias - mean * k, wide, k)
    return cast(y, x.dtype).contiguous(memory_format=memory_format(x))
