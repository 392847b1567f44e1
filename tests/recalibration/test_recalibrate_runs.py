"""normswap recalibrate: exit codes and files, shares of data in several processes and runs, and refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file
from support import ROOT, Refused
from support.models.small_models import ONE_LAYER, built

import normswap
from normswap.backends.torch.checkpoint import read_checkpoint
from normswap.cli import main
from normswap.layer import Array
from normswap.recalibration.collecting import Seen
from normswap.recalibration.processes import share_of
from normswap.recalibration.shards import Shard, read_shard, write_shard
from normswap.statistics.moments import Moments

FACTORY = ("fixtures.lowlight:Generator", "--weights", "fixtures/lowlight.safetensors")
DATA = ("--inputs", "fixtures/lowlight_images.npz", "--batch-size", "3")  # 6 batches, the last of one sample
LAYERS = 9


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of its own that holds the fixtures and one small model."""
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    onnx.save(built(ONE_LAYER), "model.onnx")
    np.savez("data.npz", x=np.random.default_rng(0).standard_normal((10, 3, 8, 8)).astype(np.float32))
    return tmp_path


def statistics(path: str) -> list[Array]:
    if path.endswith(".onnx"):
        layers = normswap.find(path)
        return [np.stack([layer.running_mean, layer.running_var]) for layer in layers]  # type: ignore[list-item]
    state = read_checkpoint(path)
    return [state[name].numpy() for name in state if name.endswith(("running_mean", "running_var"))]


def alike(one: str, other: str) -> None:
    """To rounding in float32: the order of merging is another."""
    for found, expected in zip(statistics(one), statistics(other), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_a_file_is_recalibrated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recalibrate", "model.onnx", "--inputs", "data.npz", "-o", "out.onnx"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "1 BatchNorm layer recalibrated from 10 samples, collected under the statistics of each batch"
    assert shown[-1] == "wrote out.onnx"
    assert shown[-2].startswith("PASS: nothing but the statistics of 1 layer changed")
    model = onnx.load("model.onnx")
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    x = np.load("data.npz")["x"].astype(np.float64)
    c = np.einsum("nchw,dc->ndhw", x, weights["w"][:, :, 0, 0])
    ((mean, var),) = statistics("out.onnx")
    np.testing.assert_allclose(mean, c.mean(axis=(0, 2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(var, c.var(axis=(0, 2, 3)), rtol=1e-5)


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["recalibrate", "model.onnx", "--inputs", "data.npz", "-o", "out.onnx", "--momentum", "0.5", "--json"]
    assert main(argv) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["samples"], told["momentum"], told["variance"]) == (True, 10, 0.5, "biased")
    assert (told["written"], [layer["name"] for layer in told["layers"]]) == ("out.onnx", ["y"])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_of_a_factory_are_written(suffix: str) -> None:
    assert main(["recalibrate", *FACTORY, *DATA, "-o", f"out{suffix}"]) == 0
    before, after = load_file("fixtures/lowlight.safetensors"), read_checkpoint(f"out{suffix}")
    assert list(before) == list(after) or set(before) == set(after)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.endswith(("running_mean", "running_var"))}


@pytest.mark.parametrize("count", [2, 3, 7])
def test_shards_give_what_one_run_gives(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recalibrate", "fixtures/lowlight.onnx", *DATA, "-o", "whole.onnx"]) == 0
    files = [f"{index}.npz" for index in range(1, count + 1)]
    for index, file in enumerate(files, 1):
        argv = ["recalibrate", "fixtures/lowlight.onnx", *DATA, "--shard", f"{index}/{count}", "-o", file]
        assert main(argv) == 0
    capsys.readouterr()
    assert main(["recalibrate", "fixtures/lowlight.onnx", "--merge", *reversed(files), "-o", "merged.onnx"]) == 0
    assert "recalibrated from 16 samples" in capsys.readouterr().out
    alike("merged.onnx", "whole.onnx")
    with pytest.raises(AssertionError):
        alike("merged.onnx", "fixtures/lowlight.onnx")


def test_shares_are_all_batches_once() -> None:
    for count in (1, 2, 3, 20):
        shares = [list(share_of(range(11), (index, count))) for index in range(count)]
        assert sorted(chain(*shares)) == list(range(11))

    class Loader:
        sampler: Any = torch.utils.data.DistributedSampler(range(4), num_replicas=2, rank=0)  # type: ignore[arg-type]

        def __iter__(self) -> Any:
            return iter([0, 2])

    assert list(share_of(Loader(), (1, 2))) == [0, 2], "it has its own share already"


TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone")


@pytest.mark.slow
@pytest.mark.parametrize("model", [FACTORY, ("fixtures/lowlight.onnx",)], ids=["module", "onnx"])
@pytest.mark.parametrize("sequential", [(), ("--sequential",)], ids=["one pass", "sequential"])
def test_two_processes_give_what_one_gives(model: tuple[str, ...], sequential: tuple[str, ...], folder: Path) -> None:
    suffix = ".onnx" if len(model) == 1 else ".pth"
    only = ("--only", "*stem*", "--only", "*down.0*") if sequential else ()
    argv = ("recalibrate", *model, *DATA, *sequential, *only)
    assert main([*argv, "-o", f"one{suffix}"]) == 0
    done = subprocess.run(
        [*TORCHRUN, "-m", "normswap", *argv, "-o", f"two{suffix}"], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("recalibrated from 16 samples") == 1, "one process speaks"
    alike(f"two{suffix}", f"one{suffix}")


FAILING = """
import sys
import numpy as np
import torch
from torch import distributed, nn
import normswap
distributed.init_process_group("gloo")
x = np.ones((2, 3, 4, 4), np.float32)
bad = x[:, :2] if distributed.get_rank() else x
try:
    normswap.recalibrate(nn.BatchNorm2d(3), [x, bad, x, bad])
except normswap.CannotRunError as error:
    print(f"rank {distributed.get_rank()}: {error}", flush=True)
"""


@pytest.mark.slow
def test_where_one_process_fails_all_do(folder: Path) -> None:
    (folder / "failing.py").write_text(FAILING)
    done = subprocess.run([*TORCHRUN, "failing.py"], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "rank 1: the model raised" in done.stdout
    assert "rank 0: process 1 of 2: the model raised" in done.stdout


REFUSED = {  # arguments -> words of the refusal
    "model.onnx -o out.onnx": "give --inputs",
    "model.onnx --inputs nothing.npz -o out.onnx": "found nothing of this name",
    "model.onnx --inputs data.npz -o model.onnx": "is part of the model",
    "model.onnx --inputs data.npz -o data.npz": "exists already; replace it with --force",
    "model.onnx --inputs data.npz -o out.onnx --momentum 2": "expected a share above 0",
    "model.onnx --inputs data.npz -o out.onnx --only z": "no BatchNorm layer matches 'z'",
    "model.onnx --inputs data.npz -o out.onnx --weights w.pth": "has its weights in it",
    "model.onnx --inputs data.npz -o out.npz --shard 3/2": "expected i/n with i from 1 to n",
    "model.onnx --inputs data.npz -o out.npz --shard half": "expected i/n with i from 1 to n",
    "model.onnx --inputs data.npz -o out.npz --shard 1/2 --sequential": "leave one of them out",
    "model.onnx --inputs data.npz -o out.npz --shard 1/2 --momentum 0.5": "give it with --merge",
    "model.onnx data.npz --inputs data.npz -o out.onnx": "files of moments are for --merge",
    "model.onnx --merge -o out.onnx": "name all of them after MODEL",
    "model.onnx --merge data.npz --inputs data.npz -o out.onnx": "--inputs does nothing with --merge",
    "model.onnx --merge data.npz -o out.onnx": "expected moments written with --shard, found arrays x",
    "fixtures.lowlight:Generator --inputs data.npz -o out.npz --shard 1/2": "shards are for .onnx files",
    "fixtures.lowlight:Generator --inputs data.npz -o out.onnx": "is written as its weights",
    "fixtures/lowlight.safetensors --inputs data.npz -o out.pth": "a checkpoint cannot be run on data",
    "fixtures/lowlight.onnx --inputs data.npz -o out.onnx": "expected shape",
}


@pytest.mark.parametrize("argv", REFUSED)
def test_what_is_refused(argv: str, refused: Refused) -> None:
    assert REFUSED[argv] in refused("recalibrate", *argv.split())


def shard(index: int, count: int, name: str, **changed: Any) -> str:
    main(["recalibrate", "model.onnx", "--inputs", "data.npz", "--shard", f"{index}/{count}", "-o", name, "--force"])
    if changed:
        known = vars(read_shard(name))
        write_shard(Shard(**{**known, **changed}), name, force=True)
    return name


def test_shards_that_do_not_go_together_are_refused(refused: Refused) -> None:
    first, second, third = shard(1, 2, "a.npz"), shard(2, 2, "b.npz"), shard(1, 3, "c.npz")
    other = shard(2, 2, "d.npz", model="0" * 64)
    layers = shard(2, 2, "e.npz", layers=("y", "z"))
    channels = shard(2, 2, "f.npz", seen=Seen({"y": Moments.empty(3, 1e-5)}))
    for files, words in {
        (first,): "1 shard of 2 missing: 2/2",
        (first, first): "it is shard 1/2, as a.npz is",
        (first, third): "it is one of 3 shards, a.npz one of 2",
        (first, other): "of another model",
        (first, layers): "give the --only and --skip that it was collected with",
        (first, channels): "its moments of y do not fit",
    }.items():
        assert words in refused("recalibrate", "model.onnx", "--merge", *files, "-o", "out.onnx")
    assert main(["recalibrate", "model.onnx", "--merge", first, second, "-o", "out.onnx"]) == 0


def test_a_damaged_shard_is_refused(refused: Refused) -> None:
    name = shard(1, 1, "a.npz")
    with np.load(name) as archive:
        arrays = {key: archive[key] for key in archive.files}
    np.savez(name, **{**arrays, "0": arrays["0"][:-1]})
    argv = ("recalibrate", "model.onnx", "--merge", name, "-o", "out.onnx")
    assert "the file is damaged: expected 3 + 6 C numbers" in refused(*argv)
    head = arrays["normswap"].tobytes().replace(b'"version": 1', b'"version": 9')
    np.savez(name, **{**arrays, "normswap": np.frombuffer(head, np.uint8)})
    assert "of version 9, expected 1" in refused(*argv)
    np.savez(name, normswap=np.zeros(4, np.uint8))
    assert "the file is damaged" in refused(*argv)


def test_force_replaces_a_file() -> None:
    Path("out.onnx").write_bytes(b"old")
    assert main(["recalibrate", "model.onnx", "--inputs", "data.npz", "-o", "out.onnx", "--force"]) == 0
    onnx.checker.check_model("out.onnx")


def test_npy() -> None:
    np.save("x.npy", np.load("data.npz")["x"])
    assert main(["recalibrate", "model.onnx", "--inputs", "x.npy", "-o", "npy.onnx"]) == 0
    assert main(["recalibrate", "model.onnx", "--inputs", "data.npz", "-o", "npz.onnx"]) == 0
    assert Path("npy.onnx").read_bytes() == Path("npz.onnx").read_bytes()
