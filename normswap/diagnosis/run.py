"""One diagnosis: the passes over the data, and what is put together from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from normswap.backends import collecting_backend
from normswap.data import Data, batches_of
from normswap.diagnosis.fewest import Fewest, fewest_layers
from normswap.diagnosis.findings import Diagnosis, ModeFinding
from normswap.diagnosis.layers import LayerFinding, finding_of, trained_alone
from normswap.diagnosis.measures import measure_of
from normswap.diagnosis.modes import MEAN_TARGET, Comparison, Mode
from normswap.diagnosis.options import Diagnosing
from normswap.diagnosis.spool import Spool
from normswap.diagnosis.verdict import Advice, Evidence, Verdict, judge
from normswap.errors import NormswapError, NothingToConvertError
from normswap.layer import Array, NormLayer
from normswap.options import takes
from normswap.recalibration.collecting import Seen
from normswap.recalibration.run import recalibrate_with
from normswap.recalibration.selection import selection
from normswap.report import Progress
from normswap.statistics.collect import Collection
from normswap.words import counted

__all__ = ["diagnose"]

_ADVICE: dict[str, Advice] = {"eval": "keep eval", "recalibrated": "recalibrate", "instance": "convert to instance"}
_CONVERSIONS: tuple[Advice, ...] = ("convert to instance", "use batch statistics")
_NAMED = 3  # layers in a note, before the others are only counted


@takes(Diagnosing)
def diagnose(asked: Diagnosing) -> Diagnosis:
    """Find out what eval mode costs a model on these data, and which fix is right.

    There are two passes over the data: one in all modes at the same time, for outputs and for the moments of what
    layers are given, and one with the statistics that were collected. Memory grows only by a few numbers
    for each sample; the outputs of train mode are kept in a temporary file in between.

    Returns:
        The diagnosis; after a KeyboardInterrupt that of what was seen, if anything was.

    Raises:
        DataError: If the data do not fit the model.
        SelectionError: If the measure is unknown.
        CannotRunError: If the model does not run, runs in eval mode alone, or a target fits no output.
        NothingToConvertError: If the model has no BatchNorm layer.

    Examples:
        >>> import normswap
        >>> images = "fixtures/lowlight_images.npz"
        >>> found = normswap.diagnose("fixtures/lowlight.onnx", images, targets=images)
        >>> found.verdict.advice, [mode.name for mode in found.modes]
        ('convert to instance', ['eval', 'recalibrated', 'instance', 'batch-stat, N = 8'])
    """
    measure = measure_of(asked.error)
    backend = collecting_backend(asked.model)
    loaded = backend.load(asked.model, drop_statistics=True)  # of training, which nobody compares
    layers = [layer for layer in backend.find(loaded) if layer.role != "weight"]
    if not layers:
        raise NothingToConvertError(
            "no BatchNorm was found, so there is nothing to diagnose; normswap inspect shows whether they look "
            "folded, and how to export so that they stay"
        )
    sizes = [asked.batch_size] if isinstance(asked.batch_size, int) else sorted(set(asked.batch_size or ()))
    data = batches_of(
        asked.data,
        inputs=backend.inputs(loaded).declared,
        targets=asked.targets,
        batch_size=max(sizes) if sizes else None,
        scale=asked.scale,
        size=asked.size,
    )
    with Spool() as spool:
        comparison = Comparison(measure, spool=None if data.once else spool)
        return _Run(loaded, layers, data, sizes, comparison, asked.progress).diagnosis()


class _Run:
    """What is known while the data are gone through."""

    def __init__(
        self,
        model: Any,
        layers: Sequence[NormLayer],
        data: Data,
        sizes: Sequence[int],
        comparison: Comparison,
        progress: Progress | None,
    ) -> None:
        self._model, self._data, self._sizes = model, data, sizes
        self._names = [layer.name for layer in layers]
        self._comparison, self._progress = comparison, progress
        self._modes: list[Mode] = []
        self._first: dict[str, Array] = {}
        self._batch = 1  # samples of the largest batch
        self._notes: list[str] = []
        self._complete = True

    def diagnosis(self) -> Diagnosis:
        """Go through the data, and put together what they show."""
        self._run_all()
        eval_, instance, *pooled = self._modes
        trained = pooled[-1] if pooled else instance
        layers = self._layers(eval_, instance, trained)
        train, why = self._train_mode(layers, instance, trained)
        recalibrated = self._recalibrated(trained)
        self._run_later(recalibrated)
        modes = [eval_, recalibrated, instance, *pooled]
        verdict = self._judged(modes, train)
        fewest = self._fewest(verdict)
        if not self._complete:
            self._notes.append("it was interrupted; this covers the data that were seen until then")
        return Diagnosis(
            verdict,
            tuple(self._finding(mode, train) for mode in modes),
            tuple(layers),
            f"{train}: {why}",
            self._comparison.samples,
            self._data.source,
            self._comparison.measure.name,
            tuple(dict.fromkeys([*self._data.notes, *self._notes])),
            fewest,
            self._complete,
            self._comparison.strip,
        )

    def _run_all(self) -> None:
        """Run every mode but the recalibrated one on all data, collecting what layers are given."""
        data = self._data
        try:
            for arrays, targets in data.pairs():
                count = len(next(iter(arrays.values())))
                if not self._modes:
                    self._first = {name: array.copy() for name, array in arrays.items()}
                    self._begin(count)
                self._comparison.add(self._modes, arrays, targets)
                self._report_progress(f"running it in {len(self._modes)} ways", self._comparison.samples)
                if count % self._batch and self._batch > 1:
                    self._notes.append(
                        f"a batch had {counted(count, 'sample')} instead of {self._batch}, so its batch statistics are "
                        "of fewer samples"
                    )
        except KeyboardInterrupt:
            if not self._comparison.samples:
                raise
            self._complete = False

    def _begin(self, count: int) -> None:
        """Make the modes, now that the size of a batch is known."""
        model, count_of_layers = self._model, len(self._names)
        sizes = sorted({min(size, count) for size in self._sizes or [count]} - {1})
        self._batch = sizes[-1] if sizes else 1
        self._modes = [Mode(mode, Collection(model, mode), layers=count_of_layers) for mode in ("eval", "instance")]
        for size in sizes:
            collection = Collection(model, "batch-stat", layers=None if size == sizes[-1] else [])
            self._modes.append(Mode(f"batch-stat, N = {size}", collection, size, count_of_layers))
        self._comparison.references = ["instance", *(mode.name for mode in self._modes[-1:] if sizes)]

    def _recalibrated(self, trained: Mode) -> Mode:
        """Make the mode with the statistics that were collected."""
        name = "recalibrated"
        if not self._complete:
            return Mode(name, None, trouble="it was interrupted before")
        if self._data.once:
            return Mode(name, None, trouble="that takes a second pass, and these data can be read only once")
        try:
            found = recalibrate_with(selection(self._model), Seen(trained.moments))
        except NormswapError as error:
            return Mode(name, None, trouble=str(error))
        if not found.ok:
            return Mode(name, None, trouble="it could not be shown that nothing but the statistics would change")
        return Mode(name, Collection(found.model, layers=[]))

    def _run_later(self, mode: Mode) -> None:
        """Run the recalibrated mode on all data, and compare the mean target."""
        if not self._complete or self._data.once or (mode.trouble and not self._comparison.mean_target):
            return
        later, samples = [], 0
        stage = "comparing the mean target" if mode.trouble else "running it recalibrated"
        try:
            for arrays, targets in self._data.pairs():
                later.append(self._comparison.add_later(None if mode.trouble else mode, arrays, targets))
                samples += later[-1].samples
                self._report_progress(stage, samples)
        except KeyboardInterrupt:
            self._complete = False
            mode.trouble = mode.trouble or "it was interrupted before the end"
        except NormswapError as error:
            mode.trouble = mode.trouble or str(error)
        else:
            self._comparison.keep(later)

    def _layers(self, eval_: Mode, instance: Mode, trained: Mode) -> list[LayerFinding]:
        found = [mode.moments for mode in (eval_, trained, instance)]
        assert eval_.collection is not None, "it was made with one"
        unseen = eval_.collection.unobserved
        for mode in self._modes:
            assert mode.collection is not None, "as well"
            self._notes += mode.collection.notes
            left = mode.collection.left
            named = ", ".join(f"{name} ({reason})" for name, reason in list(left.items())[:_NAMED])
            more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
            if left:
                self._notes.append(f"left as they were in {mode.name}: {named}{more}")
        return [
            finding_of(layer, *(moments.get(layer.name) for moments in found), unseen=unseen.get(layer.name, ""))
            for layer in eval_.collection.layers
        ]

    def _train_mode(self, layers: Sequence[LayerFinding], instance: Mode, trained: Mode) -> tuple[str, str]:
        """Return the mode that stands for training, and why."""
        if instance.trouble or trained.trouble:
            run, other = (trained, instance) if instance.trouble else (instance, trained)
            return run.name, f"{other.name} does not run: {other.trouble}"
        alone, why = trained_alone(layers)
        return (instance if alone else trained).name, why

    def _judged(self, modes: Sequence[Mode], train: str) -> Verdict:
        comparison = self._comparison
        sound = [mode.name for mode in modes if not mode.trouble]
        errors = {name: found for name in sound if (found := comparison.errors(name)).size}
        evidence = Evidence(
            errors,
            {name: comparison.share(name, train) for name in sound},
            comparison.errors(MEAN_TARGET),
            train,
            {mode.name: _ADVICE.get(mode.name, "use batch statistics") for mode in modes},
            comparison.measure,
        )
        verdict = judge(evidence)
        thin = [*verdict.thin, *(f"{mode.name} was not compared: {mode.trouble}" for mode in modes if mode.trouble)]
        for mode in modes:
            if not mode.trouble and mode.collection is not None and mode.collection.left:
                left = len(mode.collection.left)
                thin.append(f"in {mode.name} {left} of {len(self._names)} layers were left as they were; see the notes")
        return replace(verdict, thin=tuple(thin))

    def _fewest(self, verdict: Verdict) -> Fewest | None:
        """Find them where a conversion is advised, on as many samples as it takes together."""
        if not self._complete or verdict.advice not in _CONVERSIONS:
            return None
        mode = next(mode for mode in self._modes if mode.name == verdict.mode)
        assert mode.collection is not None, "only a recalibrated model may lack one"
        first = {name: array[: mode.samples] for name, array in self._first.items()}
        try:
            return fewest_layers(
                self._model,
                mode.collection.mode,
                self._names,
                first,
                lambda done, total: self._report_progress("finding the fewest layers", done, total),
            )
        except KeyboardInterrupt:
            self._complete = False
        except NormswapError as error:
            self._notes.append(f"the fewest layers were not found: {error}")
        return None

    def _finding(self, mode: Mode, train: str) -> ModeFinding:
        comparison = self._comparison
        distance, errors = comparison.share(mode.name, train), comparison.errors(mode.name)
        if mode.trouble or not errors.size:
            return ModeFinding(mode.name, None, None, distance, mode.trouble)
        shown = comparison.measure.shown(errors)
        standard = float(shown.std(ddof=1) / np.sqrt(shown.size)) if shown.size > 1 else float("nan")
        return ModeFinding(mode.name, float(shown.mean()), standard, distance)

    def _report_progress(self, stage: str, done: int, total: int | None = None) -> None:
        if self._progress is None:
            return
        if total is None:
            total = self._data.samples or 0
            try:
                total = total or len(self._data) * len(next(iter(self._first.values())))
            except TypeError:
                total = 0
        self._progress(stage, done, total)
