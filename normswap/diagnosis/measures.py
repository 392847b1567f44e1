"""Measures: how wrong each sample's output is against its target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from normswap.errors import CannotRunError, SelectionError
from normswap.layer import Array, Floats
from normswap.words import nearest

__all__ = ["MEASURES", "ErrorOf", "Measure", "flat", "l1", "measure_of", "relative_rms"]

# (output, target), of the same shape (N, ...) -> error of each sample, shape (N,), 0 or more
ErrorOf: TypeAlias = Callable[[Array, Array], Floats]


@dataclass(frozen=True)
class Measure:
    """What errors are measured by.

    Attributes:
        name: As tables are headed.
        of: Gives errors that can be compared by their ratio, the smaller the better.
        shown: What people read instead of them, element by element.
    """

    name: str
    of: ErrorOf
    shown: Callable[[Floats], Floats] = lambda errors: errors

    def errors(self, output: Array, target: Array) -> Floats:
        """Return the error of each sample, shape (N,).

        Raises:
            CannotRunError: If a user's function gives anything else.
        """
        try:
            found = np.asarray(self.of(output, target), np.float64)
        except (TypeError, ValueError) as error:
            raise CannotRunError(f"the error function did not return numbers: {error}") from error
        if found.shape != (len(target),):
            raise CannotRunError(
                f"the error function: expected one number for each sample, shape {(len(target),)}, found {found.shape}"
            )
        return found


def l1(output: Array, target: Array) -> Floats:
    """Mean absolute difference of each sample, in units of the output."""
    return np.asarray(np.abs(flat(output) - flat(target)).mean(axis=1, dtype=np.float64))


def relative_rms(output: Array, target: Array) -> Floats:
    """Root mean square difference of each sample, as a share of the range of its target; PSNR is -20 log10 of it."""
    wanted = flat(target)
    spans = np.maximum(np.ptp(wanted, axis=1).astype(np.float64), np.finfo(np.float64).tiny)
    return np.asarray(np.sqrt(np.square(flat(output) - wanted).mean(axis=1, dtype=np.float64)) / spans)


def _decibels(errors: Floats) -> Floats:
    return -20 * np.log10(np.maximum(errors, 1e-15))


MEASURES: dict[str, Measure] = {"l1": Measure("L1", l1), "psnr": Measure("PSNR, dB", relative_rms, _decibels)}


def measure_of(error: str | ErrorOf) -> Measure:
    """Return the measure of a name, or of a user's function.

    Raises:
        SelectionError: If it is unknown.
    """
    if not isinstance(error, str):
        return Measure("error", error)
    if error not in MEASURES:
        raise SelectionError(f"unknown error {error!r}{nearest(error, MEASURES)}; known are {', '.join(MEASURES)}")
    return MEASURES[error]


def flat(array: Array) -> Array:
    """(N, ...) as (N, L), in float32 or what is wider."""
    values = np.asarray(array).reshape(len(array), -1)
    wide = values.dtype.kind == "f" and values.dtype.itemsize >= np.dtype(np.float32).itemsize
    return values if wide else values.astype(np.float64)
