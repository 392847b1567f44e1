"""What the algebra raises within itself; a caller sees readings and reasons."""

from __future__ import annotations

__all__ = ["AxisSplitError", "TooLargeError", "UnreadableError"]


class UnreadableError(Exception):
    """A value has no expression, for the reason that the message gives."""


class TooLargeError(UnreadableError):
    """An expression or a search outgrew its bound, so that nothing is known of the value."""


class AxisSplitError(Exception):
    """A Reshape cuts an axis in two: the reading begins again with the axis split.

    Attributes:
        axis: The axis.
        lengths: Lengths of its two parts, the outer one first.
    """

    def __init__(self, axis: str, lengths: tuple[int, int]) -> None:
        super().__init__(f"axis {axis} is split into {lengths[0]} x {lengths[1]}")
        self.axis = axis
        self.lengths = lengths
