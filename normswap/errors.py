"""The exceptions that normswap raises; every one is a single sentence that says what to do.

NormswapError
├── ModelReadError          the file is missing, damaged, unsafe, or no model
├── ModelWriteError         the output cannot be written, or must not be
├── SelectionError          an unknown target, or a glob that matches no layer
├── NothingToConvertError   no BatchNorm is left to convert
├── RefusedLayersError      layers that the target cannot take, each with its reason
├── UnsupportedModelError   the model as a whole cannot be handled (its opset cannot be raised, say)
├── ReportError             an unknown report format, or one that needs a package that is not installed
├── CannotRunError          no inputs, or no runtime, with which the model runs
└── TimeLimitError          the model did not come to an end in the time that it has
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from normswap.plan import Refusal

__all__ = [
    "CannotRunError",
    "ModelReadError",
    "ModelWriteError",
    "NormswapError",
    "NothingToConvertError",
    "RefusedLayersError",
    "ReportError",
    "SelectionError",
    "TimeLimitError",
    "UnsupportedModelError",
    "first_line",
]


class NormswapError(Exception):
    """Base of all that normswap raises on purpose."""


class ModelReadError(NormswapError):
    """The file is missing, damaged, points outside its folder, or holds no model."""


class ModelWriteError(NormswapError):
    """The output cannot be written, or writing it would destroy something."""


class SelectionError(NormswapError):
    """An unknown target, or a glob that matches no layer."""


class NothingToConvertError(NormswapError):
    """The selection holds no BatchNorm that the target would change."""


class RefusedLayersError(NormswapError):
    """Some selected layers cannot take the target.

    Attributes:
        refusals: Each refused layer with its reason.
    """

    def __init__(self, refusals: tuple[Refusal, ...]) -> None:
        self.refusals = refusals
        first = refusals[0]
        more = f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else ""
        super().__init__(
            f"{first.layer.name}: {first.reason}{more}; "
            "leave such layers as they are with --allow-refusals, or name them with --skip"
        )


class UnsupportedModelError(NormswapError):
    """The model as a whole cannot be handled."""


class ReportError(NormswapError):
    """An unknown report format, or one that needs a package that is not installed."""


class CannotRunError(NormswapError):
    """The model does not run: no usable inputs, or an operator that the runtime lacks."""


class TimeLimitError(NormswapError):
    """A run of the model was ended, since it took longer than NORMSWAP_TIME_LIMIT says."""


def first_line(error: BaseException, otherwise: str = "no message") -> str:
    """Return the first line of what an error of somebody else's says, shortened, for a sentence of ours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else otherwise)[:400]
