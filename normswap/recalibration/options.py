"""The options of a recalibration, declared once for Python and the command line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from normswap.options import argument, option
from normswap.report import Progress

__all__ = ["Recalibrating", "RecalibrationOptions"]


@dataclass(frozen=True, kw_only=True)
class RecalibrationOptions:
    """What ``recalibrate`` takes besides the model and the data."""

    momentum: float | None = option(
        None,
        "Share of the new statistics in what is stored, above 0 and up to 1; if not given, they replace the old ones.",
        "share",
    )
    sequential: bool = option(
        False, "Collect layer by layer, as in eval mode: one pass over the data for each layer.", "flag"
    )
    only: Sequence[str] = option(
        (),
        "Layers to recalibrate, by glob; all if not given.",
        "names",
        python="The others keep their mode while statistics are collected.",
    )
    skip: Sequence[str] = option((), "Layers to leave as they are, by glob.", "names")
    output: str | os.PathLike[str] | None = option(
        None, "A file to write the result to, if it is ok: .onnx, or weights of an nn.Module (.pth, .safetensors)."
    )
    force: bool = option(False, "Replace an existing ``output``.")
    progress: Progress | None = option(None, "Called with (stage, done, total) as the work goes on.")


@dataclass(frozen=True)
class _ModelAndData:
    model: Any = field(
        metadata=argument("The model: path of an .onnx file, an onnx.ModelProto, or an nn.Module; never changed.")
    )
    batches: Iterable[Any] = field(
        metadata=argument(
            "Batches, each as ``normswap.statistics.collect.Collection.add`` takes it; labels of a loader are left out."
        )
    )


@dataclass(frozen=True, kw_only=True)
class Recalibrating(RecalibrationOptions, _ModelAndData):
    """Arguments of ``normswap.recalibrate``."""
