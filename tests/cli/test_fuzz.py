"""Damaged files, a few seconds' worth of them in processes of their own, and that no broken promise goes unnoticed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from support import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts memory and processor time as Linux tells them")


def environment() -> dict[str, str]:
    path = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    """Run the fuzzer as by hand: it forks, which this process, with the runtimes' threads in it, must not."""
    return subprocess.run(
        [sys.executable, "-m", "support.hostile.fuzz", *argv], capture_output=True, text=True, env=environment()
    )


@pytest.mark.slow
def test_damaged_files_break_no_promise(tmp_path: Path) -> None:
    wanted = {"inspect 0", "convert 0", "verify 0", "verify 1", "convert 2"}
    codes: set[str] = set()
    # What hypothesis draws from a seed changes with its version and with our code, and few cases end in "verify 0".
    for seed in range(5):
        done = run("--cases", "100", "--seed", str(seed), "--keep", str(tmp_path / f"failed {seed}"))
        figures = json.loads(done.stdout)
        assert figures["failures"] == {}, done.stderr
        assert figures["cases"] == 100
        codes |= figures["codes"].keys()
        if wanted <= codes:
            break
    assert wanted <= codes


INSPECT, CONVERT = "inspect bad.onnx", "convert bad.onnx --to instance -o out.onnx"
WRITE = "open('out.onnx', 'w').close()"
BROKEN = {  # what is done in normswap's place, and what is to be said of it
    "crashes": (INSPECT, "os.kill(os.getpid(), 11)", "crash: SIGSEGV"),
    "never ends": (INSPECT, "while True: pass", "hang"),
    "waits for ever": (INSPECT, "time.sleep(100)", "hang"),
    "raises": (INSPECT, "raise IndexError('of no use')", "traceback: IndexError: of no use"),
    "has an internal error": (
        INSPECT,
        "sys.stderr.write('normswap: internal error, x\\n'); code = 2",
        "internal error",
    ),
    "ends oddly": (INSPECT, "code = 3", "exit code 3"),
    "says nothing": (INSPECT, "code = 2", "trouble is not one line"),
    "says two things": (INSPECT, "sys.stderr.write('normswap: x\\ny\\n'); code = 2", "trouble is not one line"),
    "passes on a warning": (INSPECT, "warnings.warn('overflow')", "noise: "),
    "prints aside": (INSPECT, "sys.stderr.write('loaded\\n')", "noise: "),
    "writes beside": (INSPECT, "open('more.onnx', 'w').close()", "stray file: work/more.onnx"),
    "leaves litter": (INSPECT, "tempfile.mkstemp()", "stray file: temp/"),
    "changes its input": (INSPECT, "open('bad.onnx', 'a').write('x')", "stray file: work/bad.onnx"),
    "removes its input": (INSPECT, "os.remove('bad.onnx')", "stray file: work/bad.onnx"),
    "writes a neighbour's": (INSPECT, "open('../other/secret.data', 'w').close()", "stray file: other/secret.data"),
    "writes elsewhere": (INSPECT, "open(elsewhere, 'w').close()", "stray write: open "),
    "makes a folder": (INSPECT, "os.mkdir(elsewhere + 's')", "stray write: os.mkdir "),
    "writes what fails": (CONVERT, f"{WRITE}; code = 1", "stray file: work/out.onnx"),
    "writes nothing": (CONVERT, "pass", "exit code 0, and the output is missing"),
    "takes much": (INSPECT, "memory = b'x' * (1200 << 20)", "memory: "),
    "takes too much": (INSPECT, "memory = b'x' * (3 << 30)", "traceback: MemoryError"),
    "keeps its word, inspect": (INSPECT, "pass", ""),
    "keeps its word, convert": (CONVERT, WRITE, ""),
    "keeps its word, trouble": (CONVERT, "sys.stderr.write('normswap: x\\n'); code = 2", ""),
}
JUDGE = """
import json, os, sys, tempfile, time, warnings
from pathlib import Path
from support.hostile import promises
promises.SECONDS, promises.PATIENCE = 4, 8
for argv, done, _ in json.load(sys.stdin):
    def run(argv):
        space = {**globals(), "code": 0, "elsewhere": "../../elsewhere"}
        exec(done, space)
        return space["code"]
    case = promises.Case(tuple(argv.split()), {"bad.onnx": b""})
    print(json.dumps(promises.trouble_with(case, promises.perform(case, Path("case"), run))))
"""


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """What the fuzzer says of each of BROKEN."""
    done = subprocess.run(
        [sys.executable, "-c", JUDGE],
        input=json.dumps(list(BROKEN.values())),
        capture_output=True,
        text=True,
        cwd=tmp_path_factory.mktemp("judged"),
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(BROKEN, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_noticed(name: str, judged: Mapping[str, str]) -> None:
    _, _, says = BROKEN[name]
    assert says in judged[name]
    assert bool(says) == bool(judged[name])
