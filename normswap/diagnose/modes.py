"""Modes: one model run in several ways on the same batches, how far the outputs are apart, and how wrong each is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from normswap.errors import CannotRunError
from normswap.gather import Gathering
from normswap.layer import Array, Floats
from normswap.pictures import is_image

__all__ = ["ERRORS", "ErrorOf", "Mode", "Outcomes", "l1", "psnr"]

_SHOWN = 4  # samples of the strip of pictures

# (output, target), of the same shape -> error of each sample, shape (N,); the smaller the better
ErrorOf: TypeAlias = Callable[[Array, Array], Floats]


def l1(output: Array, target: Array) -> Floats:
    """Mean absolute difference of each sample, in units of the output."""
    return np.asarray(np.abs(_flat(output) - _flat(target)).mean(axis=1), np.float64)


def psnr(output: Array, target: Array) -> Floats:
    """Negative peak signal-to-noise ratio of each sample, in dB below the range of all targets; smaller is better."""
    flat = _flat(target)
    squares = np.square(_flat(output) - flat).mean(axis=1)
    return np.asarray(10 * np.log10(np.maximum(squares, 1e-30) / max(float(np.ptp(flat)), 1e-30) ** 2), np.float64)


ERRORS: dict[str, ErrorOf] = {"l1": l1, "psnr": psnr}


@dataclass
class Mode:
    """One way to run the model, and what came of it.

    Attributes:
        name: As tables have it.
        gathering: Runs it.
        errors: Error of each sample against its target, a number for each.
        distances: Root mean square distance of each sample's output from train mode's, in units of the output.
        trouble: Why it was not run to the end; empty where it was.
    """

    name: str
    gathering: Gathering
    errors: list[float] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)
    trouble: str = ""


@dataclass
class Outcomes:
    """Compares what several modes give for the same batches.

    Attributes:
        train: Name of the mode that stands for training.
        error_of: Error of each sample, where there are targets.
        mean_target: The mean of all targets by output name, which a model has to be better than.
        spread: Count, mean and M2 of train mode's outputs, by which distances are put into proportion.
        baselines: Error of the mean target, for each sample.
        strip: Of the first samples, the images: input, each mode's output, target; empty where they are none.
    """

    train: str
    error_of: ErrorOf
    mean_target: Mapping[str, Floats]
    spread: tuple[int, float, float] = (0, 0.0, 0.0)
    baselines: list[float] = field(default_factory=list)
    strip: dict[str, Array] = field(default_factory=dict)

    def add(self, modes: Sequence[Mode], arrays: Mapping[str, Array], targets: Mapping[str, Array]) -> None:
        """Run all modes on a batch and compare.

        Raises:
            CannotRunError: If train mode does not run, outputs have no axis of samples, or a target fits no output.
        """
        outputs: dict[str, dict[str, Array]] = {}
        for mode in (mode for mode in modes if not mode.trouble):
            try:
                outputs[mode.name] = mode.gathering.add(arrays)
            except CannotRunError as error:
                if mode.name == self.train:
                    raise
                mode.trouble = str(error)
        trained = outputs[self.train]
        samples = len(next(iter(arrays.values())))
        compared = [
            name for name, value in trained.items() if value.dtype.kind in "fV" and value.shape[:1] == (samples,)
        ]
        if not compared:
            raise CannotRunError("no output is an array of numbers with an entry for each sample")
        if not self.distances_known:
            self._keep(arrays, outputs, targets, compared)
        self._spread_of([trained[name] for name in compared])
        paired = _paired(targets, trained, compared)
        for name, target in targets.items():
            constant = np.broadcast_to(self.mean_target[name], target.shape)
            self.baselines += np.asarray(self.error_of(constant, target), np.float64).tolist()
        for mode in modes:
            if mode.name not in outputs:
                continue
            found = outputs[mode.name]
            squares = [np.square(_flat(found[name]) - _flat(trained[name])).mean(axis=1) for name in compared]
            mode.distances += np.sqrt(np.mean(squares, axis=0)).tolist()
            for name, target in targets.items():
                mode.errors += np.asarray(self.error_of(found[paired[name]], target), np.float64).tolist()

    @property
    def distances_known(self) -> bool:
        """Whether a batch was seen."""
        return self.spread[0] > 0

    @property
    def baseline(self) -> float | None:
        """Mean error of the mean target, None without targets."""
        return float(np.mean(self.baselines)) if self.baselines else None

    @property
    def scale(self) -> float:
        """Standard deviation of all elements of train mode's outputs, in their units."""
        count, _, m2 = self.spread
        return float(np.sqrt(m2 / count)) if count else float("nan")

    def _keep(
        self,
        arrays: Mapping[str, Array],
        outputs: Mapping[str, Mapping[str, Array]],
        targets: Mapping[str, Array],
        compared: Sequence[str],
    ) -> None:
        """Keep the first samples of what is an image, copied, since a view would keep the batch."""
        name = next((name for name in compared if is_image(outputs[self.train][name])), None)
        if name is None:
            return
        shown: dict[str, Array] = {mode: found[name] for mode, found in outputs.items()}
        for what, values in (("input", arrays), ("target", targets)):
            image = next((value for value in values.values() if is_image(value)), None)
            if image is not None:
                shown[what] = image
        self.strip = {what: value[:_SHOWN].copy() for what, value in shown.items()}

    def _spread_of(self, outputs: Sequence[Array]) -> None:
        for values in map(_flat, outputs):
            count, mean, m2 = self.spread
            total = count + values.size
            delta = float(values.mean()) - mean
            m2 += float(np.square(values - values.mean()).sum()) + delta**2 * count * values.size / total
            self.spread = total, mean + delta * values.size / total, m2


def _paired(targets: Mapping[str, Array], outputs: Mapping[str, Array], compared: Sequence[str]) -> dict[str, str]:
    """Name the output that each target is for: its own name's, else the only one."""
    names = {}
    for name, target in targets.items():
        names[name] = name if name in outputs else compared[0]
        if name not in outputs and len(compared) > 1:
            raise CannotRunError(f"target {name!r} names none of the outputs {', '.join(compared)}; name it after one")
        if outputs[names[name]].shape != target.shape:
            raise CannotRunError(
                f"target {name!r}: expected shape {outputs[names[name]].shape}, as output {names[name]} has it, found "
                f"{target.shape}"
            )
    return names


def _flat(array: Array) -> Floats:
    """(N, ...) as (N, L) in float64."""
    return np.asarray(array).astype(np.float64).reshape(len(array), -1)
