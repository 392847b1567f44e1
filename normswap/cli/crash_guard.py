"""Crash guard: a runtime that crashes becomes one sentence and an exit code, like all other trouble.

A model is a program, and some models, damaged or not, make a runtime end its own process. The work is therefore done
by a child process, which shares the terminal and the signals of its parent. The fork comes before any framework is
loaded and costs milliseconds.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

import click

from normswap.reports.outcome import TROUBLE

__all__ = ["exit_guarded"]


def exit_guarded(work: Callable[[], int]) -> NoReturn:
    """Do ``work`` in a child process and exit with what it returns, or with 2 and a sentence if a signal ended it.

    On systems other than Linux, and where threads are running, which do not survive a fork, ``work`` is done here.
    """
    if sys.platform != "linux" or threading.active_count() > 1:
        sys.exit(work())
    ours, theirs = os.pipe()  # nothing is ever written to it; it closes when this process ends, in whatever way
    child = os.fork()
    if not child:
        os.close(theirs)
        _prepare(ours)
        code = work()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt after Python removed its handlers would kill
        sys.exit(code)
    os.close(ours)
    # From a terminal the child gets the interrupt too; it acts on the first one only.
    signal.signal(signal.SIGINT, lambda number, frame: os.kill(child, number))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status < 0:
        click.echo(f"normswap: {_reason(-status)}; no file was left half-written", err=True)
    os._exit(status if status >= 0 else TROUBLE)  # Python's own cleaning takes time and cleans nothing here


def _prepare(parent: int) -> None:
    """Have this process end with its parent, and take one interrupt alone: a second one would leave files behind."""
    seen: list[int] = []

    def interrupted(number: int, _: FrameType | None) -> None:
        seen.append(number)
        if len(seen) == 1:
            raise KeyboardInterrupt

    def ends_with_parent() -> None:
        os.read(parent, 1)
        os.kill(os.getpid(), signal.SIGKILL)

    signal.signal(signal.SIGINT, interrupted)
    threading.Thread(target=ends_with_parent, daemon=True).start()


def _reason(number: int) -> str:
    name = signal.Signals(number).name
    if number == signal.SIGKILL:
        return f"the work was ended by {name}, as the system does when memory runs out; give smaller inputs"
    return (
        f"the work was ended by {name}: a runtime crashed on this model, because of a bug in the runtime or a model "
        "made to crash it; --no-end-to-end runs less of the model"
    )
