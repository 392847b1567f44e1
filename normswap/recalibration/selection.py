"""Selection: the layers of a model that get new statistics, and why the others do not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normswap.backends import Collects, collecting_backend, writing_backend
from normswap.backends.protocols import RunsElsewhere
from normswap.backends.torch.checkpoint import SUFFIXES
from normswap.errors import NothingToConvertError, SelectionError
from normswap.layer import NormLayer
from normswap.plan import raise_for_idle_globs, selected
from normswap.recalibration.options import RecalibrationOptions

__all__ = ["Selection", "check_output", "selection"]


@dataclass(frozen=True, eq=False)
class Selection:
    """The layers of a model that are to be recalibrated.

    Attributes:
        backend: Of the model.
        model: As the backend holds it.
        layers: Those that are, as they were found.
        left: Why each other layer keeps its statistics, or has none, by its name.
    """

    backend: Collects
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


def selection(model: Any, options: RecalibrationOptions = RecalibrationOptions()) -> Selection:
    """Choose the layers that get new statistics; exceptions as for ``recalibrate``."""
    momentum, only, skip = options.momentum, options.only, options.skip
    if momentum is not None and not 0 < momentum <= 1:
        raise SelectionError(f"momentum is {momentum:g}, expected a share above 0 and up to 1")
    backend = collecting_backend(model)
    loaded = backend.load(model)
    layers = backend.find(loaded)
    raise_for_idle_globs((*only, *skip), [layer.name for layer in layers])
    cannot = backend.cannot_store(loaded)
    left: dict[str, str] = {}
    for layer in layers:
        if not selected(layer.name, only, skip):
            left[layer.name] = "not selected"
        elif layer.role not in ("eval", "train"):
            left[layer.name] = f"its role is {layer.role}: it stores no running statistics that are its own"
        elif layer.name in cannot:
            left[layer.name] = cannot[layer.name]
    chosen = Selection(backend, loaded, tuple(layer for layer in layers if layer.name not in left), left)
    if not chosen.layers:
        example = "".join(f": {name}: {why}" for name, why in list(left.items())[:1])
        raise NothingToConvertError(f"none of {len(layers)} BatchNorm layers can be recalibrated{example}")
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
    writing_backend(chosen.backend).check_target(chosen.model, output, force=force)
    if not isinstance(chosen.backend, RunsElsewhere) and Path(output).suffix not in SUFFIXES:
        raise SelectionError(
            f"{output}: a recalibrated module is written as its weights ({', '.join(SUFFIXES)}); load them and export, "
            "or recalibrate the export"
        )
