"""The options of a diagnosis, declared once for Python and the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from normswap.diagnosis.measures import ErrorOf
from normswap.options import Images, argument, option
from normswap.report import Progress

__all__ = ["Diagnosing"]


@dataclass(frozen=True)
class _ModelAndData:
    model: Any = field(
        metadata=argument("The model: path of an .onnx file, an onnx.ModelProto, or an nn.Module; never changed.")
    )
    data: Any = field(
        metadata=argument("What ``normswap.data.batches_of`` takes: files, folders, arrays, or a loader of batches.")
    )


@dataclass(frozen=True, kw_only=True)
class Diagnosing(Images, _ModelAndData):
    """Arguments of ``normswap.diagnose``."""

    targets: Any = option(
        None,
        "What the outputs should be; if not given, the outputs of train mode are the targets.",
        "path",
        metavar="DATA",
    )
    error: str | ErrorOf = option(
        "l1",
        "How the error of an output is measured.",
        "measure",
        python=(
            "It is ``l1``, ``psnr``, or a function of (output, target), shape (N, ...) each, that returns an error of "
            "0 or more for each sample, shape (N,); smaller is better."
        ),
    )
    batch_size: int | Sequence[int] | None = option(
        None,
        "Number of samples for batch statistics.",
        "counts",
        python=(
            "It may also be several such numbers, to compare them. By default it is what the model dictates, what a "
            "loader gives, or 8. One sample at a time is what ``instance`` stands for."
        ),
    )
    progress: Progress | None = option(
        None, "Called with (stage, samples, total) as the work goes on; the total is 0 where it is not known."
    )
