"""A run that is killed at any moment leaves the old file or the whole new one, and the next run tidies up after it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from support.models.small_models import built

from normswap.backends.torch.checkpoint import read_checkpoint, write_checkpoint
from normswap.files import folder_beside

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")

# Loads the frameworks once; every line that it is given is then run by a process of its own, which a test can kill.
SERVER = """
import os, sys
import onnx, onnxruntime
if sys.argv[1] == "torch":
    import safetensors.torch, torch
from normswap.cli import main
for line in sys.stdin:
    child = os.fork()
    if not child:
        sys.stdout = open(os.devnull, "w")
        os._exit(main(line.split()))
    print(child, flush=True)
    sys.stdin.readline()  # it is not reaped before, so that its number stays its own
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


# Is killed as it puts a file in its place, at the one that it is told.
KILLED = """
import os, sys
from normswap.cli import main
rename, done = os.replace, []
def killed(source, target):
    done.append(target)
    if len(done) == int(sys.argv[1]):
        os.kill(os.getpid(), 9)
    rename(source, target)
os.replace = killed
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Server:
    """Runs command lines in processes that are ready at once."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(self, command: str) -> int:
        """Start a command and return the number of its process."""
        self._say(command)
        return int(self._line())

    def end(self) -> int:
        """Wait for the command; return its exit code, or the negative of the signal that ended it."""
        self._say("")
        return int(self._line())

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def serving(what: str) -> Iterator[Server]:
    command = [sys.executable, "-c", SERVER, what]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Server(process)
        finally:
            process.kill()


def asides() -> list[Path]:
    """What a run writes in before it renames."""
    return list(Path().glob(".normswap-*"))


def writing_lasts(server: Server, command: str, code: int) -> float:
    """Run to the end, and measure how long there is something on its way to the output."""
    server.start(command)
    began = awaited()
    while asides():
        time.sleep(0.0005)
    lasted = time.monotonic() - began
    assert server.end() == code
    return lasted


def awaited() -> float:
    deadline = time.monotonic() + 60
    while not asides():
        assert time.monotonic() < deadline, "nothing was written"
        time.sleep(0.0005)
    return time.monotonic()


def kill_while_writing(
    server: Server,
    command: str,
    kills: int,
    restore: Callable[[], object],
    check: Callable[[], None],
    *,
    nearly_done: Callable[[], bool] = lambda: True,
    code: int = 0,
) -> int:
    """Kill the command at moments spread over its writing, the last third of them at its end.

    Args:
        server: Runs it.
        command: Which writes a file.
        kills: How often, at the least.
        restore: Puts the old file there.
        check: Looks at what there is afterwards.
        nearly_done: Whether all is written, and is being put in its place.
        code: What the command returns.

    Returns:
        How many of the kills fell into the writing: something was on its way to the output.
    """
    restore()
    lasts = min(writing_lasts(server, command, code) for _ in range(3))
    inside = made = 0
    rng = random.Random(0)
    for number in range(3 * kills):  # on a busy machine more miss the writing, and more are made
        if number >= kills and inside > kills // 2:
            break
        made += 1
        restore()
        child = server.start(command)
        awaited()
        at_its_end = kills * 2 // 3 <= number < kills
        if not at_its_end:
            moment = lasts * ((number + rng.random()) / (kills * 2 // 3) % 1)
            time.sleep(moment)
        else:
            while asides() and not nearly_done():
                pass
            time.sleep(0.001 * rng.random())
        os.kill(child, 9)
        assert server.end() in (-9, code)
        if asides():
            inside += 1
        elif not at_its_end:  # it was done sooner than it was when that was measured
            lasts = min(lasts, 0.9 * moment)
        check()
    sys.stdout.write(f"{inside} of {made} kills fell into the writing\n")  # which pytest -rP shows
    return inside


def write_model(inside: bool) -> None:
    """Write a model with some tens of megabytes in the file, or beside it."""
    steps = ["x", *(f"v{index}" for index in range(3)), "y"]
    nodes = "\n".join(f"{y} = BatchNormalization ({x}, s, s, s, s)" for x, y in pairwise(steps))
    model = built(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        large (float[N, 4, 8, 8] x) => (float[N, 4, 8, 8] y) <float[4] s> {{ {nodes} }}"""
    )
    values = np.random.default_rng(0).bytes(16 << 20)
    for index in range(2):
        tensor = model.graph.initializer.add(name=f"large{index}", data_type=onnx.TensorProto.UINT8, dims=[len(values)])
        tensor.raw_data = values
    onnx.save(model, "model.onnx", save_as_external_data=not inside, location="model.data", size_threshold=1024)


def stored(path: str) -> list[bytes]:
    """The tensors of a model, external ones from their file, all of which has to be there, and its operators."""
    model = onnx.load(path)
    return [*(tensor.raw_data for tensor in model.graph.initializer), *(n.op_type.encode() for n in model.graph.node)]


@pytest.mark.parametrize("inside", [True, False], ids=["one file", "external data"])
def test_a_killed_conversion_leaves_the_old_model_or_the_new_one(inside: bool) -> None:
    write_model(inside)
    with serving("onnx") as server:
        wanted = {}
        for target in ("batch-stat", "instance"):
            server.start(f"convert model.onnx --to {target} -o {target}.onnx --no-end-to-end")
            assert server.end() == 0
            wanted[target] = stored(f"{target}.onnx")
        found = []

        def restore() -> None:
            """Put the old model there, with data of its own, and notice that what a killed run has left is gone."""
            for path in Path().glob("out.onnx*"):
                path.unlink()
            server.start("convert model.onnx --to batch-stat -o out.onnx --no-end-to-end")
            assert server.end() == 0
            assert not asides()

        def check() -> None:
            read = stored("out.onnx")
            found.append(next((target for target, tensors in wanted.items() if read == tensors), "neither"))

        size = sum(len(tensor) for tensor in wanted["instance"])

        def nearly_done() -> bool:
            """The new model is written whole, or its data have their place already."""
            if not inside:
                return len(list(Path().glob("out.onnx*.data"))) > 1
            with suppress(FileNotFoundError):  # it has gone where it belongs
                return any((folder / "out.onnx").stat().st_size >= size for folder in asides())
            return False

        command = "convert model.onnx --to instance -o out.onnx --force --no-end-to-end"
        within = kill_while_writing(server, command, 15, restore, check, nearly_done=nearly_done)
    assert set(found) <= {"batch-stat", "instance"}
    assert within >= 8, f"only {within} of 15 kills fell into the writing"


@pytest.mark.parametrize("moment", [1, 2])
def test_a_kill_between_the_model_and_its_data_leaves_the_old_model(moment: int) -> None:
    write_model(inside=False)
    command = "convert model.onnx --force --no-end-to-end -o out.onnx"
    ended = []
    for number, target in ((0, "batch-stat"), (moment, "instance")):
        argv = [sys.executable, "-c", KILLED, str(number), *command.split(), "--to", target]
        ended.append(subprocess.run(argv, stdout=subprocess.DEVNULL).returncode)
        if not number:
            old = stored("out.onnx")
    assert ended == [0, -9]
    assert stored("out.onnx") == old


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_killed_conversion_leaves_the_old_checkpoint_or_the_new_one(suffix: str) -> None:
    state = torch.nn.BatchNorm2d(3).state_dict() | {"large": torch.rand(12 << 20)}
    write_checkpoint(state, Path(f"old{suffix}"))

    def restore() -> None:
        Path(f"out{suffix}").write_text("old")

    def check() -> None:
        if Path(f"out{suffix}").stat().st_size > 3:
            found = read_checkpoint(f"out{suffix}")
            assert found.keys() == {"weight", "bias", "large"}
            assert torch.equal(found["large"], state["large"])

    command = f"convert old{suffix} --to instance -o out{suffix} --force"
    with serving("torch") as server:
        within = kill_while_writing(server, command, 7, restore, check)
    assert within >= 4, f"only {within} of 7 kills fell into the writing"


def test_a_killed_verification_leaves_the_old_report_or_the_new_one() -> None:
    """Of six thousand differences, so that the writing takes a while."""
    names = [f"layer{index}.weight" for index in range(6_000)]
    for name, value in (("one", 0.0), ("two", 1.0)):
        state = torch.nn.BatchNorm2d(3).state_dict() | {name: torch.tensor(value) for name in names}
        write_checkpoint(state, Path(f"{name}.pth"))

    def check() -> None:
        report = Path("report.json").read_text()
        assert report == "old" or len(json.loads(report)["outcomes"][0]["report"]["checks"]) >= len(names)

    with serving("torch") as server:
        command = "verify one.pth two.pth --to instance --report report.json"
        within = kill_while_writing(server, command, 6, lambda: Path("report.json").write_text("old"), check, code=1)
    assert within >= 2, f"only {within} of 6 kills fell into the writing"


def test_what_a_living_run_writes_in_is_left_alone(folder: Path) -> None:
    with folder_beside(folder / "out.onnx") as first, folder_beside(folder / "out.onnx") as second:
        assert Path(first).is_dir()
        assert Path(second).is_dir()
    (folder / ".normswap-abcd1234").mkdir()
    (folder / ".normswap-abcd1234" / "out.onnx").write_text("half")
    (folder / ".normswap-of-mine").mkdir()
    with folder_beside(folder / "out.onnx"):
        assert not (folder / ".normswap-abcd1234").exists()
    assert [path.name for path in asides()] == [".normswap-of-mine"]
