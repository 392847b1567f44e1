"""Guard: what crashes a runtime becomes one sentence and an exit code, like everything else that goes wrong.

A model is a program, and there are some, damaged or not, on which a runtime ends the process that it runs in. The work
is therefore done by a child process, which shares the terminal, and the signals, of the one that people see. It is
forked before any framework is loaded, which costs milliseconds.
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

    On other systems than Linux, and where threads are running, which do not survive a fork, ``work`` is done here.
    """
    if sys.platform != "linux" or threading.active_count() > 1:
        sys.exit(work())
    ours, theirs = os.pipe()  # nothing is ever written to it; it ends when this process does, however that comes
    child = os.fork()
    if not child:
        os.close(theirs)
        _prepare(ours)
        code = work()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Python puts handlers away as it ends, and what comes then kills
        sys.exit(code)
    os.close(ours)
    # From a terminal the child has the interrupt too; what it hears twice it heeds once.
    signal.signal(signal.SIGINT, lambda number, frame: os.kill(child, number))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status < 0:
        click.echo(f"normswap: {_told(-status)}; no file was left half-written", err=True)
    os._exit(status if status >= 0 else TROUBLE)  # there is nothing here to tidy up, which takes Python a while


def _prepare(parent: int) -> None:
    """Have this process end with its parent, and be interrupted once: an interrupt while cleaning up leaves litter."""
    heard: list[int] = []

    def interrupted(number: int, _: FrameType | None) -> None:
        heard.append(number)
        if len(heard) == 1:
            raise KeyboardInterrupt

    def ends_with_parent() -> None:
        os.read(parent, 1)
        os.kill(os.getpid(), signal.SIGKILL)

    signal.signal(signal.SIGINT, interrupted)
    threading.Thread(target=ends_with_parent, daemon=True).start()


def _told(number: int) -> str:
    name = signal.Signals(number).name
    if number == signal.SIGKILL:
        return f"the work was ended by {name}, as the system does where memory runs out; give smaller inputs"
    return (
        f"the work was ended by {name}: a runtime crashed on this model, which is a bug of that runtime, or a model "
        "made to do so; --no-end-to-end runs less of it"
    )
