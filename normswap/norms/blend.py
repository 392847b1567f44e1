"""blend: the stored running statistics, counted as some samples, together with those of the input."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from normswap.errors import SelectionError
from normswap.layer import NormLayer
from normswap.norms.base import Form, Norm, by_name, no_stored_statistics, single_elements
from normswap.norms.onnx import OnnxOps, along_channels, compute_dtype, emit_two_pass
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


class Blend(Norm):
    """BatchNorm that counts its stored statistics as ``prior`` samples beside those that it is fed.

    Mean and variance alike are (prior * stored + n * own) / (prior + n), where own is that of a sample over its spatial
    axes, n = 1, or that of the batch, n = N, the variance biased. With a prior of 0 it is ``instance`` or
    ``batch-stat``; as the prior grows it becomes ``population``.

    Args:
        prior: Pseudo sample size of the stored statistics, n0 of ``--prior``; 16 in the source for single images.
        over: What is fed at once: each ``sample`` by itself, or the ``batch``.

    Raises:
        SelectionError: If the prior is not a number from 0 to 1e12, or ``over`` is neither.

    References:
        Schneider et al. 2020, Improving robustness against common corruptions by covariate shift adaptation, section 3.
    """

    name = "blend"
    trains = False
    takes = (_PRIOR, _OVER)

    def __init__(self, prior: float, over: Over = "sample") -> None:
        prior = _PRIOR.value(prior)
        if prior > _LARGEST_PRIOR:
            raise SelectionError(
                f"prior: expected a number of samples up to {_LARGEST_PRIOR:g}, found {prior!r}; "
                "for the stored statistics alone use the target population"
            )
        self.prior = prior
        self.over = _OVER.value(over)
        self.by_sample = over == "sample"
        counted = f"{prior:g}" if float(f"{prior:g}") == prior else repr(prior)
        whose = "each sample" if self.by_sample else "the batch"
        plural = "s" * (prior != 1)
        self.meaning = (
            f"BatchNorm with its stored statistics as a prior of {counted} sample{plural} to those of {whose}"
        )
        form = "two-pass primitives, each sample" if self.by_sample else "two-pass primitives, batch"
        self.forms = by_name(Form(form, partial(_emit, prior=self.prior, by_sample=self.by_sample)))

    def refuse(self, layer: NormLayer) -> str | None:
        """Refuse a layer without stored statistics, and single elements where each sample is taken by itself.

        The variance of one element is 0 and says nothing; the blend would be eval mode, scaled by
        sqrt(prior / (prior + 1)).
        """
        if said := no_stored_statistics(layer):
            return said
        if self.by_sample and (said := single_elements(layer)):
            return (
                f"{said}, whose variance of 0 is no estimate, so that a blend with it would only scale what eval mode "
                "gives; blend over the batch"
            )
        return None

    def torch_kernel(self) -> Kernel:
        """See normswap.norms.torch."""
        from normswap.norms.torch import Kernel

        return Kernel(self.name, self.by_sample, self.prior)


def _emit(ops: OnnxOps, *, prior: float, by_sample: bool) -> None:
    """Two passes over x, their results blended with the stored statistics; N is read at run time."""
    compute = compute_dtype(ops)

    def weights(means: str) -> tuple[str, str]:
        """Give those of the stored statistics and of the input's own."""
        if by_sample:
            return ops.number(prior / (prior + 1), compute), ops.number(1 / (prior + 1), compute)
        # A 1 for each sample, NaN and infinity included (IEEE 754, pow), summed: OpenCV 5 does not run Shape, and MNN
        # takes N from it for 1.
        samples = ops.reduce_sum(ops.op("Pow", means, ops.number(0, compute)), [0])
        counted = ops.number(prior, compute)
        total = ops.op("Add", counted, samples)
        return ops.op("Div", counted, total), ops.op("Div", samples, total)

    def blend(means: str, mean: str, var: str, rank: int) -> tuple[str, str]:
        of_stored, of_own = weights(means)

        def blended(own: str, stored: str) -> str:
            column = along_channels(ops, stored, ops.stat_dtype, rank)
            return ops.op("Add", ops.op("Mul", column, of_stored), ops.op("Mul", own, of_own))

        return blended(mean, ops.mean), blended(var, ops.var)

    emit_two_pass(ops, over_batch=not by_sample, blend=blend)
