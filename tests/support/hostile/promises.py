"""What normswap promises whatever it is given, and how a case is held to it: in a process of its own.

A crash is seen as the signal that it is, a hang is ended, and memory is counted by case. The process is forked from
the caller's, which must therefore have run no model before, and may have the frameworks loaded.
"""

from __future__ import annotations

import io
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from support.models.small_models import tree

__all__ = ["CRASHED", "MEGABYTES", "PATIENCE", "SECONDS", "Case", "Ended", "perform", "trouble_with"]

SECONDS = 30  # of processor time that a case may take; other work on the machine is none of its own
PATIENCE = 10  # times as long by the clock, which is for what waits and does nothing
MEGABYTES = 2048  # of data that it may have, beyond what it starts with
CRASHED = "the work was ended by SIG"  # in the sentence that a crash of a runtime becomes

_INSPECT_MEGABYTES = 1024  # that may be resident where hardly anything is run, the frameworks' own 300 with it
_CHANGES = {  # event that Python audits -> how many of its arguments are paths that it changes
    "os.remove": 1,
    "os.rename": 2,
    "os.mkdir": 1,
    "os.rmdir": 1,
    "os.link": 2,
    "os.symlink": 2,
    "os.truncate": 1,
}


@dataclass(frozen=True)
class Case:
    """A command and the files that it is given, by their names below the folder that it runs in."""

    argv: tuple[str, ...]
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class Ended:
    """How a case ended.

    Attributes:
        code: Exit code; the negative of the signal that ended it.
        out: What it wrote to standard output.
        err: What it wrote to standard error.
        seconds: How much processor time it took.
        megabytes: The most memory that it had resident.
        before: The files that there were when it started.
        after: The files that there were when it had ended.
        strays: What it opened for writing, removed or renamed outside of its folder.
    """

    code: int
    out: str
    err: str
    seconds: float
    megabytes: float
    before: Mapping[str, bytes | None]
    after: Mapping[str, bytes | None]
    strays: Sequence[str]


def trouble_with(case: Case, ended: Ended) -> str:
    """Say which promise a case broke, or nothing."""
    if ended.code in (-signal.SIGKILL, -signal.SIGXCPU) or "SIGXCPU" in ended.err:
        return f"hang: not done after {SECONDS} seconds"
    if ended.code < 0:
        return f"crash: {signal.Signals(-ended.code).name}"
    if "Traceback (most recent call last)" in ended.out + ended.err:
        ours = re.findall(r'File "[^"]*/(normswap/[^"]+)", line (\d+), in (\w+)', ended.err) or [("", "", "")]
        return f"traceback: {ended.err.strip().splitlines()[-1][:200]} at {':'.join(ours[-1])}"
    if "internal error" in ended.err:
        return f"internal error: {ended.err.strip()[:300]}"
    if ended.code not in (0, 1, 2):
        return f"exit code {ended.code}"
    lines = ended.err.splitlines()
    if len(lines) != 1 if ended.code == 2 else len(lines) > 1:
        return f"trouble is not one line: {ended.err[:300]!r}"
    if not all(line.startswith("normswap: ") for line in lines):
        return f"noise: {ended.err[:300]!r}"
    if ended.strays:
        return f"stray write: {ended.strays[0]}"
    output = case.argv[case.argv.index("-o") + 1] if "-o" in case.argv else None
    allowed = {f"work/{output}", f"work/{output}.data"} if output and ended.code == 0 else set()
    names = ended.before.keys() | ended.after.keys()
    changed = {name for name in names if ended.before.get(name, "none") != ended.after.get(name, "none")}
    if CRASHED in ended.err:  # nobody is left to tidy up
        allowed |= {name for name in changed if name.startswith(("temp/normswap-", "work/.normswap-"))}
    if changed - allowed:
        return f"stray file: {sorted(changed - allowed)[0]}"
    if output and (f"work/{output}" in ended.after) != (ended.code == 0):
        return f"exit code {ended.code}, and the output is {'there' if f'work/{output}' in ended.after else 'missing'}"
    if case.argv[0] == "inspect" and ended.megabytes > _INSPECT_MEGABYTES:
        return f"memory: {ended.megabytes:.0f} MB to look at {sum(map(len, case.files.values()))} bytes"
    return ""


# A case as a process.


def perform(case: Case, folder: Path, run: Callable[[Sequence[str]], int] | None = None) -> Ended:
    """Run a case in a new process below ``folder``, which is emptied.

    Args:
        case: What to run.
        folder: Where; its files are in ``work`` below it.
        run: In place of normswap's own command line.
    """
    folder = folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("work/sub", "other", "temp"):
        (folder / name).mkdir(parents=True)
    (folder / "other" / "secret.data").write_bytes(bytes(4096))
    for name, content in case.files.items():
        (folder / "work" / name).write_bytes(content)
    before = tree(folder)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as strays:
        start = time.monotonic()
        child = os.fork()
        if not child:
            _be(case, folder, (out.fileno(), err.fileno(), strays.fileno()), run)
        status, usage = _waited(child, start + PATIENCE * SECONDS)
        seconds = usage.ru_utime + usage.ru_stime
        said = [_read(file) for file in (out, err, strays)]
    return Ended(
        os.waitstatus_to_exitcode(status),
        said[0],
        said[1],
        seconds,
        usage.ru_maxrss / 1024,
        before,
        tree(folder),
        said[2].splitlines(),
    )


def _waited(child: int, deadline: float) -> tuple[int, resource.struct_rusage]:
    pause = 0.001
    while time.monotonic() < deadline:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            return status, usage
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
    os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    return status, usage


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return str(file.read(1 << 20).decode(errors="replace"))


def _status(name: str) -> int:
    """A line of the process's own status, in kilobytes."""
    return int(re.findall(rf"^{name}:\s+(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)[0])


def _be(case: Case, folder: Path, files: tuple[int, int, int], run: Callable[[Sequence[str]], int] | None) -> None:
    """Become the process of a case; never returns."""
    code = 111
    try:
        os.chdir(folder / "work")
        os.environ.update(TMPDIR=str(folder / "temp"), NORMSWAP_TRACEBACK="1", NORMSWAP_TIME_LIMIT="5", COLUMNS="200")
        tempfile.tempdir = None
        for number, file in enumerate(files[:2], 1):
            os.dup2(file, number)
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w"), write_through=True)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w"), write_through=True)
        sys.path.insert(0, str(folder / "work"))
        limit = (_status("VmData") + MEGABYTES * 1024) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _watch_writes(folder, files[2])
        code = _as_a_user(case.argv) if run is None else run(case.argv)
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _as_a_user(argv: Sequence[str]) -> NoReturn:
    """Do what the console script does."""
    from normswap.cli import main
    from normswap.cli.crash_guard import exit_guarded

    exit_guarded(lambda: main(argv))


def _watch_writes(folder: Path, report: int) -> None:
    """Note every file outside of a folder that Python opens for writing, removes or renames."""
    inside = str(folder) + os.sep

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            paths = [path] if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) else []
        else:
            paths = list(arguments[: _CHANGES.get(event, 0)])
        for path in paths:
            if isinstance(path, int) or path in ("/dev/null", b"/dev/null"):
                continue
            where = os.path.realpath(os.fsdecode(path))
            if not where.startswith(inside):
                os.write(report, f"{event} {where}\n".encode(errors="replace"))

    sys.addaudithook(hook)
