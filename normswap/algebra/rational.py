"""Exact roots of rational numbers."""

from __future__ import annotations

import math
from fractions import Fraction

__all__ = ["rational_root"]


def rational_root(value: Fraction) -> Fraction | None:
    """Return the square root of a positive number where it is rational, else None."""
    if value <= 0:
        return None
    up, down = math.isqrt(value.numerator), math.isqrt(value.denominator)
    return Fraction(up, down) if up * up == value.numerator and down * down == value.denominator else None
