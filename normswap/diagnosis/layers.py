"""What the moments of its input show about a layer: how far off its stored statistics are, and what they look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from normswap.layer import Floats, NormLayer
from normswap.statistics.mismatch import Mismatch, mismatch
from normswap.statistics.moments import Moments
from normswap.words import counted

__all__ = ["Given", "LayerFinding", "finding_of", "trained_alone"]

_DEAD = 1e-12  # variance, as a multiple of eps, up to which a channel is constant
_DISTINCT = 0.05  # variance between samples, as a share of that within, from which the two can be separated
_STALE = 0.01  # nats, below which nobody sees a difference
_BATCH_OF_ONE = 0.25  # share of the variance between samples that is stored, below which batches were of one sample


@dataclass(frozen=True, eq=False)
class Given:
    """What a layer is given in one mode, against what it stores.

    Attributes:
        moments: Of its input; None where it was not seen.
        mismatch: Between the stored statistics and those of each sample, by channel; None where one is missing.
    """

    moments: Moments | None
    mismatch: Mismatch | None

    @property
    def spread(self) -> float:
        """Mean over channels of what no stored statistic can remove, in nats; NaN where nothing is known."""
        return _mean(None if self.mismatch is None else self.mismatch.spread)

    @property
    def staleness(self) -> float:
        """Mean over channels of what recalibration removes, in nats; NaN where nothing is known."""
        return _mean(None if self.mismatch is None else self.mismatch.staleness)


@dataclass(frozen=True, eq=False)
class LayerFinding:
    """One BatchNorm and what it was given.

    Attributes:
        layer: As ``find`` gives it.
        eval: What it is given while the model runs in eval mode.
        trained: The same under the statistics of each batch, as in training; the input of deep layers differs.
        alone: Moments of its input under the statistics of each sample, as in training with batches of one; None where
            it was not seen.
        remarks: What the stored statistics look like, one clause each.
    """

    layer: NormLayer
    eval: Given
    trained: Given
    alone: Moments | None
    remarks: tuple[str, ...]

    @property
    def stored_share(self) -> float:
        """Share of the variance between samples that the stored variance holds, the median over channels.

        Training updates the stored variance with that of each batch, which for batches of B samples holds
        (B - 1) / B of the variance between samples: none of it for B = 1. Taken of ``alone``, so that it is about 0
        where batches were of one; NaN where samples hardly differ.
        """
        if self.alone is None or not self.alone.samples or self.layer.running_var is None:
            return float("nan")
        if self.layer.running_var.shape != self.alone.mean.shape or self.alone.single:
            return float("nan")
        between, within = self.alone.between_var, self.alone.within
        distinct = between > _DISTINCT * within
        if not distinct.any():
            return float("nan")
        stored = self.layer.running_var.astype(np.float64)
        return float(np.median(((stored - within) / np.where(distinct, between, 1.0))[distinct]))


def finding_of(
    layer: NormLayer, in_eval: Moments | None, trained: Moments | None, alone: Moments | None, *, unseen: str = ""
) -> LayerFinding:
    """Put together what is known of a layer.

    Args:
        layer: The layer, with its stored statistics if it has any.
        in_eval: Moments of its input in eval mode.
        trained: Moments of its input under the statistics of each batch.
        alone: Moments of its input under the statistics of each sample.
        unseen: Why its input could not be seen.
    """
    finding = LayerFinding(layer, _given(layer, in_eval), _given(layer, trained), alone, ())
    remarks = [*_remarks(finding), *([f"its input was not seen: {unseen}"] if unseen else [])]
    if not unseen and in_eval is None and trained is None:
        remarks.append("it did not run on these data")
    return replace(finding, remarks=tuple(remarks))


def trained_alone(layers: Sequence[LayerFinding]) -> tuple[bool, str]:
    """Return whether a model was trained one sample at a time, judged by its stored variances, and why."""
    shares = [found.stored_share for found in layers if np.isfinite(found.stored_share)]
    if not shares:
        return True, "samples hardly differ in their statistics, so batches of any size give the same"
    share = float(np.median(shares))
    if share < -_BATCH_OF_ONE:
        return False, "the stored variances are below those within samples, which says nothing about batches"
    if share > 1 - _BATCH_OF_ONE:
        return False, "the stored variances hold the variance between samples, as those of larger batches do"
    held = f"the stored variances hold {max(share, 0):.0%} of the variance between samples"
    if share < _BATCH_OF_ONE:
        return True, f"{held}, as those of batches of one sample do"
    return False, f"{held}, as those of small batches do"


def _given(layer: NormLayer, moments: Moments | None) -> Given:
    if moments is None or not moments.samples or layer.running_mean is None or layer.running_var is None:
        return Given(moments, None)
    if layer.running_mean.shape != moments.mean.shape:  # which _remarks says
        return Given(moments, None)
    found = mismatch(moments, layer.running_mean, layer.running_var)
    if moments.single:  # a sample has no spread from itself
        found = replace(found, spread=np.full_like(found.spread, np.nan))
    return Given(moments, found)


def _remarks(finding: LayerFinding) -> list[str]:
    layer = finding.layer
    if layer.running_mean is None or layer.running_var is None:
        return ["stores no statistics"]
    mean, var = (values.astype(np.float64) for values in (layer.running_mean, layer.running_var))
    remarks = []
    if mean.ndim > 1:
        remarks.append("statistics for each position of each channel (spatial=0), which were not compared")
    if not (np.isfinite(mean).all() and np.isfinite(var).all()):
        remarks.append(f"{_count(~(np.isfinite(mean) & np.isfinite(var)))} with NaN or infinite statistics")
    if (var < 0).any():
        remarks.append(f"{_count(var < 0)} with a negative variance")
    if (mean == 0).all() and (var == 1).all():
        remarks.append("statistics as they are before any training: mean 0, variance 1")
    moments = finding.trained.moments or finding.eval.moments
    if moments is not None and moments.single:
        remarks.append("one value in each sample, which has no variance of its own")
    if moments is not None and moments.samples:
        dead = moments.pooled_var <= _DEAD * max(layer.eps, 1e-30)
        if dead.any():
            remarks.append(f"{_count(dead)} dead: the same value in every sample")
        if finding.trained.staleness > max(finding.trained.spread, _STALE):
            remarks.append(
                "statistics further from these data than samples are from one another: frozen, shifted, or from other "
                "data"
            )
        if abs(finding.stored_share) < _BATCH_OF_ONE:
            remarks.append("statistics as of batches of one sample: the variance between samples is missing")
    return remarks


def _count(which: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> str:
    return f"{int(which.sum())} of {counted(which.size, 'channel')}"


def _mean(values: Floats | None) -> float:
    if values is None or not np.isfinite(values).any():
        return float("nan")
    return float(np.mean(values[np.isfinite(values)]))
