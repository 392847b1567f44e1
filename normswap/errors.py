"""The exceptions that normswap raises; every one is a single sentence that says what to do.

NormswapError
├── ModelReadError          the file is missing, damaged, unsafe, or no model
├── ModelWriteError         the output cannot be written, or must not be
├── SelectionError          an unknown target, or a glob that matches no layer
├── NothingToConvertError   no BatchNorm is left to convert
├── RefusedLayersError      layers that the target cannot take, each with its reason
├── UnsupportedModelError   the model as a whole cannot be handled (for example, its opset cannot be raised)
├── ReportError             a report cannot be made: its format, its name, or a package that it needs
├── SettingsError           no settings file, or a key or value in it is wrong
├── DataError               data are missing, damaged, or not what the model takes
├── CannotRunError          the model does not run: no usable inputs, or no runtime that takes it
└── TimeLimitError          a run of the model took longer than it may
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from normswap.layer import Refusal

__all__ = [
    "CannotRunError",
    "DataError",
    "ModelReadError",
    "ModelWriteError",
    "NormswapError",
    "NothingToConvertError",
    "RefusedLayersError",
    "ReportError",
    "SelectionError",
    "SettingsError",
    "TimeLimitError",
    "UnsupportedModelError",
    "first_line",
    "sentence_of",
]


class NormswapError(Exception):
    """Base of everything that normswap raises on purpose."""


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
    """A report cannot be made: an unknown format, a package that it needs, a name that is given twice."""


class SettingsError(NormswapError):
    """No settings file was found, or one of its keys or values is wrong."""


class DataError(NormswapError):
    """Data to run a model on are missing, damaged, or not what the model takes."""


class CannotRunError(NormswapError):
    """The model does not run: no usable inputs, or an operator that the runtime lacks."""


class TimeLimitError(NormswapError):
    """A run of the model was ended because it took longer than NORMSWAP_TIME_LIMIT."""


def sentence_of(error: Exception) -> str:
    """Describe an error in one sentence, whoever raised it.

    Raises:
        Exception: The error itself, if it is a bug and its traceback was asked for by NORMSWAP_TRACEBACK.
    """
    if isinstance(error, NormswapError):
        return str(error)
    if isinstance(error, MemoryError | OSError):  # a full disk or memory is not a bug of normswap
        return f"{type(error).__name__}: {error}"
    if os.environ.get("NORMSWAP_TRACEBACK"):
        raise error
    return (
        f"internal error, {type(error).__name__}: {error}; "
        "this is a bug: please report it with the output of the same command under NORMSWAP_TRACEBACK=1"
    )


def first_line(error: BaseException, otherwise: str = "no message") -> str:
    """Return the first line of a foreign error's message, shortened, to be part of a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else otherwise)[:400]
