"""What a converted layer computes in PyTorch: each target in several forms, equal in meaning, unequal in speed.

``pick`` chooses the form by device, memory format, shape and whether gradients are needed. Each form is right on any
input all the same, to within the bound of tolerance.py, so that a verifier can run all of ``FORMS`` on every probe.
Half precision is computed in float32. An exporter (torch.export, torch.onnx, torch.jit.trace) gets ``EXPORT_FORMS``:
ATen operators alone, the same for every shape, which it knows as the standard operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = [
    "BATCH_STAT",
    "EXPORT_FORMS",
    "FORMS",
    "INSTANCE",
    "POPULATION",
    "Form",
    "Kernel",
    "pick",
]

# (x, weight, bias, running_mean, running_var, eps) -> y
Form: TypeAlias = Callable[[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None, float], Tensor]

_HALF = (torch.float16, torch.bfloat16)
# Elements of a sample from which a call for each pays in channels_last: with a backward pass, and without.
_LARGE_SAMPLE = {True: 2**15, False: 2**18}
# Elements of a channel of a sample from which group_norm, which sees to each by itself, pays.
_LARGE_MAP = 128
_is_tracing: Callable[[], bool] = torch.jit.is_tracing  # type: ignore[attr-defined]  # documented all the same


@dataclass(frozen=True)
class Kernel:
    """A target of the conversion in PyTorch: what a converted module computes.

    Attributes:
        target: A key of FORMS.

    References:
        Ioffe & Szegedy 2015, algorithms 1 and 2; Ulyanov, Vedaldi & Lempitsky 2016, Instance Normalization.
    """

    target: str

    @property
    def forms(self) -> Mapping[str, Form]:
        """Every form, by name."""
        return FORMS[self.target]

    @property
    def export(self) -> Callable[..., Any]:
        """The form that is made of ATen operators alone, for tensors and proxies."""
        return EXPORT_FORMS[self.target]

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

        One element to a statistic gives the bias, where torch raises.

        Args:
            x: Shape (N, C, \*spatial), for batch-stat and population also (N, C), any floating dtype; y has its dtype
                and memory format.
            weight: Shape (C,), None for 1; may be float32 beside x in half precision.
            bias: Shape (C,), None for 0; dtype as weight.
            running_mean: Shape (C,), in units of x; read for population alone.
            running_var: Shape (C,), in units of x squared; read for population alone.
            eps: Added to the variance, in units of x squared.

        Raises:
            ValueError: If x has no spatial axis where the target needs one, or not as many channels as the layer.
        """
        axes = "(N, C, *spatial)"
        if x.dim() < 3 and self.target == "instance":
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
    """Choose a key of ``FORMS[target]``: the fastest form on x, as benchmarks/torch_norms.py measures it.

    Args:
        target: A key of FORMS.
        x: The layer's input.
        gradients: Whether a backward pass may follow.
    """
    if _is_tracing() or torch.compiler.is_exporting():
        return "export"
    if target == "population" or not x.is_cpu or torch.compiler.is_compiling():
        return "native"
    samples, channels_last = x.shape[0], _memory_format(x) != torch.contiguous_format
    if target == "instance" and channels_last:
        if samples == 1 or x.numel() >= _LARGE_SAMPLE[gradients] * samples:
            return "per_sample"
        return "group_norm" if gradients else "two_pass"
    if channels_last or x.dtype in _HALF:
        return "native"
    # Over several samples, group_norm has no fast backward pass, and on small maps no fast forward pass.
    slow = target == "batch-stat" and samples > 1 and (gradients or x.numel() < _LARGE_MAP * samples * x.shape[1])
    return "native" if slow else "group_norm"


def _native_instance(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Torch's instance_norm: on the CPU slow, and it forgets channels_last."""
    return torch.instance_norm(x, weight, bias, None, None, True, 0.0, eps, torch.backends.cudnn.enabled)


def _native_batch_stat(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Torch's train-mode batch_norm: on the CPU slow forward on contiguous input, else fast."""
    return torch.batch_norm(x, weight, bias, None, None, True, 0.0, eps, torch.backends.cudnn.enabled)


def _per_sample(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
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


def _group_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """A group for each channel. As (N, C, L), because torch's channels_last kernel cancels: E[x²] - E[x]²."""
    return torch.group_norm(_flat(x), x.shape[1], weight, bias, eps).view_as(x)


def _group_norm_pooled(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalize each sample by torch's fast kernel, then put back what sets it apart from its batch.

    With mean m and variance v of a sample, M and V of the batch, y = (x - m) / std and std = sqrt(v + eps):

        V + eps = mean(std²) + mean((m - M)²),    (x - M) k = y std k + (m - M) k,    k = weight / sqrt(V + eps)
    """
    if x.shape[0] == 1:
        return _group_norm(x, weight, bias, eps)
    flat = _cast(_flat(x), weight.dtype).contiguous()
    batch, channels, length = flat.shape
    eps = max(eps, torch.finfo(flat.dtype).tiny)  # with eps 0, a constant sample would have no y
    y, mean, rstd = torch.native_group_norm(flat, None, None, batch, channels, length, channels, eps)
    std, lift = rstd.reciprocal(), mean - mean.mean(0)
    k = weight * torch.rsqrt(torch.addcmul(std * std, lift, lift).mean(0))
    # In place, because fresh memory costs more than arithmetic.
    return y.mul_((std * k).unsqueeze(2)).add_(torch.addcmul(bias, lift, k).unsqueeze(2)).view_as(x)


def _two_pass(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Compute the mean, then the mean square about it, in the memory format of x."""
    weight, bias = _along_channels(weight, x.dim()), _along_channels(bias, x.dim())
    axes = list(range(2, x.dim()))
    x = _cast(x, weight.dtype)
    mean = x.mean(axes, keepdim=True)
    var = (x - mean).square_().mean(axes, keepdim=True)  # in place, as above
    k = weight * torch.rsqrt(var + eps)
    return torch.addcmul(bias - mean * k, x, k)


def _flat(x: Tensor) -> Tensor:
    """(N, C, *spatial) as (N, C, L), which no kernel takes for channels_last."""
    return x.flatten(2) if x.dim() > 2 else x.unsqueeze(2)


def _along_channels(parameter: Tensor, rank: int) -> Tensor:
    return parameter.view(1, -1, *(1,) * (rank - 2))


def _memory_format(x: Tensor) -> torch.memory_format:
    """The memory format that y shall have; a slice of channels_last is channels_last."""
    if x.dim() not in (4, 5) or x.is_contiguous() or x.stride(1) != 1:
        return torch.contiguous_format
    return torch.channels_last if x.dim() == 4 else torch.channels_last_3d


def _cast(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value if value.dtype == dtype else value.to(dtype)  # to() alone takes ten times as long to do nothing


def _compute_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _own_statistics(compute: Callable[[Tensor, Tensor, Tensor, float], Tensor], *, over_batch: bool) -> Form:
    """Make a form of what computes its own statistics, of each sample or of the batch.

    Weight and bias go to it as tensors, float32 beside half precision: with half or no parameters torch's kernels
    hold the statistics, too, in half precision, and y is off by hundreds of times what rounding allows.
    """

    def form(
        x: Tensor, weight: Tensor | None, bias: Tensor | None, _mean: Tensor | None, _var: Tensor | None, eps: float
    ) -> Tensor:
        dtype = _compute_dtype(x.dtype)
        weight = x.new_ones(x.shape[1], dtype=dtype) if weight is None else _cast(weight, dtype)
        bias = x.new_zeros(x.shape[1], dtype=dtype) if bias is None else _cast(bias, dtype)
        if x.numel() == x.shape[1] * (1 if over_batch else x.shape[0]):  # an element each: the bias, free of rounding
            y = (x - x) * _along_channels(weight, x.dim()) + _along_channels(bias, x.dim())
        else:
            y = compute(x, weight, bias, eps)
        return _cast(y, x.dtype).contiguous(memory_format=_memory_format(x))

    return form


def _native_population(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, var: Tensor | None, eps: float
) -> Tensor:
    """Torch's eval-mode batch_norm."""
    dtype = _compute_dtype(x.dtype)
    weight, bias, mean, var = (None if value is None else _cast(value, dtype) for value in (weight, bias, mean, var))
    y = torch.batch_norm(x, weight, bias, mean, var, False, 0.0, eps, torch.backends.cudnn.enabled)
    return y.contiguous(memory_format=_memory_format(x))


def _export_form(
    target: str,
    x: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    eps: float,
    *,
    rank: int,
    dtype: torch.dtype,
    param_dtype: torch.dtype,
) -> Any:
    """Compute a target by ATen operators alone; on ``fx.Proxy`` arguments, add these operators to the graph.

    instance is ``aten.instance_norm``, which exporters write as InstanceNormalization, except in float64, for which
    no runtime has a kernel. batch-stat is two passes, the batch axis reduced by itself: OpenCV 5 takes a mean over
    (0, 2, 3) for a normalization of each sample. population is ``aten.batch_norm``.

    Args:
        target: A key of FORMS.
        x: Tensor or proxy of shape (N, C, *spatial).
        weight: Tensor or proxy of shape (C,), or None for 1.
        bias: As weight, or None for 0.
        running_mean: As weight, for population.
        running_var: As weight, for population.
        eps: Added to the variance, in units of x squared.
        rank: Number of dimensions of x.
        dtype: Of x.
        param_dtype: Of weight, bias and running statistics.
    """
    aten, compute, spatial = torch.ops.aten, _compute_dtype(dtype), list(range(2, rank))

    def cast(value: Any, of: torch.dtype, to: torch.dtype) -> Any:
        return value if value is None or of == to else aten.to.dtype(value, to)

    def mean(value: Any) -> Any:
        value = aten.mean.dim(value, spatial, True) if spatial else value
        return aten.mean.dim(value, [0], True) if target == "batch-stat" else value

    if target == "population":
        to = param_dtype if dtype in _HALF else dtype
        values = (cast(value, param_dtype, to) for value in (weight, bias, running_mean, running_var))
        return aten.batch_norm.default(x, *values, False, 0.0, eps, False)
    x, weight, bias = cast(x, dtype, compute), cast(weight, param_dtype, compute), cast(bias, param_dtype, compute)
    if target == "instance" and compute != torch.float64:
        y = aten.instance_norm.default(x, weight, bias, None, None, True, 0.0, eps, False)
    else:
        channels = [1, -1] + [1] * len(spatial)
        centred = aten.sub.Tensor(x, mean(x))
        std = aten.sqrt.default(aten.add.Scalar(mean(aten.mul.Tensor(centred, centred)), eps))
        if weight is None:
            y = aten.div.Tensor(centred, std)
        else:
            y = aten.mul.Tensor(centred, aten.div.Tensor(aten.view.default(weight, channels), std))
        if bias is not None:
            y = aten.add.Tensor(y, aten.view.default(bias, channels))
    return cast(y, compute, dtype)


def _exported(target: str) -> Form:
    """Make a form of one of EXPORT_FORMS."""

    def form(
        x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, var: Tensor | None, eps: float
    ) -> Tensor:
        given = next((value.dtype for value in (weight, bias, mean) if value is not None), x.dtype)
        y = EXPORT_FORMS[target](x, weight, bias, mean, var, eps, rank=x.dim(), dtype=x.dtype, param_dtype=given)
        assert isinstance(y, Tensor)
        return y

    return form


FORMS: dict[str, dict[str, Form]] = {
    "instance": {
        "native": _own_statistics(_native_instance, over_batch=False),
        "group_norm": _own_statistics(_group_norm, over_batch=False),
        "per_sample": _own_statistics(_per_sample, over_batch=False),
        "two_pass": _own_statistics(_two_pass, over_batch=False),
        "export": _exported("instance"),
    },
    "batch-stat": {
        "native": _own_statistics(_native_batch_stat, over_batch=True),
        "group_norm": _own_statistics(_group_norm_pooled, over_batch=True),
        "export": _exported("batch-stat"),
    },
    "population": {"native": _native_population, "export": _exported("population")},
}

# (x, weight, bias, running_mean, running_var, eps, *, rank, dtype, param_dtype) -> y
EXPORT_FORMS: dict[str, Callable[..., Any]] = {target: partial(_export_form, target) for target in FORMS}

INSTANCE, BATCH_STAT, POPULATION = Kernel("instance"), Kernel("batch-stat"), Kernel("population")
