"""diagnose: what eval mode costs a model on its user's data, and which fix is right.

The model is run in several ways on the same batches. Where there are targets the ways are compared by their errors,
else by how far their outputs are from train mode's; the moments of each layer's input say why they differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from normswap.backends.onnx_graph.inputs import signature
from normswap.data import Data, batches_of
from normswap.data.declared import Scale
from normswap.diagnose.fewest import Fewest, fewest_layers
from normswap.diagnose.layers import BATCH_OF_ONE, LayerFinding, finding_of
from normswap.diagnose.modes import ERRORS, ErrorOf, Mode, Outcomes
from normswap.diagnose.verdict import ADVICE, Advice, Evidence, Verdict, judge
from normswap.errors import NormswapError, SelectionError
from normswap.gather import Gathering, gathering_backend
from normswap.layer import Array, Floats
from normswap.plan import nearest
from normswap.recalibrate import Seen, recalibrate_with, selection
from normswap.report import Progress

__all__ = ["Diagnosis", "ModeFinding", "diagnose"]

_BATCH = 8
_ADVICE: dict[str, Advice] = {"eval": "keep eval", "recalibrated": "recalibrate", "instance": "convert to instance"}
_CONVERTS: dict[Advice, str] = {"convert to instance": "instance", "use batch statistics": "batch-stat"}


@dataclass(frozen=True)
class ModeFinding:
    """One way of running the model.

    Attributes:
        name: ``eval``, ``recalibrated``, ``instance``, or ``batch-stat, N = 8``.
        error: Mean error against the targets, None without.
        error_std: Standard error of that mean.
        distance: Mean distance from train mode, as a share of the spread of its outputs.
        trouble: Why it was not run; empty where it was.
    """

    name: str
    error: float | None
    error_std: float | None
    distance: float
    trouble: str = ""


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What ``diagnose`` returns.

    Attributes:
        verdict: What to do, and why.
        modes: Each way of running the model, from the simplest fix to the one that changes most.
        layers: Each BatchNorm, in the model's order.
        train: The mode that stands for training, and why.
        samples: How many were seen.
        source: Where they are from.
        notes: What a reader must know.
        fewest: Layers whose conversion does nearly all, where a conversion is advised; None elsewhere.
        complete: Whether all data were seen; False after an interrupt.
        strip: Of the first samples, the images: input, each mode's output, target; empty where they are none.
    """

    verdict: Verdict
    modes: tuple[ModeFinding, ...]
    layers: tuple[LayerFinding, ...]
    train: str
    samples: int
    source: str
    notes: tuple[str, ...]
    fewest: Fewest | None = None
    complete: bool = True
    strip: Mapping[str, Array] = field(default_factory=dict, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, the layers by their means over channels."""
        return {
            "advice": self.verdict.advice,
            "mode": self.verdict.mode,
            "why": self.verdict.why,
            "thin": list(self.verdict.thin),
            "train": self.train,
            "samples": self.samples,
            "source": self.source,
            "complete": self.complete,
            "notes": list(self.notes),
            "fewest": None if self.fewest is None else list(self.fewest.names),
            "modes": [
                {
                    "name": mode.name,
                    "error": _plain(mode.error),
                    "error_std": _plain(mode.error_std),
                    "distance": _plain(mode.distance),
                    "trouble": mode.trouble,
                }
                for mode in self.modes
            ],
            "layers": [
                {
                    "name": found.layer.name,
                    "spread": _plain(found.spread),
                    "staleness": _plain(found.staleness),
                    "remarks": list(found.remarks),
                }
                for found in self.layers
            ],
        }

    def to_text(self) -> str:
        """Return it for people: the verdict, then the numbers that it rests on."""
        lines = [f"{self.verdict.advice}: {ADVICE[self.verdict.advice]}", f"  {self.verdict.why}"]
        lines += [f"  thin: {sentence}" for sentence in self.verdict.thin]
        lines += ["", f"{'way of running it':<22}{'error':>10}{'+-':>10}{'from train mode':>18}"]
        for mode in self.modes:
            cells = "".join(f"{'' if n is None else f'{n:.3g}':>10}" for n in (mode.error, mode.error_std))
            lines.append(
                f"{mode.name:<22}{mode.trouble}" if mode.trouble else f"{mode.name:<22}{cells}{mode.distance:>18.1%}"
            )
        width = max((len(found.layer.name) for found in self.layers), default=5)
        lines += ["", f"{'layer':<{width}}  {'spread':>8}  {'stale by':>8}  (nats; mean over channels)"]
        for found in self.layers:
            numbers = "  ".join(f"{_nats(value):>8}" for value in (found.spread, found.staleness))
            lines.append(f"{found.layer.name:<{width}}  {numbers}  {'; '.join(found.remarks)}".rstrip())
        if self.fewest is not None:
            fewest = self.fewest
            off = f"{fewest.distance:.1%} of the spread of the outputs away from all {fewest.of}"
            lines += ["", f"fewest layers: these {len(fewest.names)} come to within {off}:", f"  {fewest.options}"]
        lines += ["", f"train mode: {self.train}", f"{self.samples} samples: {self.source}"]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)


def diagnose(
    model: Any,
    data: Any,
    *,
    targets: Any = None,
    error: str | ErrorOf = "l1",
    batch_size: int | None = None,
    scale: Scale | None = None,
    size: tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Say what eval mode costs a model on these data, and which fix is right.

    Args:
        model: Path of an .onnx file, an onnx.ModelProto, or an nn.Module; never changed.
        data: What ``normswap.data.batches_of`` takes: files, folders, arrays, or a loader of batches.
        targets: What the outputs should be; without them train mode is taken for what is right.
        error: ``l1``, ``psnr``, or a function of (output, target) that returns the error of each sample, shape (N,).
        batch_size: Samples that batch statistics are taken of, 8 by default, or what the model dictates.
        scale: What 0 and 255 of images become.
        size: Width and height that images are brought to.
        progress: Called with (stage, done, total); the total is 0 where it is not known.

    Returns:
        The diagnosis; after a KeyboardInterrupt that of what was seen, if anything was.

    Raises:
        DataError: If the data do not fit the model.
        CannotRunError: If the model does not run.
        NothingToConvertError: If no layer stores statistics.
    """
    error_of = _error_named(error)
    backend = gathering_backend(model)
    chosen = selection(model)
    declared = signature(chosen.model) if backend.DECLARES_INPUTS else ()
    data = batches_of(data, inputs=declared, targets=targets, batch_size=batch_size, scale=scale, size=size)
    batch = data.batch_size or _BATCH
    pooled = f"batch-stat, N = {batch}"
    gatherings = [Gathering(chosen.model, mode) for mode in ("eval", "batch-stat", "instance")]
    complete, mean_target = _gather(gatherings, data, progress)
    moments = [gathering.moments for gathering in gatherings]
    layers = [finding_of(layer, *(found.get(layer.name) for found in moments)) for layer in chosen.layers]
    train, why = _train_mode(layers, pooled if batch > 1 else "instance")
    notes = [*data.notes, *(note for gathering in gatherings for note in gathering.notes)]
    modes = [Mode("eval", Gathering(chosen.model, "eval"))]
    try:
        new = recalibrate_with(chosen, Seen(moments[1])).model
        modes.append(Mode("recalibrated", Gathering(new, "eval")))
    except NormswapError as trouble:
        notes.append(f"it could not be recalibrated: {trouble}")
    modes.append(Mode("instance", Gathering(chosen.model, "instance")))
    if batch > 1:
        modes.append(Mode(pooled, Gathering(chosen.model, "batch-stat")))
    outcomes = Outcomes(train, error_of, mean_target)
    complete = _compare(outcomes, modes, data, progress) and complete
    if not complete:
        notes.append("it was interrupted, and tells of what it saw up to then")
    sound = [mode for mode in modes if not mode.trouble]
    evidence = Evidence(
        {mode.name: mode.errors for mode in sound if mode.errors},
        {mode.name: mode.distances for mode in sound},
        outcomes.scale,
        outcomes.baseline,
        train,
        {mode.name: _ADVICE.get(mode.name, "use batch statistics") for mode in modes},
    )
    verdict = judge(evidence)
    fewest = None
    if complete and verdict.advice in _CONVERTS and not data.once:
        names = [layer.name for layer in chosen.layers]
        first = next(iter(data))
        fewest = fewest_layers(
            chosen.model,
            _CONVERTS[verdict.advice],
            names,
            first,
            lambda done, total: progress("finding the fewest layers", done, total) if progress else None,
        )
    return Diagnosis(
        verdict,
        tuple(_finding(mode, outcomes.scale) for mode in modes),
        tuple(layers),
        f"{train}: {why}",
        len(modes[0].distances),
        data.source,
        tuple(dict.fromkeys(notes)),
        fewest,
        complete,
        outcomes.strip,
    )


def _gather(gatherings: Sequence[Gathering], data: Data, progress: Progress | None) -> tuple[bool, dict[str, Floats]]:
    """Run the model for its layers' moments; return whether all data were seen, and the mean of the targets."""
    means: dict[str, Floats] = {}
    count = 0
    try:
        for done, (arrays, targets) in enumerate(data.pairs()):
            _tell(progress, "gathering statistics", done, data)
            for gathering in gatherings:
                gathering.add(arrays)
            for name, target in targets.items():
                mean = means.setdefault(name, np.zeros(target.shape[1:]))
                mean += (target.astype(np.float64) - mean).sum(axis=0) / (count + len(target))
            count += len(next(iter(arrays.values())))
    except KeyboardInterrupt:
        if not gatherings[-1].batches:
            raise
        return False, means
    return True, means


def _compare(outcomes: Outcomes, modes: Sequence[Mode], data: Data, progress: Progress | None) -> bool:
    """Run the model in all modes; return whether all data were seen."""
    try:
        for done, (arrays, targets) in enumerate(data.pairs()):
            _tell(progress, "comparing outputs", done, data)
            outcomes.add(modes, arrays, targets)
    except KeyboardInterrupt:
        if not modes[-1].distances:
            raise
        return False
    return True


def _tell(progress: Progress | None, stage: str, done: int, data: Data) -> None:
    if progress is not None:
        try:
            total = len(data)
        except TypeError:
            total = 0
        progress(stage, done, total)


def _train_mode(layers: Sequence[LayerFinding], pooled: str) -> tuple[str, str]:
    """Say which mode stands for training, by what the stored variances hold of the variance between samples."""
    shares = [found.stored_share for found in layers if np.isfinite(found.stored_share)]
    if not shares:
        return "instance", "samples hardly differ in their statistics, so that batches of any size are alike"
    share = float(np.median(shares))
    said = f"the stored variances hold {share:.0%} of the variance between samples"
    if abs(share) < BATCH_OF_ONE:
        return "instance", f"{said}, as those of batches of one sample do"
    return pooled, f"{said}, as those of larger batches do"


def _finding(mode: Mode, scale: float) -> ModeFinding:
    errors = np.asarray(mode.errors)
    distance = float(np.mean(mode.distances)) / scale if mode.distances else float("nan")
    if not errors.size:
        return ModeFinding(mode.name, None, None, distance, mode.trouble)
    standard = float(errors.std(ddof=1) / np.sqrt(errors.size)) if errors.size > 1 else float("nan")
    return ModeFinding(mode.name, float(errors.mean()), standard, distance, mode.trouble)


def _error_named(error: str | ErrorOf) -> ErrorOf:
    if not isinstance(error, str):
        return error
    if error not in ERRORS:
        raise SelectionError(f"unknown error {error!r}{nearest(error, ERRORS)}; known are {', '.join(ERRORS)}")
    return ERRORS[error]


def _plain(value: float | None) -> float | str | None:
    return value if value is None or np.isfinite(value) else str(value)


def _nats(value: float) -> str:
    return "?" if np.isnan(value) else f"{value:.3g}"
