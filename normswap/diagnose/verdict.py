"""Verdict: which of the possible fixes a model needs, by what was measured, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

__all__ = ["ADVICE", "Advice", "Evidence", "Verdict", "judge"]

Advice: TypeAlias = Literal["keep eval", "recalibrate", "convert to instance", "use batch statistics", "retrain"]

ADVICE: dict[Advice, str] = {
    "keep eval": "leave the model as it is; the stored statistics serve it well",
    "recalibrate": "normswap recalibrate gives it new stored statistics",
    "convert to instance": "normswap convert --to instance: each sample by itself",
    "use batch statistics": "normswap convert --to batch-stat: the samples of a batch together",
    "retrain": "no way of normalizing makes this model do what the targets ask for",
}
_MATERIAL = 0.05  # share by which an error has to be larger to matter
_CERTAIN = 2.0  # standard errors by which it has to be larger to be no chance
_FEW = 8  # samples, below which everything is thin
_USELESS = 0.95  # share of the error of the mean target, from which a model has learned nothing


@dataclass(frozen=True)
class Evidence:
    """What a verdict rests on.

    Attributes:
        errors: Error of each sample by mode, from the simplest fix to the one that changes most; empty without targets.
        distances: Distance of each sample from train mode, likewise.
        scale: Standard deviation of train mode's outputs, in units of the distances.
        baseline: Mean error of giving the mean target for every sample, None where it is not known.
        train: Name of the mode that stands for training.
        advice: What each mode stands for.
    """

    errors: Mapping[str, Sequence[float]]
    distances: Mapping[str, Sequence[float]]
    scale: float
    baseline: float | None
    train: str
    advice: Mapping[str, Advice]


@dataclass(frozen=True)
class Verdict:
    """What to do, and why.

    Attributes:
        advice: One of ADVICE.
        mode: The mode that it stands for.
        why: The numbers, in words.
        thin: Where the evidence is thin, one sentence each.
    """

    advice: Advice
    mode: str
    why: str
    thin: tuple[str, ...]


def judge(evidence: Evidence) -> Verdict:
    """Advise the simplest mode that is not clearly worse than the best one.

    Clearly worse is an error that is both 5 % and two standard errors (of the paired differences) larger.
    """
    if evidence.errors:
        return _by_error(evidence)
    return _by_distance(evidence)


def _by_error(evidence: Evidence) -> Verdict:
    means = {mode: float(np.mean(errors)) for mode, errors in evidence.errors.items()}
    sound = {mode: mean for mode, mean in means.items() if np.isfinite(mean)}
    count = len(next(iter(evidence.errors.values())))
    thin = [f"there are only {count} samples"] if count < _FEW else []
    if not sound:
        return Verdict("retrain", evidence.train, "every mode gives NaN or infinity", tuple(thin))
    best = min(sound, key=sound.__getitem__)
    if evidence.baseline is not None and sound[best] >= _USELESS * evidence.baseline:
        why = (
            f"the best error, {sound[best]:.3g} ({best}), is that of giving the mean target for every sample, "
            f"{evidence.baseline:.3g}"
        )
        return Verdict("retrain", best, why, tuple(thin))
    chosen = next(mode for mode in sound if not _is_worse(evidence.errors[mode], evidence.errors[best]))
    if means[chosen] > (1 + _MATERIAL) * means[best]:
        thin.append(
            f"{best} has {means[chosen] / means[best] - 1:.0%} less error than {chosen} on these samples, "
            "which may be chance"
        )
    others = ", ".join(f"{mode} {mean:.3g}" for mode, mean in means.items() if mode != chosen)
    why = f"mean error {means[chosen]:.3g} with {chosen}; {others}"
    return Verdict(evidence.advice[chosen], chosen, why, tuple(thin))


def _is_worse(errors: Sequence[float], best: Sequence[float]) -> bool:
    one, other = np.asarray(errors), np.asarray(best)
    difference = one - other
    standard = float(difference.std(ddof=1) / np.sqrt(difference.size)) if difference.size > 1 else 0.0
    return bool(difference.mean() > _MATERIAL * abs(other.mean()) and difference.mean() > _CERTAIN * standard)


def _by_distance(evidence: Evidence) -> Verdict:
    shares = {mode: float(np.mean(found)) / evidence.scale for mode, found in evidence.distances.items()}
    thin = ("there are no targets, so that train mode was taken for what is right; give --targets",)
    near = [mode for mode, share in shares.items() if share <= _MATERIAL]
    chosen = near[0] if near else evidence.train
    said = ", ".join(f"{mode} {share:.1%}" for mode, share in shares.items() if mode != evidence.train)
    why = f"distance from train mode ({evidence.train}), as a share of the spread of its outputs: {said}"
    return Verdict(evidence.advice[chosen], chosen, why, thin)
