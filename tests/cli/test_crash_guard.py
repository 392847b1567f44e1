"""A crash of what runs a model is one sentence and exit code 2; everything else is as if there were no guard."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from support.models.small_models import ONE_LAYER, built, tree

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")

NET = {  # what happens as soon as the user's own code is run
    "crash": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "wait": "import time; open('waiting', 'w').close(); time.sleep(100)",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def started(command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "normswap", *command.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def in_the_middle(act: str) -> subprocess.Popen[str]:
    """Start a conversion that comes to something of NET."""
    Path("net.py").write_text(NET[act])
    Path("out.pth").write_text("old")
    return started("convert net:Net --to instance -o out.pth --force --shape x=2x3x4x4")


def children(process: subprocess.Popen[str]) -> list[int]:
    return [int(n) for n in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def waiting(process: subprocess.Popen[str]) -> int:
    """Wait until the work is under way, and return the process that does it."""
    deadline = time.monotonic() + 60
    while not Path("waiting").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    (child,) = children(process)
    return child


def test_a_crash_is_one_sentence() -> None:
    process = in_the_middle("crash")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("normswap: the work was ended by SIGSEGV: a runtime crashed on this model")
    assert len(err.splitlines()) == 1
    assert Path("out.pth").read_text() == "old"


def test_the_runtime_itself_is_kept_from_taking_the_report_along() -> None:
    """ONNX Runtime 1.32 takes a training BatchNormalization whose further outputs have no names, and crashes."""
    model = built(ONE_LAYER)
    node = model.graph.node[1]
    node.attribute.append(onnx.helper.make_attribute("training_mode", 1))
    node.output.extend(["", ""])
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "model.onnx")
    process = started("verify model.onnx model.onnx --to instance")
    out, err = process.communicate(timeout=60)
    ended = "SIGSEGV" in err and process.returncode == 2
    assert ended or process.returncode == 1, (out, err)  # 1 once the runtime is mended: the layer was left as it was


@pytest.mark.parametrize("code", [0, 1, 2])
def test_exit_codes_and_output_pass_through(code: int) -> None:
    onnx.save(built(ONE_LAYER), "good.onnx")
    command = {0: "inspect good.onnx", 1: "verify good.onnx good.onnx --to instance", 2: "inspect lost.onnx"}[code]
    process = started(command)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert bool(out) == (code != 2) and bool(err) == (code == 2)


@pytest.mark.parametrize("whole_group", [False, True], ids=["by its number", "from a terminal"])
def test_an_interrupt_reaches_the_work_once(whole_group: bool, folder: Path) -> None:
    process = in_the_middle("wait")
    child = waiting(process)
    before = tree(folder)
    if whole_group:  # the terminal tells every process of the group, and the first of them tells the second again
        os.kill(child, signal.SIGINT)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.strip()) == (130, "normswap: interrupted; no file was left half-written")
    assert tree(folder) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_work_ends_with_the_process_that_people_see(number: signal.Signals) -> None:
    process = in_the_middle("wait")
    child = waiting(process)
    process.send_signal(number)
    assert process.wait(timeout=60) == -number
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline, "the work goes on without anybody to report to"
        time.sleep(0.01)
    process.communicate()
    assert Path("out.pth").read_text() == "old"
