"""Verdict: which of the possible fixes a model needs, by what was measured, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from normswap.diagnosis.measures import MEASURES, Measure
from normswap.layer import Floats

__all__ = ["Advice", "Evidence", "Verdict", "judge"]

Advice: TypeAlias = Literal["keep eval", "recalibrate", "convert to instance", "use batch statistics", "retrain"]

_MATERIAL = 0.05  # share by which an error has to be larger to matter
_CERTAIN = 2.0  # standard errors by which it has to be larger not to be chance
_FEW = 8  # samples, below which everything is thin
_USELESS = 0.95  # share of the error of the mean target, from which the model counts as untrained


@dataclass(frozen=True)
class Evidence:
    """What a verdict rests on.

    Attributes:
        errors: Error of each sample by mode, from the simplest fix to the one that changes most; empty without targets.
        distances: Mean distance from train mode, as a share of the spread of its outputs, likewise.
        baseline: Errors of returning the mean target for every sample; empty where they are not known.
        train: Name of the mode that stands for training.
        advice: What each mode stands for.
        measure: What errors are measured by.
    """

    errors: Mapping[str, Floats]
    distances: Mapping[str, float]
    baseline: Floats
    train: str
    advice: Mapping[str, Advice]
    measure: Measure = MEASURES["l1"]


@dataclass(frozen=True)
class Verdict:
    """What to do, and why.

    Attributes:
        advice: What to do.
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

    def shown(errors: Floats) -> str:
        return f"{np.mean(evidence.measure.shown(errors)):.3g}"

    best = min(sound, key=sound.__getitem__)
    name = f"mean {evidence.measure.name}"
    if evidence.baseline.size and sound[best] >= _USELESS * float(np.mean(evidence.baseline)):
        why = (
            f"{name} of the best mode, {best}, is {shown(evidence.errors[best])}, about that of returning the mean "
            f"target for every sample, {shown(evidence.baseline)}"
        )
        return Verdict("retrain", best, why, tuple(thin))
    chosen = next(mode for mode in sound if not _is_worse(evidence.errors[mode], evidence.errors[best]))
    if means[chosen] > (1 + _MATERIAL) * means[best]:
        thin.append(
            f"{best} has {1 - means[best] / means[chosen]:.0%} less error than {chosen} on these samples, "
            "which may be chance"
        )
    others = ", ".join(f"{mode} {shown(errors)}" for mode, errors in evidence.errors.items() if mode != chosen)
    why = f"{name} is {shown(evidence.errors[chosen])} with {chosen}; {others}"
    return Verdict(evidence.advice[chosen], chosen, why, tuple(thin))


def _is_worse(errors: Floats, best: Floats) -> bool:
    difference = errors - best
    standard = float(difference.std(ddof=1) / np.sqrt(difference.size)) if difference.size > 1 else 0.0
    return bool(difference.mean() > _MATERIAL * best.mean() and difference.mean() > _CERTAIN * standard)


def _by_distance(evidence: Evidence) -> Verdict:
    shares = evidence.distances
    thin = ("there are no targets, so train mode was taken as correct; give --targets",)
    near = [mode for mode, share in shares.items() if share <= _MATERIAL]
    chosen = near[0] if near else evidence.train
    others = ", ".join(f"{mode} {share:.1%}" for mode, share in shares.items() if mode != evidence.train)
    why = f"distance from train mode ({evidence.train}), as a share of the spread of its outputs: {others}"
    return Verdict(evidence.advice[chosen], chosen, why, thin)
