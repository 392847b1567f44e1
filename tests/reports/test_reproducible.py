"""The same files and seed give the same report, byte for byte but for its time stamp, in every format and process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from support import ROOT
from support.models.small_models import built

from normswap.backends.torch.checkpoint import write_checkpoint
from normswap.reports.formats import FORMATS

NET = """
import torch
def net():
    torch.manual_seed(0)
    steps = [torch.nn.Conv2d(3, 24, 3), torch.nn.BatchNorm2d(24), torch.nn.ReLU(), torch.nn.Conv2d(24, 3, 3)]
    return torch.nn.Sequential(*steps).eval()
"""
CIRCLES = """
<ir_version: 8, opset_import: ["" : 17]> g (float[N, 4] x) => (float[N, 4] y) {
  y = Sum (a, b, c, d) a = Neg (e) b = Neg (f) c = Neg (g) d = Neg (h) e = Neg (a) f = Neg (b) g = Neg (c) h = Neg (d) }
"""  # any of four could be the one that is named
COMMANDS = {
    "onnx, different": "verify fixtures/lowlight.onnx fixtures/lowlight.onnx --to instance",
    "onnx, equal": "verify fixtures/lowlight.onnx instance.onnx --to instance",
    "onnx, another seed": "verify fixtures/lowlight.onnx instance.onnx --to instance --seed 7",
    "onnx, converted": "convert fixtures/lowlight.onnx --to batch-stat -o out.onnx --force",
    "onnx, trouble": "verify circles.onnx fixtures/lowlight.onnx --to instance",
    "torch, converted": "convert net:net --to instance -o out.pth --shape input=2x3x16x16 --force",
    "torch, exported": "convert net:net --to batch-stat -o out.onnx --inputs inputs.npz --force",
    "torch and onnx, different": "verify net:net fixtures/lowlight.onnx --to instance",
    "program, different": "verify net.pt2 net.pt2 --to instance",
    "checkpoints": "verify net.pth net.pth --to population",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the commands are given."""
    folder = tmp_path_factory.mktemp("reports")
    (folder / "fixtures").symlink_to(ROOT / "fixtures")
    (folder / "net.py").write_text(NET)
    space: dict[str, object] = {}
    exec(NET, space)
    network = space["net"]()  # type: ignore[operator]  # it is the function above
    torch.export.save(torch.export.export(network, (torch.ones(2, 3, 16, 16),)), folder / "net.pt2")
    write_checkpoint(network.state_dict(), folder / "net.pth")
    np.savez(folder / "inputs.npz", input=np.random.default_rng(0).standard_normal((2, 3, 16, 16), np.float32))
    onnx.save(built(CIRCLES), folder / "circles.onnx")
    reports(folder, "convert fixtures/lowlight.onnx --to instance -o instance.onnx", hash_seed=0)
    return folder


def reports(folder: Path, command: str, *, hash_seed: int, epoch: int = 0) -> Mapping[str, bytes]:
    """Run a command as a process of its own; return its report in every format, and what it printed."""
    place = folder / f"reports{hash_seed}"
    place.mkdir(exist_ok=True)
    files = {name: place / f"report{form.suffix}" for name, form in FORMATS.items() if form.suffix}
    written = [word for file in files.values() for word in ("--report", str(file))]
    printed: dict[str, bytes] = {}
    for name in (name for name, form in FORMATS.items() if not form.suffix):
        done = subprocess.run(
            [sys.executable, "-m", "normswap", *command.split(), "--format", name, *written],
            cwd=folder,
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": str(hash_seed), "SOURCE_DATE_EPOCH": str(epoch)},
        )
        assert b"Traceback" not in done.stderr, done.stderr
        printed |= {name: done.stdout, f"{name}: trouble": done.stderr, f"{name}: exit code": b"%d" % done.returncode}
    return printed | {name: file.read_bytes() for name, file in files.items()}


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, id=name, marks=[pytest.mark.slow] * ("onnx, " not in name))
        for name, command in COMMANDS.items()
    ],
)
def test_two_processes_write_the_same_report(command: str, folder: Path) -> None:
    with ThreadPoolExecutor() as pool:  # side by side, so that each is disturbed
        first, second = pool.map(lambda seed: reports(folder, command, hash_seed=seed), (1, 2))
    assert first.keys() >= FORMATS.keys()
    for name, content in first.items():
        assert content == second[name], f"{name} differs"


def test_another_time_changes_the_time_stamp_alone(folder: Path) -> None:
    command = COMMANDS["checkpoints"]
    early, late = (reports(folder, command, hash_seed=3, epoch=epoch) for epoch in (0, 86400))
    differing = {name for name in early if early[name] != late[name]}
    assert {"json", "junit"} <= differing, "the stamp is in no report"
    for name in differing:
        assert early[name].replace(b"1970-01-01", b"1970-01-02") == late[name], name


def test_another_seed_changes_the_report(folder: Path) -> None:
    """What is compared above could differ."""
    one, other = (
        reports(folder, COMMANDS[name], hash_seed=4)["json"] for name in ("onnx, equal", "onnx, another seed")
    )
    assert one != other
