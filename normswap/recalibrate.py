"""recalibrate: new running statistics from data, and the proof that nothing else of the model changed.

The new mean and variance of a layer are those of all elements of all samples together (Precise BN), not an average of
the statistics of batches, which leaves out the variance between them. They are gathered

- by default in one pass in which the layers normalize with the statistics of each batch, as in training: every layer
  then gets the statistics of what it was given in training;
- with ``sequential`` layer by layer in the order in which they run, each with the layers before it in eval mode and
  recalibrated already: every layer gets the statistics of what it is given in eval mode from now on. That takes one
  pass over the data for each layer.

ONNX stores the biased variance, divided by the number of elements N, torch that divided by N - 1: BatchNormalization
defines its running variance so, and torch's BatchNorm updates its own so. Where N is large they do not differ.

References:
    Wu & Johnson 2021, Rethinking "Batch" in BatchNorm, section 3 and appendix.
    Li et al. 2016, Revisiting Batch Normalization For Practical Domain Adaptation (the same on data of a new domain).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from normswap.backends import Backend
from normswap.checkpoint import SUFFIXES
from normswap.errors import CannotRunError, NothingToConvertError, SelectionError
from normswap.gather import Gathering, gathering_backend
from normswap.layer import Array, Floats, NormLayer
from normswap.mismatch import mismatch
from normswap.moments import Moments
from normswap.plan import raise_for_idle_globs
from normswap.processes import merged_over_processes, rank_and_size, share_of
from normswap.recalibration import Moved, Recalibration
from normswap.report import Check, Progress, counted

__all__ = [
    "Seen",
    "Selection",
    "check_output",
    "gathered",
    "recalibrate",
    "recalibrate_with",
    "selection",
]

_MODE = "batch-stat"  # the layers' mode while statistics are gathered in one pass


@dataclass(frozen=True, eq=False)
class Seen:
    """What was gathered for a recalibration.

    Attributes:
        moments: Of the layers that ran, by name.
        passes: How often the data were gone through.
        notes: What a reader must know.
    """

    moments: Mapping[str, Moments]
    passes: int = 1
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Selection:
    """The layers of a model that are to be recalibrated.

    Attributes:
        backend: Of the model.
        model: As the backend holds it.
        layers: Those that are, as they were found.
        left: Why each other layer keeps its statistics, or has none, by its name.
    """

    backend: Backend
    model: Any
    layers: tuple[NormLayer, ...]
    left: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        """Names of the layers."""
        return [layer.name for layer in self.layers]

    def same_as(self, name: str) -> list[str]:
        """Return all names of a layer, more than one where several paths lead to it."""
        body = next(layer.body for layer in self.layers if layer.name == name)
        return [layer.name for layer in self.layers if layer.name == name or (body and layer.body == body)]


def recalibrate(
    model: Any,
    batches: Iterable[Any],
    *,
    momentum: float | None = None,
    sequential: bool = False,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    output: str | os.PathLike[str] | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Recalibration:
    """Give the BatchNorm layers of a model new running statistics; look at ``ok`` before using it.

    Where torch.distributed has been started, each process takes its share of the batches, every rank-th one unless the
    loader has a DistributedSampler, and all of them get the result of all; the first one writes it.

    Args:
        model: Path of an .onnx file, an onnx.ModelProto, or an nn.Module; never changed.
        batches: What ``normswap.gather.Gathering.add`` takes, each; a loader's labels are left out.
        momentum: Share of the new statistics in what is stored, in (0, 1], as torch's; None replaces the old ones.
        sequential: Gather layer by layer, as in eval mode: as many passes over ``batches`` as there are layers.
        only: Globs; if any are given, only layers that match one are recalibrated, and the others keep the mode that
            they have while statistics are gathered.
        skip: Globs; layers that match one are left as they are.
        output: A file to write the result to, if it is ok: .onnx, or weights of an nn.Module (.pth, .safetensors).
        force: Replace an existing ``output``.
        progress: Called with (stage, done, total) as the work goes on.

    Raises:
        ModelReadError: If the file cannot be read.
        ModelWriteError: If ``output`` exists, is the source, or cannot be written.
        SelectionError: If a glob matches nothing, ``momentum`` is no share, or ``batches`` can be had only once.
        NothingToConvertError: If no layer stores statistics, or no batch reaches one.
        UnsupportedModelError: If the model as a whole cannot be handled.
        CannotRunError: If the model does not run on a batch, or what a layer is given is not finite.

    Example:
        >>> import numpy as np
        >>> images = np.load("fixtures/lowlight_images.npz")["dark"]
        >>> found = recalibrate("fixtures/lowlight.onnx", [images[:8], images[8:]])
        >>> found.ok, found.samples, len(found.moved)
        (True, 16, 9)
    """
    chosen = selection(model, only=only, skip=skip, momentum=momentum)
    if output is not None:
        check_output(chosen, output, force=force)
    if sequential and iter(batches) is batches:
        raise SelectionError(
            "sequential goes through the batches once for each layer, and these can be had only once; give a list, a "
            "DataLoader, or whatever gives them anew"
        )
    if sequential:
        seen = _sequentially(chosen, batches, momentum, progress)
    else:
        seen = gathered(chosen, batches, progress=progress)
    return recalibrate_with(chosen, seen, momentum=momentum, sequential=sequential, output=output, force=force)


def selection(
    model: Any, *, only: Sequence[str] = (), skip: Sequence[str] = (), momentum: float | None = None
) -> Selection:
    """Choose the layers that get new statistics; arguments and exceptions as for ``recalibrate``."""
    if momentum is not None and not 0 < momentum <= 1:
        raise SelectionError(f"momentum is {momentum:g}, expected a share above 0 and up to 1")
    backend = gathering_backend(model)
    loaded = backend.load(model)
    layers = backend.find(loaded)
    raise_for_idle_globs((*only, *skip), [layer.name for layer in layers])
    cannot = backend.cannot_store(loaded)
    left: dict[str, str] = {}
    for layer in layers:
        selected = not only or any(fnmatchcase(layer.name, glob) for glob in only)
        if not selected or any(fnmatchcase(layer.name, glob) for glob in skip):
            left[layer.name] = "not selected"
        elif layer.role not in ("eval", "train"):
            left[layer.name] = f"its role is {layer.role}: it stores no running statistics that are its own"
        elif layer.name in cannot:
            left[layer.name] = cannot[layer.name]
    chosen = Selection(backend, loaded, tuple(layer for layer in layers if layer.name not in left), left)
    if not chosen.layers:
        said = "".join(f": {name}: {why}" for name, why in list(left.items())[:1])
        raise NothingToConvertError(f"none of {len(layers)} BatchNorm layers can be recalibrated{said}")
    bodies = {layer.body: layer.name for layer in chosen.layers if layer.body}
    for layer in layers:
        if layer.name in left and layer.body in bodies:
            raise SelectionError(
                f"{bodies[layer.body]}: it is the same layer as {layer.name}, which is to stay as it is "
                f"({left[layer.name]}); select both or none"
            )
    return chosen


def check_output(chosen: Selection, output: str | os.PathLike[str], *, force: bool) -> None:
    """Raise ModelWriteError or SelectionError if the result could not be written there; see ``recalibrate``."""
    chosen.backend.check_target(chosen.model, output, force=force)
    if not chosen.backend.RUNS_ELSEWHERE and Path(output).suffix not in SUFFIXES:
        raise SelectionError(
            f"{output}: a recalibrated module is written as its weights ({', '.join(SUFFIXES)}); load them and export, "
            "or recalibrate the export"
        )


def gathered(
    chosen: Selection,
    batches: Iterable[Any],
    *,
    share: tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> Seen:
    """Gather in one pass, the chosen layers normalizing with the statistics of each batch.

    Args:
        chosen: The model and its layers.
        batches: See ``recalibrate``.
        share: (i, n): take each n-th batch from the i-th on, and keep what was seen apart; None shares them between
            the processes of torch.distributed, where it has been started, and brings together what all have seen.
        progress: See ``recalibrate``.
    """
    gathering = Gathering(chosen.model, _MODE, layers=chosen.names, switch=chosen.names)
    own = share_of(batches, share or rank_and_size())

    def take() -> Mapping[str, Moments]:
        gathering.add_all(own, stage="gathering statistics", progress=progress)
        return gathering.moments

    moments = take() if share is not None else merged_over_processes(take)
    kept = [f"{name} kept its own mode while statistics were gathered: {why}" for name, why in gathering.left.items()]
    return Seen(moments, notes=(*gathering.notes, *kept))


def _sequentially(chosen: Selection, batches: Iterable[Any], momentum: float | None, progress: Progress | None) -> Seen:
    """Gather layer by layer, each with the chosen layers before it in eval mode and recalibrated."""
    moments: dict[str, Moments] = {}
    waiting = chosen.names
    model, passes = chosen.model, 0
    while waiting:
        # The first pass looks at all of them, which tells the order in which they run.
        gathering = Gathering(model, "eval", layers=waiting[: 1 if passes else None], switch=chosen.names)
        stage = f"gathering statistics of layer {passes + 1} of {passes + len(waiting)}"

        def take(gathering: Gathering = gathering, stage: str = stage) -> Mapping[str, Moments]:
            gathering.add_all(share_of(batches, rank_and_size()), stage=stage, progress=progress)
            return gathering.moments

        found = merged_over_processes(take)
        if not passes:
            waiting, notes = list(found), gathering.notes
        passes += 1
        if not waiting:
            break
        if waiting[0] not in found:
            raise CannotRunError(f"{waiting[0]}: it ran in the first pass over the batches and not in a later one")
        names = [name for name in chosen.same_as(waiting[0]) if name in waiting]
        moments |= dict.fromkeys(names, found[waiting[0]])
        waiting = [name for name in waiting if name not in names]
        model = chosen.backend.recalibrated(model, _statistics(chosen, {n: moments[n] for n in names}, momentum))
    return Seen(moments, passes, notes)


def recalibrate_with(
    chosen: Selection,
    seen: Seen,
    *,
    momentum: float | None = None,
    sequential: bool = False,
    output: str | os.PathLike[str] | None = None,
    force: bool = False,
) -> Recalibration:
    """Store what was gathered, and show that nothing else changed.

    Args:
        chosen: The model and its layers.
        seen: What was gathered for them.
        momentum: See ``recalibrate``.
        sequential: Whether it was gathered layer by layer.
        output: See ``recalibrate``.
        force: See ``recalibrate``.

    Raises:
        NothingToConvertError: If no batch reached a layer.
        CannotRunError: If new statistics are not finite, or too large for the element type that they are stored in.
        ModelWriteError: If ``output`` cannot be written.
    """
    backend, before = chosen.backend, chosen.model
    left = dict(chosen.left) | {name: "no batch reached it" for name in chosen.names if name not in seen.moments}
    moments = {name: seen.moments[name] for name in chosen.names if name in seen.moments}
    if not moments:
        raise NothingToConvertError(
            f"no batch reached any of the {counted(len(chosen.layers), 'layer')} to recalibrate"
        )
    statistics = _statistics(chosen, moments, momentum)
    after = backend.recalibrated(before, statistics)
    found = {layer.name: layer for layer in backend.find(after)}
    checks = [
        *backend.compare_recalibrated(before, after, list(moments)),
        *(check for name in moments for check in _stored(name, found.get(name), statistics[name])),
    ]
    old = {layer.name: layer for layer in chosen.layers}
    result = Recalibration(
        model=backend.public(after),
        moved=tuple(_moved(old[name], moments[name], statistics[name]) for name in moments),
        left=left,
        checks=tuple(checks),
        variance=backend.VARIANCE,
        momentum=momentum,
        sequential=sequential,
        passes=seen.passes,
        notes=(*seen.notes, *_told(backend, momentum)),
    )
    if output is None or not result.ok or rank_and_size()[0]:
        return result
    with backend.Writing(after, output, force=force) as writing:
        return replace(result, written=writing.commit())


def _statistics(
    chosen: Selection, moments: Mapping[str, Moments], momentum: float | None
) -> dict[str, tuple[Floats, Floats]]:
    """Return the mean and variance to be stored, as the framework defines them, by the layer's name."""
    made = {}
    for layer in chosen.layers:
        if layer.name not in moments:
            continue
        found = moments[layer.name]
        assert layer.running_mean is not None and layer.running_var is not None, "cannot_store names others"
        values = []
        new = (found.pooled_mean, found.pooled_var if chosen.backend.VARIANCE == "biased" else found.unbiased_var)
        for word, value, stored in zip(("mean", "variance"), new, (layer.running_mean, layer.running_var), strict=True):
            if momentum is not None:
                value = (1 - momentum) * stored.astype(np.float64) + momentum * value
            _raise_for_what_is_no_number(layer, word, value, stored, found)
            values.append(value)
        made[layer.name] = (values[0], values[1])
    return made


def _raise_for_what_is_no_number(layer: NormLayer, word: str, value: Floats, stored: Array, found: Moments) -> None:
    with np.errstate(over="ignore"):
        wrong = int(np.sum(~np.isfinite(value.astype(stored.dtype).astype(np.float64))))
    if not wrong:
        return
    of = f"{wrong} of {counted(value.size, 'channel')}"
    if np.isfinite(value).all():
        why = f"is too large for {stored.dtype}, in which it is stored; keep the statistics of this layer in float32"
    elif found.elements == 1 and word == "variance":
        why = "is that of a single element; give more samples"
    elif not np.isfinite(found.pooled_mean).all() or not np.isfinite(found.pooled_var).all():
        why = "is not finite, because what the layer is given is not; look at the data and at the layers before it"
    else:
        why = "is not finite, because the old one that it is blended with is not; leave out the momentum"
    raise CannotRunError(f"{layer.name}: its new {word} {why} ({of})")


def _stored(name: str, layer: NormLayer | None, statistics: tuple[Floats, Floats]) -> list[Check]:
    """Hold what a layer normalizes with now to what was computed for it, bit for bit in its element type."""
    checks = []
    found = (None, None) if layer is None else (layer.running_mean, layer.running_var)
    for word, stored, value in zip(("mean", "variance"), found, statistics, strict=True):
        same = stored is not None and stored.tobytes() == value.astype(stored.dtype).tobytes()
        said = "is" if same else "is not"
        checks.append(Check("structure", name, same, detail=f"{name}: its {word} {said} what was computed"))
    return checks


def _moved(layer: NormLayer, found: Moments, new: tuple[Floats, Floats]) -> Moved:
    assert layer.running_mean is not None and layer.running_var is not None, "cannot_store names others"
    mean, var = layer.running_mean.astype(np.float64), layer.running_var.astype(np.float64)
    with np.errstate(all="ignore"):
        shift = np.abs(new[0] - mean) / np.sqrt(var + layer.eps)
        ratio = (new[1] + layer.eps) / (var + layer.eps)
    pooled = Moments.of_samples(new[0][None], new[1][None], elements=1, eps=layer.eps)
    stale = mismatch(pooled, mean, var).staleness
    return Moved(
        name=layer.name,
        samples=found.samples,
        elements=found.elements,
        shift=float(shift.max()),
        least=float(ratio.min()),
        most=float(ratio.max()),
        staleness=float(stale.mean()),
    )


def _told(backend: Backend, momentum: float | None) -> list[str]:
    divisor = "the number of elements" if backend.VARIANCE == "biased" else "the number of elements less one"
    said = [f"the variance is {backend.VARIANCE}, divided by {divisor}"]
    if momentum is not None:
        said.append(f"what is stored is {1 - momentum:g} of the old statistics and {momentum:g} of the new")
    return said
