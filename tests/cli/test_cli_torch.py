"""The command line on PyTorch: factories, weights, checkpoints, exports; exit codes, files, and one line of trouble."""

from __future__ import annotations

import copy
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch
from support import Refused
from support.models.modules import seeded
from support.models.small_models import ONE_LAYER, built, tree
from support.models.targets import asked, options
from support.oracles.mutants import MUTANTS, Mutant
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from normswap.backends.torch.checkpoint import convert_state_dict, read_checkpoint
from normswap.cli import main
from normswap.norms import NORMS

NETWORKS = '''
"""What a user of the command line has: networks, and functions that build them."""

import os
import sys

import torch
from torch import nn


class Generator(nn.Module):
    def __init__(self, wide=4):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, wide, 3, padding=1), nn.BatchNorm2d(wide), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(wide, 3, 3, padding=1), nn.BatchNorm2d(3, eps=1e-3))

    def forward(self, image):
        return torch.tanh(self.second(self.first(image)))


class Critic(nn.Module):
    """Two inputs, which only fit in their order."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(5, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, condition, image):
        return self.norm(self.conv(torch.cat([condition[:, :2], image], dim=1)))


class Bottleneck(nn.Module):
    """A BatchNorm that instance cannot take, which only running the model shows."""

    def __init__(self):
        super().__init__()
        self.wide = nn.BatchNorm2d(3)
        self.narrow = nn.BatchNorm2d(3)

    def forward(self, image):
        y = self.wide(image)
        return y + self.narrow(y.mean((2, 3), keepdim=True))


class Needy(Generator):
    def __init__(self, wide):
        super().__init__(wide)


class NeverRun(Generator):
    def forward(self, image):
        raise RuntimeError("it ran,\\nthough nobody asked")


class Talkative(Generator):
    def forward(self, image):
        print("forward")
        return super().forward(image)


def generator():
    return Generator().eval()


def training():
    return Generator().train()


def wrapped():
    return nn.DataParallel(Generator().eval())


def dropping():
    return nn.Sequential(Generator(), nn.Dropout(0.5))


def talkative():
    print("initialize network with normal")
    return Talkative().eval()


def failing():
    raise ValueError("no such\\nconfiguration")


def exiting():
    sys.exit("usage: networks.py")


def list_of_them():
    return [Generator()]


def idle():
    return nn.Sequential(nn.Conv2d(3, 3, 1), nn.InstanceNorm2d(3))


there = Generator().eval()
number = 3


class Zoo:
    small = staticmethod(generator)
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder of its own that holds networks, weights of one, and inputs."""
    work = tmp_path / "work"
    for path in (work, work / "shop" / "models", tmp_path / "temp"):
        path.mkdir(parents=True)
    monkeypatch.chdir(work)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("networks.py").write_text(NETWORKS)
    Path("broken.py").write_text("import networks\nnetworks.Generator(\n")
    Path("script.py").write_text("import sys\nsys.exit()\n")
    Path("needs.py").write_text("import a_package_that_nobody_has\n")
    Path("shop/__init__.py").touch()
    Path("shop/models/__init__.py").write_text("from networks import generator\n")
    known = set(sys.modules)
    importlib.invalidate_caches()
    torch.save(weights(), "g.pth")
    yield work
    for name in set(sys.modules) - known:
        if name.partition(".")[0] in ("networks", "broken", "script", "needs", "shop"):
            del sys.modules[name]


def network(name: str = "Generator", seed: int = 0) -> nn.Module:
    """One of the networks, with random parameters and statistics, in eval mode."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return seeded(getattr(importlib.import_module("networks"), name), seed=seed)()


def weights(name: str = "Generator", seed: int = 0, prefix: str = "") -> dict[str, Tensor]:
    return {prefix + key: value for key, value in network(name, seed).state_dict().items()}


def image(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    drawn = np.random.default_rng(0).normal(0.5, 2, shape or (2, 3, 8, 8))
    return drawn.astype(np.float32)


def meant(model: nn.Module, to: str, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What a conversion computes, by torch's own BatchNorm in the mode that the target states."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.train(to != "population")
    with torch.no_grad():
        batches = torch.split(torch.from_numpy(x), 1 if to == "instance" else len(x))
        return torch.cat([model(batch) for batch in batches]).numpy()


def same(one: str, other: dict[str, Tensor]) -> bool:
    """Whether a checkpoint holds these tensors, in bits and in nothing more."""
    found = read_checkpoint(one)
    return list(found) == list(other) and all(
        found[name].dtype == value.dtype and found[name].numpy().tobytes() == value.numpy().tobytes()
        for name, value in other.items()
    )


def reported(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


# Factories.

FACTORIES = [
    "networks:generator",
    "networks:Generator",
    "networks:there",
    "networks:Zoo.small",
    "networks:wrapped",
    "shop.models:generator",
]


@pytest.mark.parametrize("spec", FACTORIES)
def test_a_factory_is_inspected_converted_and_verified(
    spec: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(folder)
    assert main(["inspect", spec, "--weights", "g.pth", "--to", "instance", "--json"]) == 0
    found = reported(capsys)
    assert [(layer["name"], layer["fate"]) for layer in found["layers"]] == [
        ("first.1", "converted"),
        ("second.1", "converted"),
    ]
    assert main(["convert", spec, "--weights", "g.pth", "--to", "instance", "-o", "o.pth"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "PASS: equal to train-mode BatchNorm fed one sample at a time",
        "wrote o.pth",
    ]
    assert same("o.pth", convert_state_dict(weights(), "instance"))
    assert main(["verify", spec, "o.pth", "--to", "instance", "--weights", "g.pth"]) == 0
    assert tree(folder).keys() - before.keys() == {"o.pth"}


def test_the_mode_of_a_factory_is_its_role(capsys: pytest.CaptureFixture[str]) -> None:
    for spec, role in (("networks:generator", "eval"), ("networks:training", "train")):
        assert main(["inspect", spec, "--json"]) == 0
        assert {layer["role"] for layer in reported(capsys)["layers"]} == {role}


def test_inspect_runs_a_model_only_on_request(refused: Refused, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "networks:NeverRun", "--to", "instance", "--json"]) == 0
    found = reported(capsys)
    assert [layer["name"] for layer in found["layers"]] == ["first.1", "second.1"]
    assert any("the model was not run" in remark for remark in found["remarks"])
    assert main(["inspect", "networks:Bottleneck", "--shape", "image=2x3x8x8", "--to", "instance", "--json"]) == 0
    found = reported(capsys)
    assert [(layer["fate"], layer["shape"]) for layer in found["layers"]] == [
        ("converted", [None, 3, 8, 8]),
        ("refused", [None, 3, 1, 1]),
    ]
    assert not any("not run" in remark for remark in found["remarks"])
    np.savez("x.npz", image=image(2, 3, 6, 6))
    assert main(["inspect", "networks:Bottleneck", "--inputs", "x.npz", "--json"]) == 0
    assert reported(capsys)["layers"][0]["shape"] == [None, 3, 6, 6]


@pytest.mark.parametrize("command", ["inspect {}", "convert {} --to instance -o o.pth", "verify {} {} --to instance"])
def test_what_user_code_prints_is_kept_out_of_reports(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = command.format("networks:talkative", "networks:talkative").split()
    code = main([*argv, "--json", *(["--weights", "g.pth"] if argv[0] != "inspect" else [])])
    shown = capsys.readouterr()
    assert code == (argv[0] == "verify")  # it was not converted
    json.loads(shown.out)
    assert "initialize network with normal" in shown.err


# Weights.


def saved(make: Callable[[], dict[str, Any]], name: str = "w.pth", *, legacy: bool = False) -> Callable[[], str]:
    def write() -> str:
        torch.save(make(), name, _use_new_zipfile_serialization=not legacy)
        return name

    return write


def in_safetensors() -> str:
    safetensors.torch.save_file(weights(), "w.safetensors")
    return "w.safetensors"


WEIGHTS: dict[str, Callable[[], str]] = {
    ".pth": saved(weights),
    ".pth, legacy": saved(weights, legacy=True),
    ".safetensors": in_safetensors,
    "DataParallel": saved(lambda: weights(prefix="module.")),
    "torch.compile": saved(lambda: weights(prefix="_orig_mod.")),
    "both": saved(lambda: weights(prefix="module._orig_mod.")),
    "nested": saved(lambda: {"state_dict": weights(), "epoch": 3}, "w.ckpt"),
}


@pytest.mark.parametrize("output", ["o.pth", "o.safetensors"])
@pytest.mark.parametrize("write", WEIGHTS.values(), ids=WEIGHTS)
def test_weights_are_loaded_whatever_their_form(write: Callable[[], str], output: str) -> None:
    options = ["--to", "batch-stat", "--shape", "image=2x3x8x8", "--weights", write()]
    expected = convert_state_dict(weights(), "batch-stat")
    assert main(["convert", "networks:generator", "-o", output, *options]) == 0
    assert same(output, expected if output == "o.pth" else dict(sorted(expected.items())))
    assert main(["verify", "networks:generator", output, *options]) == 0


def test_weights_of_another_training_are_different(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(convert_state_dict(weights(seed=1), "instance"), "o.pth")
    assert main(["verify", "networks:generator", "o.pth", "--to", "instance", "--weights", "g.pth"]) == 1
    assert "FAILED structure" in capsys.readouterr().out


def test_one_bit_is_seen() -> None:
    after = convert_state_dict(weights(), "instance")
    after["first.0.weight"].view(torch.uint8)[0, 0, 0, 0] ^= 1
    torch.save(after, "o.pth")
    assert main(["verify", "networks:generator", "o.pth", "--to", "instance", "--weights", "g.pth"]) == 1
    assert main(["verify", "g.pth", "o.pth", "--to", "instance"]) == 1


def test_layers_that_only_a_run_shows_to_be_unsuited_stay_in_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(weights("Bottleneck"), "b.pth")
    command = ["networks:Bottleneck", "--to", "instance", "--weights", "b.pth", "--shape", "image=2x3x8x8"]
    assert main(["convert", *command, "-o", "o.pth", "--allow-refusals"]) == 0
    assert "narrow (REFUSED: its input has one spatial element" in capsys.readouterr().out
    assert same("o.pth", convert_state_dict(weights("Bottleneck"), "instance", only=["wide"]))
    assert main(["verify", command[0], "o.pth", *command[1:], "--allow-refusals"]) == 0


def test_two_sets_of_weights_for_one_object_are_two_models(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(weights(seed=1), "other.pth")
    command = ["verify", "networks:there", "networks:there", "--to", "instance", "--json", "--weights", "g.pth"]
    for others, differ in (("g.pth", False), ("other.pth", True)):
        assert main([*command, "--after-weights", others]) == 1
        checks = reported(capsys)["outcomes"][0]["report"]["checks"]
        found = [check["detail"] for check in checks if check["witness"] == "structure"]
        assert any("first.0.weight" in detail for detail in found) is differ


# Exports.


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_an_export_computes_what_was_meant(suffix: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, before = f"o{suffix}", tree(folder)
    command = ["--to", "instance", "--weights", "g.pth", "--shape", "image=2x3x8x8"]
    assert main(["convert", "networks:generator", "-o", output, *command]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.endswith(f"\nwrote {output}\n")
    assert tree(folder).keys() - before.keys() <= {output, f"{output}.data"}
    x = image(3, 3, 8, 8)
    if suffix == ".onnx":
        session = onnxruntime.InferenceSession(output, providers=["CPUExecutionProvider"])
        y = np.asarray(session.run(None, {"image": x})[0])
    else:
        y = torch.export.load(output).module()(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(y, meant(network(), "instance", x), atol=1e-5)
    assert main(["verify", "networks:generator", output, *command]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(", end to end on these inputs alone")
    assert main(["verify", "networks:generator", output, "--to", "batch-stat", *command[2:]]) == 1
    assert "looks as if instance was computed instead" in capsys.readouterr().out
    assert main(["inspect", output]) == 0


# Checkpoints by themselves.


@pytest.mark.parametrize("output", ["o.pth", "o.safetensors"])
@pytest.mark.parametrize("to", NORMS)
def test_a_checkpoint_becomes_a_checkpoint(
    to: str, output: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(folder)
    assert main(["convert", "g.pth", "--to", to, *options(to), "-o", output]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"PASS: the weights of a model that is to equal {NORMS[to].meaning}; no model was run",
        f"wrote {output}",
    ]
    expected = convert_state_dict(weights(), to, **asked(to))
    assert same(output, expected if output == "o.pth" else dict(sorted(expected.items())))
    assert tree(folder).keys() - before.keys() == {output}
    assert main(["verify", "g.pth", output, "--to", to, *options(to)]) == 0
    assert main(["verify", "g.pth", "g.pth", "--to", to, *options(to)]) == 1
    assert main(["verify", "networks:training", output, "--to", to, *options(to), "--weights", "g.pth"]) == 0


def test_a_checkpoint_is_inspected(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "g.pth", "--to", "instance", "--only", "first*", "--json"]) == 0
    found = reported(capsys)
    assert [(layer["name"], layer["num_features"], layer["fate"]) for layer in found["layers"]] == [
        ("first.1", 4, "converted"),
        ("second.1", 3, "kept"),
    ]
    assert found["layers"][0]["eps"] is None
    assert main(["inspect", "g.pth"]) == 0
    assert "a checkpoint does not say what its layers compute" in capsys.readouterr().out


def test_a_selection_holds_for_checkpoints_and_factories_alike() -> None:
    choice = ["--to", "instance", "--skip", "second.*"]
    assert main(["convert", "g.pth", "-o", "o.pth", *choice]) == 0
    assert main(["convert", "networks:generator", "--weights", "g.pth", "-o", "p.pth", *choice]) == 0
    assert same("o.pth", read_checkpoint("p.pth"))
    assert main(["verify", "g.pth", "p.pth", *choice]) == 0
    assert main(["verify", "g.pth", "p.pth", *choice[:2]]) == 1
    assert main(["verify", "networks:generator", "o.pth", "--weights", "g.pth", *choice]) == 0


# Inputs.

CRITIC = ["convert", "networks:Critic", "--to", "instance", "-o", "o.pth"]
CONDITION, PICTURE = image(2, 2, 8, 8), image(2, 3, 8, 8)
FITTING: dict[str, dict[str, Any]] = {
    "names of forward's parameters": {"condition": CONDITION, "image": PICTURE},
    "names in another order": {"image": PICTURE, "condition": CONDITION},
    "other names, in order": {"a": CONDITION, "b": PICTURE},
    "numbered, as np.savez does": {"arr_0": CONDITION, "arr_1": PICTURE},
}


@pytest.mark.parametrize("arrays", FITTING.values(), ids=FITTING)
def test_inputs_are_taken_by_name_or_by_order(arrays: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("x.npz", **arrays)
    assert main([*CRITIC, "--inputs", "x.npz"]) == 0
    assert "inputs      given: x.npz" in capsys.readouterr().out


def test_shapes_of_inputs_are_taken(refused: Refused, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(*CRITIC)
    assert "forward takes condition, image, whose shapes a module does not say" in line
    shapes = ["--shape", "condition=3x2x7x5", "--shape", "image=3x3x7x5"]
    assert main([*CRITIC, *shapes, "--seed", "7"]) == 0
    assert "inputs      generated, seed 7: condition 3x2x7x5, image 3x3x7x5" in capsys.readouterr().out


MISFITS: dict[str, tuple[Callable[[], object], str]] = {  # what x.npz holds, and what the line says
    "missing": (lambda: None, "No such file"),
    "text": (lambda: Path("x.npz").write_text("hello"), "expected an .npz file"),
    "too few": (lambda: np.savez("x.npz", a=CONDITION), "hold 1 arrays (a), where Critic.forward takes condition, ima"),
    "too many": (lambda: np.savez("x.npz", a=CONDITION, b=PICTURE, c=PICTURE), "hold 3 arrays (a, b, c)"),
    "none": (lambda: np.savez("x.npz"), "hold 0 arrays"),
    "in the wrong order": (
        lambda: np.savez("x.npz", a=PICTURE[:, :1], b=CONDITION),
        "the model raised RuntimeError: G",
    ),
    "another type": (lambda: np.savez("x.npz", a=CONDITION.astype("f8"), b=PICTURE.astype("f8")), "the model raised"),
    "another rank": (lambda: np.savez("x.npz", condition=CONDITION[0], image=PICTURE[0]), "the model raised"),
}


@pytest.mark.parametrize("command", ["convert networks:Critic -o o.pth", "verify networks:Critic networks:Critic"])
@pytest.mark.parametrize(("write", "says"), MISFITS.values(), ids=MISFITS)
def test_inputs_that_do_not_fit_are_named(
    write: Callable[[], object], says: str, command: str, refused: Refused
) -> None:
    write()
    assert says in refused(*command.split(), "--to", "instance", "--inputs", "x.npz")


# Trouble.

GENERATOR = "convert networks:generator --to instance -o o.pth"
TROUBLE: dict[str, tuple[str, str]] = {  # a command, and what its one line says
    "no module of that name": ("inspect nowhere:generator", "importing nowhere failed: ModuleNotFoundError"),
    "no such thing in it": ("inspect networks:generatr", "networks has no 'generatr'"),
    "no such thing in a class": ("inspect networks:Zoo.large", "Zoo has no 'large'"),
    "a module that is no Python": ("inspect broken:generator", "importing broken failed: SyntaxError"),
    "a module that exits": ("inspect script:generator", "importing script failed: SystemExit"),
    "a module that needs another": ("inspect needs:x", "No module named 'a_package_that_nobody_has'"),
    "a factory that raises": ("inspect networks:failing", "failing() failed: ValueError: no such configuration"),
    "a factory that exits": ("inspect networks:exiting", "exiting() failed: SystemExit: usage: networks.py"),
    "a class that wants arguments": ("inspect networks:Needy", "missing 1 required positional argument: 'wide'"),
    "a factory of a list": ("inspect networks:list_of_them", "list_of_them() to return an nn.Module, found list"),
    "no factory": ("inspect networks:number", "a function or class that returns an nn.Module, found int"),
    "a factory that raises, converted": ("convert networks:failing --to instance -o o.pth", "no such configuration"),
    "a second factory that raises": ("verify networks:generator networks:failing --to instance", "no such config"),
    "a model that raises": ("convert networks:NeverRun --to instance -o o.pth", "it ran,"),
    "a shape of no parameter": (f"{GENERATOR} --shape x=1x3x8x8", "forward takes image"),
    "a shape that does not fit": (f"{GENERATOR} --shape image=1x5x8x8", "does not run"),
    "nothing to convert": ("convert networks:idle --to instance -o o.pth", "no BatchNorm was found"),
    "nothing to convert to population": ("convert networks:generator --to population -o o.pth", "already population"),
    "a refused layer": (
        "convert networks:Bottleneck --to instance -o o.pth --shape image=2x3x8x8",
        "narrow: its input has one spatial element",
    ),
    "an unknown target": ("convert networks:generator --to instnace -o o.pth", "the nearest is 'instance'"),
    "an unknown target of weights": ("convert g.pth --to instnace -o o.pth", "the nearest is 'instance'"),
    "a glob that matches nothing": (f"{GENERATOR} --only first.2", "the nearest is 'first.1'"),
    "a glob that matches nothing in weights": ("convert g.pth --to instance -o o.pth --skip a*", "'a*'"),
    "weights that are missing": (f"{GENERATOR} --weights lost.pth", "lost.pth: no such file"),
    "weights of another network": (f"{GENERATOR} --weights c.pth", "c.pth: does not fit Generator: RuntimeError: Mis"),
    "weights of another width": (
        f"{GENERATOR} --weights wide.pth",
        "wide.pth: does not fit Generator: RuntimeError",
    ),
    "weights with a layer more": (f"{GENERATOR} --weights more.pth", 'Unexpected key(s) in state_dict: "third.weight"'),
    "weights that run code": (
        f"{GENERATOR} --weights evil.pth",
        f"nothing in it is executed ({os.system.__module__}.sys",
    ),
    "weights that are a module": (f"{GENERATOR} --weights whole.pth", "save model.state_dict() instead"),
    "converted weights that do not fit": (
        "verify networks:generator c.pth --to instance --weights g.pth",
        "c.pth: does not fit Generator",
    ),
    "converted weights that are missing": ("verify networks:generator lost.pth --to instance", "no such file"),
    "--weights of a file": ("convert model.onnx --to instance -o o.onnx --weights g.pth", "--weights is for package.m"),
    "--weights of a file, inspected": ("inspect model.onnx --weights g.pth", "--weights is for package.module:factory"),
    "--weights of weights": ("convert g.pth --to instance -o o.pth --weights g.pth", "--weights is for package.module"),
    "--after-weights of a file": (
        "verify networks:generator model.onnx --to instance --after-weights g.pth",
        "--after-weights is for package.module:factory",
    ),
    "--after-weights of weights": (
        "verify networks:generator g.pth --to instance --after-weights g.pth",
        "--after-weights is for package.module:factory",
    ),
    "weights after a file": ("verify model.onnx g.pth --to instance", "give BEFORE as package.module:factory"),
    "a file after weights": ("verify g.pth model.onnx --to instance", "can only be compared with another; found model"),
    "a factory after weights": ("verify g.pth networks:generator --to instance", "with another; found a model"),
    "weights that become an export": ("convert g.pth --to instance -o o.onnx", "an export needs the model's code"),
    "weights without BatchNorm": ("convert idle.pth --to instance -o o.pth", "no BatchNorm was found"),
    "inputs of weights": ("convert g.pth --to instance -o o.pth --inputs x.npz", "--inputs does nothing with a check"),
    "a shape of weights": ("inspect g.pth --shape x=1x3x8x8", "--shape does nothing with a checkpoint"),
    "statistics of weights": ("verify g.pth g.pth --to instance --drop-statistics", "does nothing with a checkpoint"),
    "no end to end, and inputs": (f"{GENERATOR} --no-end-to-end --shape image=1x3x8x8", "does nothing with --no-end"),
    "no end to end, and an export": (
        "convert networks:generator --to instance -o o.onnx --no-end-to-end",
        "leave out --no-end-to-end, or write the weights",
    ),
    "no end to end across frameworks": (
        "verify networks:generator model.onnx --to instance --no-end-to-end",
        "the two models are of different frameworks and can only be compared end to end",
    ),
    "an export of a model that drops": (
        "convert networks:dropping --to instance -o o.onnx --shape input=1x3x8x8",
        "o.onnx: the model draws random numbers; 1 in train mode",
    ),
}


@pytest.mark.parametrize(("command", "says"), TROUBLE.values(), ids=TROUBLE)
def test_trouble_is_one_line(command: str, says: str, refused: Refused) -> None:
    torch.save(weights("Critic"), "c.pth")
    torch.save({"third.weight": torch.ones(2), **weights()}, "more.pth")
    torch.save(importlib.import_module("networks").Generator(5).state_dict(), "wide.pth")
    torch.save(network(), "whole.pth")
    torch.save({"x": torch.ones(2), "run": Runs()}, "evil.pth")
    torch.save(nn.Conv2d(3, 3, 1).state_dict(), "idle.pth")
    onnx.save(built(ONE_LAYER), "model.onnx")
    assert says in refused(*command.split())


class Runs:
    """A pickle of this runs a command when pickle itself loads it."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, ("touch executed",)


# What is written, and what not.

OUTPUTS = ["o.pth", "o.safetensors", "o.onnx", "o.pt2"]
CONVERT = ["convert", "networks:generator", "--weights", "g.pth", "--to", "instance", "--shape", "image=2x3x8x8"]
BAD_OUTPUTS: dict[str, tuple[str, str]] = {
    "a suffix that says nothing": ("o.bin", "expected a file name that ends in .pth"),
    "no suffix": ("o", "expected a file name that ends in .pth"),
    "a folder": ("shop", "is a folder"),
    "a folder with a suffix": ("shop.pth/", "is a folder"),
    "in a folder that is missing": ("none/o.onnx", "the folder none does not exist"),
    "the weights": ("g.pth", "never overwritten"),
    "the weights, spelled otherwise": ("shop/../g.pth", "never overwritten"),
    "a link to the weights": ("link.pth", "never overwritten"),
    "a name too long": ("x" * 300 + ".pth", "cannot be written"),
}


@pytest.mark.parametrize("force", [(), ("--force",)], ids=["", "force"])
@pytest.mark.parametrize(("output", "says"), BAD_OUTPUTS.values(), ids=BAD_OUTPUTS)
def test_a_bad_output_is_refused(output: str, says: str, force: tuple[str, ...], refused: Refused) -> None:
    Path("link.pth").symlink_to("g.pth")
    assert says in refused(*CONVERT, "-o", output, *force)


@pytest.mark.parametrize("output", ["g.pth", "shop/../g.pth", "link.pth"])
def test_weights_that_are_converted_by_themselves_are_never_overwritten(output: str, refused: Refused) -> None:
    Path("link.pth").symlink_to("g.pth")
    assert "never overwritten" in refused("convert", "g.pth", "--to", "instance", "-o", output, "--force")


@pytest.mark.parametrize("output", OUTPUTS)
def test_an_existing_file_is_replaced_on_request_alone(output: str, folder: Path, refused: Refused) -> None:
    Path(output).write_text("old")
    assert "exists already; replace it with --force" in refused(*CONVERT, "-o", output)
    if output.endswith(("pth", "safetensors")):
        assert "exists already" in refused("convert", "g.pth", "--to", "instance", "-o", output)
    names = set(tree(folder))
    assert main([*CONVERT, "-o", output, "--force"]) == 0
    assert Path(output).read_bytes() != b"old"
    assert set(tree(folder)) - names <= {"o.onnx.data"}


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_conversion_that_does_not_verify_is_not_written(
    output: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(output).write_text("old")
    before = tree(folder.parent)
    monkeypatch.setitem(NORMS, "instance", Mutant(NORMS["instance"], MUTANTS["weight and bias swapped"]))
    assert main([*CONVERT, "-o", output, "--force"]) == 1
    shown = capsys.readouterr()
    assert "FAIL: NOT shown equal" in shown.out
    assert shown.err == "normswap: nothing was written, because the conversion did not verify\n"
    assert tree(folder.parent) == before


def test_an_export_that_fails_leaves_nothing(folder: Path, refused: Refused) -> None:
    with Path("networks.py").open("a") as file:
        file.write(
            "\n\nclass Undecided(Generator):\n    def forward(self, image):\n"
            "        return super().forward(image if image.mean() < 99 else -image)\n"
        )
    del sys.modules["networks"]
    for output in ("o.onnx", "o.pt2"):
        line = refused("convert", "networks:Undecided", "--to", "instance", "-o", output)
        assert f"{output}: torch.export.export cannot export this model" in line
        assert "write its weights (.pth, .safetensors) instead" in line


# Of .pt2 files torch 2.13 itself aborts the process then, once it has raised.
CONVERT_IN_A_SMALL_SPACE = """
import resource, sys  # what exceeds the limit fails as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (700, resource.RLIM_INFINITY))
from normswap.cli import main
for model, output in (("g.pth", "o.pth"), ("g.pth", "o.safetensors"), ("networks:generator", "o.onnx")):
    sys.stderr.write(f"{main(['convert', model, '--to', 'instance', '-o', output])} ")
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no file-size limits")
def test_a_full_disk_is_one_line_and_no_litter(folder: Path) -> None:
    before = tree(folder)
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", CONVERT_IN_A_SMALL_SPACE]
    done = subprocess.run(command, text=True, capture_output=True, timeout=120, env=environment, check=False)
    pattern = "".join(rf"normswap: {re.escape(name)}: cannot be written: [^\n]+\n2 " for name in OUTPUTS[:3])
    assert re.fullmatch(pattern, done.stderr), done.stderr
    assert tree(folder) == before


# What is loaded.

STARTS = {
    "import": "import normswap",
    "help": "from normswap.cli import main; main(['--help'])",
    "help of a command": "from normswap.cli import main; main(['convert', '--help'])",
    "checkpoints and factories": "import normswap.backends.torch.checkpoint, normswap.backends.torch.factory",
    "an .onnx file": (
        "from normswap.cli import main; main(['convert', 'model.onnx', '--to', 'instance', '-o', 'out.onnx'])"
    ),
}


@pytest.mark.parametrize("code", STARTS.values(), ids=STARTS)
def test_torch_is_loaded_for_torch_alone(code: str) -> None:
    onnx.save(built(ONE_LAYER), "model.onnx")
    asks = "print([name for name in ('torch', 'safetensors') if name in sys.modules])"
    command = [sys.executable, "-c", f"{code}\nimport sys\n{asks}"]
    done = subprocess.run(command, text=True, capture_output=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_without_torch_the_line_says_what_to_install(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for command in ("inspect networks:generator", "inspect g.pth", "convert g.pth --to instance -o o.pth"):
        assert "pip install" in refused(*command.split())


def test_a_package_in_a_folder_further_up_is_found_by_pythonpath(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("elsewhere").mkdir()
    shutil.copy("g.pth", "elsewhere")
    monkeypatch.chdir("elsewhere")
    monkeypatch.syspath_prepend(folder)
    assert main(["inspect", "shop.models:generator", "--weights", "g.pth"]) == 0
