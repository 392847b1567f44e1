"""One recalibration: collected, stored, and shown to have changed nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from normswap.backends import Collects, writing_backend
from normswap.errors import NothingToConvertError, SelectionError
from normswap.layer import Floats, NormLayer
from normswap.options import takes
from normswap.recalibration.collecting import Seen, collected, collected_sequentially
from normswap.recalibration.options import Recalibrating, RecalibrationOptions
from normswap.recalibration.processes import rank_and_size
from normswap.recalibration.report import Moved, Recalibration
from normswap.recalibration.selection import Selection, check_output, selection
from normswap.recalibration.statistics import statistics_of
from normswap.report import Check
from normswap.statistics.mismatch import mismatch
from normswap.statistics.moments import Moments
from normswap.words import counted

__all__ = ["recalibrate", "recalibrate_selected", "recalibrate_with"]


@takes(Recalibrating)
def recalibrate(asked: Recalibrating) -> Recalibration:
    """Give the BatchNorm layers of a model new running statistics; look at ``ok`` before using it.

    Where torch.distributed has been started, each process takes its share of the batches, every rank-th one unless the
    loader has a DistributedSampler, and all of them get the result of all; the first one writes it.

    Raises:
        ModelReadError: If the file cannot be read.
        ModelWriteError: If ``output`` exists, is the source, or cannot be written.
        SelectionError: If a glob matches nothing, ``momentum`` is not a share, or ``batches`` can be read only once.
        NothingToConvertError: If no layer stores statistics, or no batch reaches one.
        UnsupportedModelError: If the model as a whole cannot be handled.
        CannotRunError: If the model does not run on a batch, or what a layer is given is not finite.

    Examples:
        >>> import numpy as np
        >>> import normswap
        >>> images = np.load("fixtures/lowlight_images.npz")["dark"]
        >>> found = normswap.recalibrate("fixtures/lowlight.onnx", [images[:8], images[8:]])
        >>> found.ok, found.samples, len(found.moved)
        (True, 16, 9)
    """
    chosen = selection(asked.model, asked)
    return recalibrate_selected(chosen, asked.batches, asked)


def recalibrate_selected(chosen: Selection, batches: Iterable[Any], options: RecalibrationOptions) -> Recalibration:
    """Collect the statistics of chosen layers and store them; see ``recalibrate``."""
    if options.output is not None:
        check_output(chosen, options.output, force=options.force)
    if not options.sequential:
        return recalibrate_with(chosen, collected(chosen, batches, progress=options.progress), options)
    if iter(batches) is batches:
        raise SelectionError(
            "sequential goes through the batches once for each layer, and these can be read only once; give a list, a "
            "DataLoader, or another source that can be read again"
        )
    return recalibrate_with(chosen, collected_sequentially(chosen, batches, options), options)


def recalibrate_with(
    chosen: Selection,
    seen: Seen,
    options: RecalibrationOptions = RecalibrationOptions(),
) -> Recalibration:
    """Store what was collected, and show that nothing else changed.

    Args:
        chosen: The model and its layers.
        seen: What was collected for them.
        options: How it was collected, how it is stored, and where it is written.

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
    statistics = statistics_of(chosen, moments, options.momentum)
    after = backend.recalibrated(before, statistics)
    found = {layer.name: layer for layer in backend.find(after)}
    checks = [
        *backend.compare_recalibrated(before, after, list(moments)),
        *(check for name in moments for check in _stored(name, found.get(name), statistics[name])),
    ]
    old = {layer.name: layer for layer in chosen.layers}
    result = Recalibration(
        model=after.public,
        moved=tuple(_moved(old[name], moments[name], statistics[name]) for name in moments),
        left=left,
        checks=tuple(checks),
        variance=backend.VARIANCE,
        momentum=options.momentum,
        sequential=options.sequential,
        passes=seen.passes,
        notes=(*seen.notes, *_notes(backend, options.momentum)),
    )
    if options.output is None or not result.ok or rank_and_size()[0]:
        return result
    with writing_backend(backend).writing(after, options.output, force=options.force) as writing:
        return replace(result, written=writing.commit())


def _stored(name: str, layer: NormLayer | None, statistics: tuple[Floats, Floats]) -> list[Check]:
    """Hold what a layer normalizes with now to what was computed for it, bit for bit in its element type."""
    checks = []
    found = (None, None) if layer is None else (layer.running_mean, layer.running_var)
    for word, stored, value in zip(("mean", "variance"), found, statistics, strict=True):
        same = stored is not None and stored.tobytes() == value.astype(stored.dtype).tobytes()
        verb = "is" if same else "is not"
        checks.append(Check("structure", name, same, detail=f"{name}: its {word} {verb} what was computed"))
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


def _notes(backend: Collects, momentum: float | None) -> list[str]:
    divisor = "the number of elements" if backend.VARIANCE == "biased" else "the number of elements less one"
    notes = [f"the variance is {backend.VARIANCE}, divided by {divisor}"]
    if momentum is not None:
        notes.append(f"what is stored is {1 - momentum:g} of the old statistics and {momentum:g} of the new")
    return notes
