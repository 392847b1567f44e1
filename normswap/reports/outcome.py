"""Outcome: how one pair of models came out, whatever was asked of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a Report is worded by this room, which knows it by its shape alone
    from normswap.report import Report

__all__ = ["DIFFERENT", "EQUAL", "INTERRUPTED", "TROUBLE", "Outcome", "worst"]

EQUAL, DIFFERENT, TROUBLE = 0, 1, 2  # exit codes, as diff(1) has them
INTERRUPTED = 130  # as shells have it


@dataclass(frozen=True)
class Outcome:
    """One pair of models held to a target: what a command was given, or one entry of a settings file.

    Attributes:
        name: What people call the pair.
        before: The original, as it was named: a file, or package.module:factory.
        after: What claims to be its conversion, or the file that one was to be written to.
        to: Name of the target.
        report: What was compared; None where it did not come to that.
        trouble: Why it did not, one sentence.
        written: The file that a conversion was written to; None where nothing was written.
    """

    name: str
    before: str
    after: str
    to: str
    report: Report | None = None
    trouble: str = ""
    written: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the pair was shown equal."""
        return self.report is not None and self.report.ok

    @property
    def exit_code(self) -> int:
        """0 equal, 1 different, 2 trouble."""
        if self.report is None:
            return TROUBLE
        return EQUAL if self.report.ok else DIFFERENT

    @property
    def verdict(self) -> str:
        """The end of it in one phrase."""
        return self.trouble if self.report is None else self.report.verdict


def worst(outcomes: Sequence[Outcome]) -> int:
    """Return the exit code of several outcomes together: that of the worst; trouble if there are none."""
    return max((outcome.exit_code for outcome in outcomes), default=TROUBLE)
