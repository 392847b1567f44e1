"""blend: the stored running statistics, which count as some samples, mixed with those of the input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np

from normswap.errors import SelectionError
from normswap.layer import NormLayer
from normswap.norms.base import Form, Norm, by_name, no_stored_statistics, single_elements
from normswap.norms.formula import Axis, Formula
from normswap.norms.mistake import Mistake, counting, mixing, unbiased
from normswap.norms.onnx import OnnxOps, compute_dtype, emit_two_pass, over_batch
from normswap.norms.parameters import Parameter, choice_of, number_from

if TYPE_CHECKING:
    from normswap.norms.torch import Kernel

__all__ = ["OVER", "Blend", "Over"]

Over: TypeAlias = Literal["sample", "batch"]
OVER: tuple[Over, ...] = get_args(Over)
# Long before this float32 has no digit left for the input's own statistics; beyond it products would overflow.
_LARGEST_PRIOR = 1e12

_PRIOR = Parameter(
    name="prior",
    type=float,
    expected="a number, 0 or more",
    read=number_from(0),
    help="For blend: weight of the stored statistics, in samples (for example 16).",
    metavar="N0",
    missing=(
        "the weight of the stored statistics, in samples; Schneider et al. 2020 use 16 for single images (--prior 16), "
        "0 leaves the stored statistics out, and hundreds leave little else"
    ),
)
_OVER = Parameter(
    name="over",
    type=str,
    expected=" or ".join(map(repr, OVER)),
    read=choice_of(*OVER),
    help="For blend: whether the other statistics are those of each sample (default) or of the batch.",
    metavar=f"[{'|'.join(OVER)}]",
    choices=OVER,
    default="sample",
)


def _weights(prior: float, samples: Any) -> tuple[Any, Any]:
    """Return the weights of the input's own statistics and of the stored ones."""
    total = prior + samples
    return samples / total, prior / total


def _emit(ops: OnnxOps, *, prior: float, each_sample: bool) -> None:
    """Write two passes over x, their results mixed with the stored statistics; N is read at run time."""
    compute = compute_dtype(ops)

    def mix(ops: OnnxOps, means: str) -> Callable[[str, str], str]:
        if each_sample:
            of_own, of_stored = (ops.number(weight, compute) for weight in _weights(prior, 1))
        else:
            # A 1 for each sample, NaN and infinity included (IEEE 754, pow), summed: OpenCV 5 does not run Shape, and
            # MNN takes N from it for 1.
            samples = ops.reduce_sum(ops.op("Pow", means, ops.number(0, compute)), [0])
            counted = ops.number(prior, compute)
            total = ops.op("Add", counted, samples)
            of_own, of_stored = ops.op("Div", samples, total), ops.op("Div", counted, total)
        return lambda own, stored: ops.op("Add", ops.op("Mul", stored, of_stored), ops.op("Mul", own, of_own))

    emit_two_pass(ops, pool=None if each_sample else over_batch, mix=mix)


def _mixed_in_aten(means: Any, *, prior: float, each_sample: bool) -> Callable[[Any, Any], Any]:
    """Mix by operators; the samples of a batch are counted by a sum of ones, since sizes are no tensors."""
    import torch

    aten = torch.ops.aten
    if each_sample:
        return lambda own, stored: aten.div.Scalar(aten.add.Tensor(own, aten.mul.Scalar(stored, prior)), prior + 1)
    # A 1 for each sample, NaN and infinity included, summed: no runtime has to know a shape for that.
    samples = aten.sum.dim_IntList(aten.pow.Tensor_Scalar(means, 0), [0], True)
    total = aten.add.Scalar(samples, prior)

    def used(own: Any, stored: Any) -> Any:
        stored = aten.mul.Scalar(stored, prior)
        return aten.div.Tensor(aten.add.Tensor(aten.mul.Tensor(own, samples), stored), total)

    return used


class Blend(Norm):
    """BatchNorm that mixes its stored statistics, which count as ``prior`` samples, with those of its input.

    Mean and variance alike are (prior * stored + n * own) / (prior + n), where own is that of a sample over its spatial
    axes, n = 1, or that of the batch, n = N, the variance biased. With a prior of 0 it is ``instance`` or
    ``batch-stat``; as the prior grows it becomes ``population``.

    Args:
        prior: Weight of the stored statistics, in samples, n0 of ``--prior``; 16 in the source for single images.
        over: Which statistics of the input: those of each ``sample``, or those of the ``batch``.

    Raises:
        SelectionError: If the prior is not a number from 0 to 1e12, or ``over`` is neither.

    References:
        Schneider et al. 2020, Improving robustness against common corruptions by covariate shift adaptation, section 3.
    """

    name = "blend"
    takes = (_PRIOR, _OVER)

    def __init__(self, prior: float, over: Over = "sample") -> None:
        self.prior: float = _PRIOR.value(prior)
        self.over: Over = _OVER.value(over)
        if self.prior > _LARGEST_PRIOR:
            raise SelectionError(
                f"prior: expected a number of samples up to {_LARGEST_PRIOR:g}, found {prior!r}; "
                "for the stored statistics alone use the target population"
            )
        counted = f"{prior:g}" if float(f"{prior:g}") == prior else repr(prior)
        whose = "each sample" if self._each_sample else "the batch"
        plural = "s" * (prior != 1)
        self.meaning = (
            f"BatchNorm with its stored statistics as a prior of {counted} sample{plural} to those of {whose}"
        )
        axes: tuple[Axis, ...] = ("spatial",) if self._each_sample else ("batch", "spatial")
        self.formula = Formula(axes, weights=partial(_weights, self.prior))
        form = "two-pass primitives, each sample" if self._each_sample else "two-pass primitives, batch"
        self.forms = by_name(Form(form, partial(_emit, prior=self.prior, each_sample=self._each_sample)))

    @property
    def _each_sample(self) -> bool:
        return self.over == "sample"

    def refuse(self, layer: NormLayer) -> str | None:
        """Refuse a layer without stored statistics, and single elements where each sample is taken by itself.

        The variance of one element is 0 and estimates nothing; the blend would be eval mode, scaled by
        sqrt(prior / (prior + 1)).
        """
        if reason := no_stored_statistics(layer):
            return reason
        if self._each_sample and (reason := single_elements(layer)):
            return (
                f"{reason}, whose variance of 0 is no estimate, so that a blend with it would only scale what eval "
                "mode gives; blend over the batch"
            )
        return None

    @property
    def _other(self) -> Over:
        return "batch" if self._each_sample else "sample"

    @property
    def lookalikes(self) -> tuple[Norm, ...]:
        """The same blend with the statistics of the others."""
        return (Blend(self.prior, self._other),)

    @property
    def mistakes(self) -> Mapping[str, Mistake]:
        """What goes wrong when two statistics are mixed."""
        other = Blend(self.prior, self._other).formula
        return {
            "the running statistics were not counted": Mistake(lambda formula, layer: Formula(formula.over)),
            f"over was {self._other}, not {self.over}": Mistake(lambda formula, layer: other),
            "the batch was counted as one sample": Mistake(counting(lambda formula, shape: 1)),
            "each sample was counted as the whole batch": Mistake(counting(lambda formula, shape: shape[0])),
            "one sample too many was counted": Mistake(counting(lambda formula, shape: formula.samples(shape) + 1)),
            "elements were counted, not samples": Mistake(counting(lambda formula, shape: formula.count(shape))),
            "the variance of the input was divided by n - 1, not by n": Mistake(
                mixing(lambda own, stored, share, n: share * own[1] * unbiased(n) + (1 - share) * stored[1])
            ),
            "the variance was that of both together, with the distance of their means in it": Mistake(
                mixing(
                    lambda own, stored, share, n: (
                        share * own[1] + (1 - share) * stored[1] + share * (1 - share) * np.square(own[0] - stored[0])
                    )
                )
            ),
        }

    def torch_kernel(self) -> Kernel:
        """Give two passes, whose results are mixed with the stored statistics."""
        from normswap.norms.torch import Kernel
        from normswap.norms.torch.eager import mixed
        from normswap.norms.torch.export import over_batch, two_pass

        assert self.formula.weights is not None, "it is a mixture"
        native = partial(mixed, weights=self.formula.weights, over_batch=not self._each_sample)
        mix = partial(_mixed_in_aten, prior=self.prior, each_sample=self._each_sample)
        export = partial(two_pass, pool=None if self._each_sample else over_batch, mix=mix)
        return Kernel({"native": native}, export, needs_spatial=self._each_sample)
