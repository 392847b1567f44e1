"""MISTAKES: the table of wrong normalizations that people and tools make whatever the target, as float64 arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from normswap.layer import NormLayer
from normswap.norms import Norm
from normswap.norms.formula import Axis, Formula, Statistics
from normswap.norms.mistake import Mistake, changed, over, unbiased, with_parameters

__all__ = ["MISTAKES", "mistakes_of"]


def mistakes_of(norm: Norm) -> Mapping[str, Mistake]:
    """Return what can go wrong with a target, the likeliest first."""
    return {what: mistake for what, mistake in {**norm.mistakes, **MISTAKES}.items() if mistake.when(norm.formula)}


def _as(formula: Formula) -> Callable[[Formula, NormLayer], Statistics]:
    return lambda right, layer: formula


def _without(axis: Axis) -> Callable[[Formula, NormLayer], Statistics]:
    return lambda right, layer: over(*(name for name in right.over if name != axis))(right, layer)


def _given(**sources: str | float) -> Callable[[NormLayer], NormLayer]:
    return lambda layer: with_parameters(layer, **sources)


def _has_own(formula: Formula) -> bool:
    return bool(formula.over)


def _has_own_alone(formula: Formula) -> bool:
    return bool(formula.over) and formula.weights is None


_STORED = ("running_mean", "running_var")
_BATCH, _SAMPLE = Formula(("batch", "spatial")), Formula(("spatial",))

# What follows "looks as if", the likeliest first: where two fit, the first one is named.
MISTAKES: dict[str, Mistake] = {
    "the running statistics were used (eval mode)": Mistake(_as(Formula(())), when=_has_own, needs=_STORED),
    "the statistics were taken over the whole batch, not over each sample": Mistake(
        lambda right, layer: over("batch", *right.over)(right, layer), when=lambda formula: formula.alone
    ),
    "the statistics were taken over each sample, not over the batch": Mistake(
        _without("batch"),
        when=lambda formula: "batch" in formula.over,
    ),
    "the statistics were taken over each channel by itself": Mistake(
        _without("channel"), when=lambda formula: formula.joins_channels
    ),
    "the statistics of the batch were used, not the running ones (train mode)": Mistake(
        _as(_BATCH), when=lambda formula: not formula.over
    ),
    "the statistics of each sample were used, not the running ones": Mistake(
        _as(_SAMPLE), when=lambda formula: not formula.over
    ),
    "weight and bias were dropped": Mistake(with_=_given(weight=1.0, bias=0.0)),
    "weight was dropped": Mistake(with_=_given(weight=1.0)),
    "bias was dropped": Mistake(with_=_given(bias=0.0)),
    "weight and bias were swapped": Mistake(with_=_given(weight="bias", bias="weight")),
    "running mean and running variance were swapped": Mistake(
        with_=_given(running_mean="running_var", running_var="running_mean"),
        when=lambda formula: formula.reads_stored,
        needs=_STORED,
    ),
    "the running variance was used as weight": Mistake(with_=_given(weight="running_var"), needs=("running_var",)),
    "the running mean was used as bias": Mistake(with_=_given(bias="running_mean"), needs=("running_mean",)),
    "eps was dropped": Mistake(with_=lambda layer: replace(layer, eps=0.0)),
    "eps was added to the standard deviation, not to the variance": Mistake(
        changed(lambda mean, var, n, eps: (mean, np.square(np.sqrt(var) + eps))), lambda layer: replace(layer, eps=0.0)
    ),
    "the variance was divided by n - 1, not by n": Mistake(
        changed(lambda mean, var, n, eps: (mean, var * unbiased(n))), when=_has_own_alone
    ),
    "the mean was not subtracted": Mistake(changed(lambda mean, var, n, eps: (np.zeros_like(mean), var)), cancels=True),
    "the statistics were taken over the channels of each sample too": Mistake(over("channel", "spatial"), pools=True),
    "the statistics were taken over the channels of the batch too": Mistake(
        over("batch", "channel", "spatial"), pools=True
    ),
    "the statistics were taken over the channels at each place": Mistake(over("channel"), pools=True),
    "the statistics were taken over the last axis alone": Mistake(over("last"), when=_has_own),
    "nothing was computed: the output is the input": Mistake(
        changed(lambda mean, var, n, eps: (np.zeros_like(mean), np.full_like(var, 1 - eps))),
        _given(weight=1.0, bias=0.0),
    ),
    "the variance was computed as E[x^2] - E[x]^2, which cancels": Mistake(cancels=True, when=_has_own),
}
