"""Modes: one model run in several ways on the same batches, how far the outputs are apart, and how wrong each is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from normswap.data.image_arrays import is_image
from normswap.diagnosis.measures import Measure, flat
from normswap.diagnosis.spool import Spool
from normswap.errors import CannotRunError
from normswap.layer import Array, Floats
from normswap.statistics.collect import Collection
from normswap.statistics.moments import Moments

__all__ = ["MEAN_TARGET", "Comparison", "Mode"]

MEAN_TARGET = "the mean target"  # for every sample, as a mode among others
_SHOWN = 4  # samples of the strip of pictures
_NONE = np.zeros(0)


@dataclass
class Mode:
    """One way to run the model.

    Attributes:
        name: As tables have it.
        collection: Runs it; None where it cannot be run.
        samples: How many are run at a time; None for all of a batch.
        layers: How many layers the model has.
        trouble: Why it was not run to the end; empty where it was.
    """

    name: str
    collection: Collection | None
    samples: int | None = None
    layers: int = 0
    trouble: str = ""

    @property
    def moments(self) -> dict[str, Moments]:
        """Moments of the layers' inputs, by name."""
        return {} if self.collection is None else self.collection.moments

    def outputs(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Run a batch, shape (N, ...) each, and return the outputs that have an entry for each sample."""
        assert self.collection is not None, "it has no trouble"
        count = len(next(iter(arrays.values())))
        size = self.samples or count
        parts = []
        for start in range(0, count, size):
            part = {name: array[start : start + size] for name, array in arrays.items()}
            taken = min(size, count - start)
            found = self.collection.add(part)
            left = self.collection.left
            if left and len(left) == self.layers:
                raise CannotRunError(f"no layer takes it: {': '.join(next(iter(left.items())))}")
            parts.append({name: value for name, value in found.items() if value.shape[:1] == (taken,)})
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True)
class _Compared:
    """What one batch gave: errors by mode, and distances by mode and what they are from, shape (N,) each."""

    samples: int
    errors: dict[str, Floats]
    distances: dict[tuple[str, str], Floats]


@dataclass
class Comparison:
    """Compares what several modes give for the same batches.

    Attributes:
        measure: Of errors, where there are targets.
        references: Names of the modes that may stand for training: distances are from each of them.
        spool: Where their outputs are kept for modes that are compared later; None where there will be none.
        mean_target: The mean of all targets by output name, which a model has to beat.
        strip: Of the first samples, the images: input, each mode's output, target; empty where they are none.
        samples: How many were compared.
    """

    measure: Measure
    references: Sequence[str] = ()
    spool: Spool | None = None
    mean_target: dict[str, Floats] = field(default_factory=dict)
    strip: dict[str, Array] = field(default_factory=dict)
    samples: int = 0
    _batches: list[_Compared] = field(default_factory=list)
    _spreads: dict[str, Moments] = field(default_factory=dict)  # of all elements of each reference's outputs
    _compared: tuple[str, ...] = ()  # outputs
    _image: str | None = None  # which of them is shown

    def errors(self, mode: str) -> Floats:
        """Error of each sample in a mode; empty without targets."""
        return np.concatenate([_NONE, *(batch.errors[mode] for batch in self._batches if mode in batch.errors)])

    def distances(self, mode: str, reference: str) -> Floats:
        """Root mean square distance of each sample's outputs from those of a reference, in units of the output."""
        key = (mode, reference)
        return np.concatenate([_NONE, *(batch.distances[key] for batch in self._batches if key in batch.distances)])

    def share(self, mode: str, reference: str) -> float:
        """Mean distance of a mode from a reference, as a share of the latter's scale; NaN where there is none."""
        mean = float(np.mean(distances)) if (distances := self.distances(mode, reference)).size else float("nan")
        scale = self.scale(reference)
        return mean / scale if scale else mean if mean == 0 else mean * float("inf")

    def scale(self, reference: str) -> float:
        """Standard deviation of all elements of a reference's outputs, in their units; NaN where there are none."""
        return float(np.sqrt(self._spreads[reference].pooled_var[0])) if reference in self._spreads else float("nan")

    def add(self, modes: Sequence[Mode], arrays: Mapping[str, Array], targets: Mapping[str, Array]) -> None:
        """Run all modes on a batch and compare; a mode that does not run is left out from there on.

        Raises:
            CannotRunError: If no reference runs, outputs have no axis of samples, or a target fits no output.
        """
        outputs: dict[str, dict[str, Array]] = {}
        for mode in (mode for mode in modes if not mode.trouble):
            try:
                outputs[mode.name] = mode.outputs(arrays)
            except CannotRunError as error:
                mode.trouble = str(error)
        references = {name: outputs[name] for name in self.references if name in outputs}
        if not references:
            raise CannotRunError(next(f"{mode.name}: {mode.trouble}" for mode in modes if mode.name in self.references))
        samples = len(next(iter(arrays.values())))
        first = next(iter(references.values()))
        self._compared = self._compared or _floats(first)
        references = {name: {key: found[key] for key in self._compared} for name, found in references.items()}
        errors, distances = self._against(outputs, references, targets)
        if self.spool is not None:
            self.spool.put({f"{name}\0{key}": found[key] for name, found in references.items() for key in found})
        # What follows changes what is known, in steps that an interrupt hardly falls between.
        if not self._batches:
            self._show(outputs, {"input": arrays, "target": targets})
        for name, found in references.items():
            known = [self._spreads[name]] if name in self._spreads else []
            self._spreads[name] = Moments.merged([*known, *map(_elements, found.values())])
        for name, target in targets.items():
            mean = self.mean_target.setdefault(name, np.zeros(target.shape[1:]))
            mean += (target.astype(np.float64) - mean).sum(axis=0) / (self.samples + samples)
        self._batches.append(_Compared(samples, errors, distances))
        self.samples += samples

    def add_later(self, mode: Mode | None, arrays: Mapping[str, Array], targets: Mapping[str, Array]) -> _Compared:
        """Compare a further mode, and the mean target, on the next of the batches that were compared before.

        Args:
            mode: The mode; None for the mean target alone.
            arrays: The batch.
            targets: What its outputs should be.

        Returns:
            What is to be given to ``keep`` once all batches are through.
        """
        samples = len(next(iter(arrays.values())))
        errors: dict[str, Floats] = {}
        if targets:
            constants = {name: np.broadcast_to(self.mean_target[name], to.shape) for name, to in targets.items()}
            errors[MEAN_TARGET] = self._errors(constants, targets)
        if mode is None:
            return _Compared(samples, errors, {})
        assert self.spool is not None, "it was given, as a mode is compared later"
        references: dict[str, dict[str, Array]] = {}
        for key, value in self.spool.get().items():
            reference, _, name = key.partition("\0")
            references.setdefault(reference, {})[name] = value
        found = mode.outputs(arrays)
        if mode.name not in self.strip:
            self._show({mode.name: found}, {})
        own, distances = self._against({mode.name: found}, references, targets)
        return _Compared(samples, errors | own, distances)

    def keep(self, later: Sequence[_Compared]) -> None:
        """Take what ``add_later`` gave for all batches, in their order."""
        self._batches = [
            _Compared(batch.samples, batch.errors | more.errors, batch.distances | more.distances)
            for batch, more in zip(self._batches, later, strict=True)
        ]

    def _against(
        self,
        outputs: Mapping[str, Mapping[str, Array]],
        references: Mapping[str, Mapping[str, Array]],
        targets: Mapping[str, Array],
    ) -> tuple[dict[str, Floats], dict[tuple[str, str], Floats]]:
        """Return errors by mode, and distances by mode and reference."""
        paired = _paired(targets, next(iter(references.values())))
        errors = {
            mode: self._errors({name: found[output] for name, output in paired.items()}, targets)
            for mode, found in outputs.items()
            if targets
        }
        distances: dict[tuple[str, str], Floats] = {}
        for mode, found in outputs.items():
            for reference, wanted in references.items():
                if mode == reference:
                    distances[mode, reference] = np.zeros(len(next(iter(wanted.values()))))
                elif (reference, mode) in distances:
                    distances[mode, reference] = distances[reference, mode]
                else:
                    squares = [
                        np.square(flat(found[name]) - flat(value)).mean(axis=1, dtype=np.float64)
                        for name, value in wanted.items()
                    ]
                    distances[mode, reference] = np.sqrt(np.mean(squares, axis=0))
        return errors, distances

    def _errors(self, found: Mapping[str, Array], targets: Mapping[str, Array]) -> Floats:
        """Error of each sample, the mean over targets."""
        of_each = [self.measure.errors(found[name], target) for name, target in targets.items()]
        return np.asarray(np.mean(of_each, axis=0))

    def _show(self, outputs: Mapping[str, Mapping[str, Array]], others: Mapping[str, Mapping[str, Array]]) -> None:
        """Keep the first samples of what is an image, copied, since a view would keep the batch."""
        for mode, found in outputs.items():
            self._image = self._image or next((name for name in self._compared if is_image(found[name])), None)
            if self._image is None:
                return
            self.strip[mode] = found[self._image][:_SHOWN].copy()
        for what, values in others.items():
            image = next((value for value in values.values() if is_image(value)), None)
            if image is not None:
                self.strip[what] = image[:_SHOWN].copy()


def _floats(outputs: Mapping[str, Array]) -> tuple[str, ...]:
    found = tuple(name for name, value in outputs.items() if value.dtype.kind in "fV")
    if not found:
        raise CannotRunError("no output is a floating-point array with an entry for each sample")
    return found


def _elements(values: Array) -> Moments:
    """Return the moments of all elements, as of one channel; eps plays no part in what is read of them."""
    found = flat(values)
    mean = found.mean(axis=1, dtype=np.float64, keepdims=True)
    var = found.var(axis=1, dtype=np.float64, keepdims=True)
    return Moments.of_samples(mean, var, elements=found.shape[1], eps=0.0)


def _paired(targets: Mapping[str, Array], outputs: Mapping[str, Array]) -> dict[str, str]:
    """Name the output that each target is for: its own name's, else the only one."""
    names = {}
    for name, target in targets.items():
        names[name] = name if name in outputs else next(iter(outputs))
        if name not in outputs and len(outputs) > 1:
            raise CannotRunError(
                f"target {name!r} has the name of no output; name it after one of {', '.join(outputs)}"
            )
        if outputs[names[name]].shape != target.shape:
            raise CannotRunError(
                f"target {name!r}: expected shape {outputs[names[name]].shape}, as output {names[name]} has it, found "
                f"{target.shape}"
            )
    return names
