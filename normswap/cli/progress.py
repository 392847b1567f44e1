"""The bar that shows how far a command is."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from normswap.cli.output import is_terminal
from normswap.report import Progress

__all__ = ["ProgressBar"]


class ProgressBar:
    """A context that shows progress on a terminal, once the work has taken a second.

    For each stage it shows how much is done, how much per second, and how much time remains.
    """

    def __enter__(self) -> Progress:
        self._start = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        self._stage = ""
        return self._show

    def _show(self, stage: str, done: int, total: int) -> None:
        if not is_terminal(sys.stderr) or time.monotonic() - self._start < 1:
            return
        if self._bar is None:
            self._bar = _bar()
            self._bar.start()
        if stage != self._stage:  # with its own speed and total
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task, self._stage = self._bar.add_task(stage, total=total or None), stage
        self._bar.update(self._task, completed=done, total=total or None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """How much is done per second."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.3g}/s", style="progress.data.speed")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
