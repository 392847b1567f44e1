"""Collection: a model run on batch after batch, and the moments of its BatchNorms' inputs in one of its modes.

The statistics are computed inside the running graph, and no more than a mean and a variance for each sample and channel
come out of it, so that memory does not grow with the number of batches. Several collections may take the same batches
in turn, one for each mode:

    eval_mode, trained = Collection("model.onnx"), Collection("model.onnx", "batch-stat")
    try:
        for batch in batches:
            outputs = eval_mode.add(batch), trained.add(batch)
    except KeyboardInterrupt:
        pass  # what was seen up to the last whole batch is in .moments
    spread = {name: mismatch(m, layer.running_mean, layer.running_var).spread for name, m in eval_mode.moments.items()}
"""

from __future__ import annotations

import glob
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np

from normswap.backends import collecting_backend
from normswap.backends.protocols import Observes
from normswap.backends.values import Collector, Feed, SampleStatistics
from normswap.errors import CannotRunError, SelectionError
from normswap.layer import Array, NormLayer
from normswap.norms import NORMS, Norm
from normswap.plan import make_plan
from normswap.report import Progress
from normswap.statistics.moments import Moments
from normswap.words import nearest

__all__ = ["MODES", "Collection", "collect"]

# How the layers normalize while statistics are collected: each role that a target equals -> the target.
MODES: dict[str, Norm] = {norm.equals: norm for norm in NORMS.values() if norm.equals}

_Statistics: TypeAlias = Mapping[str, Sequence[SampleStatistics]]  # of one batch
_MERGED_TOGETHER = 64  # samples, whose statistics are kept apart until then


class Collection:
    """What was seen of a model's layers so far, in one mode; it takes batch after batch.

    Every layer that can be is switched to the mode, whatever it does today, and everything else keeps its own: with
    ``eval`` a layer in train mode normalizes with its stored statistics, dropout next to it still drops.

    Args:
        model: Path of an .onnx file, an onnx.ModelProto, an nn.Module, or a backend's model; never changed.
        mode: A key of MODES.
        layers: Names of the layers to look at; all that normalize activations if None.
        switch: Names of the layers that are switched to the mode, the others keeping their own; all if None.

    Attributes:
        layers: The layers that are looked at, as ``find`` gives them; known before the first batch.
        batches: How many batches were taken.
        unobserved: Why a layer's input cannot be seen, by its name; known after the first batch.
        left: Why a layer does not take the mode and keeps its own, by its name; known after the first batch.
        notes: What a reader of the moments must know.

    Raises:
        ModelReadError: If the file cannot be read.
        SelectionError: If the mode is unknown, or no layer has one of the names.
        UnsupportedModelError: If the inputs of such a model's layers cannot be seen at all.
    """

    def __init__(
        self,
        model: Any,
        mode: str = "eval",
        *,
        layers: Sequence[str] | None = None,
        switch: Sequence[str] | None = None,
    ) -> None:
        if mode not in MODES:
            raise SelectionError(f"unknown mode {mode!r}{nearest(mode, MODES)}; known are {', '.join(MODES)}")
        self.mode = mode
        self._switch = switch
        self._backend = collecting_backend(model)
        self._model = self._backend.prepare(self._backend.load(model))
        found = {layer.name: layer for layer in self._backend.find(self._model)}
        for name in layers or ():
            if name not in found:
                raise SelectionError(
                    f"no BatchNorm layer is called {name!r} among the {len(found)} found{nearest(name, found)}"
                )
        wanted = [name for name, layer in found.items() if layer.role != "weight"] if layers is None else layers
        self.layers: tuple[NormLayer, ...] = tuple(found[name] for name in wanted)
        self.batches = 0
        self.unobserved: dict[str, str] = {}
        self.left: dict[str, str] = {}
        self.notes: tuple[str, ...] = ()
        # What is merged, what is not yet, and how many samples those are.
        self._seen: tuple[dict[str, Moments], tuple[_Statistics, ...], int] = {}, (), 0
        self._collector: Collector | None = None
        self._taken: int | None = None  # how many arrays of a tuple the model takes

    def add(self, batch: Any) -> dict[str, Array]:
        """Run the model on a batch and return its outputs by name.

        Args:
            batch: Arrays or tensors by input name, one for a model with one input, or a tuple of them in the order of
                the inputs; what a tuple holds beyond what the model takes, labels say, is left out.

        Raises:
            CannotRunError: If the batch does not fit, or the model does not run on it.
        """
        arrays = self._fitted(batch)
        collector = self._collector = self._collector or self._made(arrays)
        run, seen = collector(arrays)
        merged, waiting, samples = self._seen
        # In one step, so that an interrupt loses one batch at most.
        self._seen = merged, (*waiting, seen), samples + _samples_of(seen)
        self.batches += 1
        if self._seen[2] >= _MERGED_TOGETHER:
            self._merge()
        self.notes = tuple(dict.fromkeys((*self.notes, *run.notes)))
        return dict(run.outputs)

    @property
    def moments(self) -> dict[str, Moments]:
        """Moments by the layer's name, of those that ran, in the order in which they ran first."""
        return dict(self._merge())

    def add_all(
        self,
        batches: Iterable[Any],
        *,
        each: Callable[[Mapping[str, Array]], object] | None = None,
        stage: str = "",
        progress: Progress | None = None,
    ) -> None:
        """Add batch after batch.

        Args:
            batches: What ``add`` takes, each.
            each: Called with the outputs of every batch.
            stage: What progress calls it.
            progress: Called with (stage, done, total); the total is 0 where ``batches`` has no length.

        Raises:
            CannotRunError: If a batch does not fit, or the model does not run on it.
        """
        total = operator.length_hint(batches, 0)
        for number, batch in enumerate(batches):
            if progress is not None:
                progress(stage or f"collecting statistics ({self.mode})", number, total)
            outputs = self.add(batch)
            if each is not None:
                each(outputs)

    @property
    def unreached(self) -> tuple[str, ...]:
        """Names of the layers that could be seen and did not run on any batch."""
        return tuple(
            layer.name for layer in self.layers if layer.name not in self.moments and layer.name not in self.unobserved
        )

    def _merge(self) -> dict[str, Moments]:
        """Merge what has not been merged yet: that of small batches together, since each merge has a price."""
        merged, waiting = dict(self._seen[0]), self._seen[1]
        eps = {layer.name: layer.eps for layer in self.layers}
        for name in dict.fromkeys(name for seen in waiting for name in seen):
            calls = [call for seen in waiting for call in seen.get(name, ())]
            parts = [
                Moments.of_samples(
                    np.concatenate([call.mean for call in alike]),
                    np.concatenate([call.var for call in alike]),
                    elements=elements,
                    eps=eps[name],
                )
                for elements, group in groupby(calls, key=lambda call: call.elements)
                for alike in [list(group)]
            ]
            merged[name] = Moments.merged([merged[name], *parts] if name in merged else parts)
        self._seen = merged, (), 0
        return merged

    def _made(self, arrays: Mapping[str, Any]) -> Collector:
        model = self._model
        if isinstance(self._backend, Observes):
            model = self._backend.observe(model, lambda _: [Feed(arrays, "the first batch")], given=True)
        # Names are given to make_plan as globs.
        only = None if self._switch is None else list(map(glob.escape, self._switch))
        planned = make_plan(MODES[self.mode], () if only == [] else self._backend.find(model), only=only or ())
        collector = self._backend.collector(model, planned, [layer.name for layer in self.layers])
        self.unobserved = dict(collector.unobserved)
        self.notes = (*self.notes, *model.notes)
        self.left = {refusal.layer.name: refusal.reason for refusal in planned.refusals}
        return collector

    def _fitted(self, batch: Any) -> Mapping[str, Any]:
        """Bind a batch to the model's inputs."""
        if not isinstance(batch, (tuple, list)):
            return self._bound(batch)
        if self._taken is not None:
            return self._bound(tuple(batch[: self._taken]))
        trouble: CannotRunError | None = None
        for taken in range(len(batch), 0, -1):
            try:
                arrays = self._bound(tuple(batch[:taken]))
            except CannotRunError as error:
                trouble = trouble or error
                continue
            self._taken = taken
            if taken < len(batch):
                self.notes += (f"of the {len(batch)} arrays of each batch the model takes the first {taken}",)
            return arrays
        raise trouble or CannotRunError("the batch holds no arrays")

    def _bound(self, batch: Any) -> Mapping[str, Any]:
        inputs = self._backend.inputs(self._model)
        if isinstance(batch, Mapping) and all(isinstance(value, np.ndarray) for value in batch.values()):
            return inputs.fit(batch)
        return inputs.bind(batch)


def _samples_of(seen: _Statistics) -> int:
    """The most samples that a layer has in what one batch gave."""
    return max((sum(len(call.mean) for call in calls) for calls in seen.values()), default=0)


def collect(
    model: Any,
    batches: Iterable[Any],
    mode: str = "eval",
    *,
    layers: Sequence[str] | None = None,
    each: Callable[[Mapping[str, Array]], object] | None = None,
    progress: Progress | None = None,
) -> Collection:
    """Run a model on all batches in one mode; ``.moments`` of the result has what its layers were given.

    Other arguments and exceptions are those of ``Collection``, which is for several modes on the same batches,
    and for keeping what was seen before an interrupt.

    Args:
        model: What to run.
        batches: What ``Collection.add`` takes, each.
        mode: A key of MODES.
        layers: Names of the layers to look at.
        each: Called with the outputs of every batch.
        progress: Called with (stage, done, total); the total is 0 where ``batches`` has no length.

    Raises:
        CannotRunError: If a batch does not fit, or the model does not run on it.

    Examples:
        >>> import numpy as np
        >>> images = np.load("fixtures/lowlight_images.npz")["dark"]
        >>> collection = collect("fixtures/lowlight.onnx", [images[:2], images[2:4]])
        >>> collection.moments["/stem/stem.1/BatchNormalization_output_0"].samples
        4
    """
    collection = Collection(model, mode, layers=layers)
    collection.add_all(batches, each=each, progress=progress)
    return collection
