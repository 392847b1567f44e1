"""Checkpoints: what a conversion takes out, which files are read and which refused, what a comparison notices."""

from __future__ import annotations

import builtins
import os
import pickle
import random
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import safetensors.torch
import torch
from support.models.modules import MODULES
from support.models.targets import asked
from torch import Tensor, nn

import normswap
from normswap.backends.torch.checkpoint import (
    compare_checkpoints,
    convert_state_dict,
    layers_in,
    read_checkpoint,
    write_checkpoint,
)
from normswap.cli import main
from normswap.errors import ModelReadError, ModelWriteError, NothingToConvertError, SelectionError
from normswap.norms import NORMS
from normswap.plan import make_plan

State: TypeAlias = "dict[str, Any]"

LAYERS = ("steps.1", "heads.left", "heads.right.1")
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
DROPPED = {
    "instance": STATISTICS,
    "batch-stat": STATISTICS,
    "population": STATISTICS[2:],
    "blend": STATISTICS[2:],
    "group": STATISTICS,
}
NAMES = ("out.pth", "out.safetensors")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def built(name: str = "ModuleList, ModuleDict, Sequential") -> nn.Module:
    return MODULES[name].build()


def state() -> State:
    """The state dict of a model with a convolution and three BatchNorms."""
    return built().state_dict()


def statistics(layers: Iterable[str], to: str) -> set[str]:
    return {f"{layer}.{name}" for layer in layers for name in DROPPED[to]}


def bits(tensor: Tensor) -> tuple[torch.dtype, torch.Size, bytes]:
    """Everything that a state dict is to keep of a tensor."""
    return tensor.dtype, tensor.shape, tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


# What is taken out.


@pytest.mark.parametrize("to", NORMS)
def test_conversion_takes_out_statistics_and_nothing_else(to: str) -> None:
    before = state()
    after = convert_state_dict(before, to, **asked(to))
    assert before.keys() - after.keys() == statistics(LAYERS, to)
    assert list(after) == [name for name in before if name in after], "another order"
    assert all(after[name] is before[name] for name in after), "a copy"
    assert len(before) == 2 + 3 * 5, "the caller's was changed"


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "netG.module."])
def test_wrappers_in_front_of_the_names_do_no_harm(prefix: str) -> None:
    after = convert_state_dict({prefix + name: value for name, value in state().items()}, "instance")
    assert list(after) == [prefix + name for name in convert_state_dict(state(), "instance")]


BLOCK = ["conv.weight", "conv.bias", "norm.weight", "norm.bias"]
ODD: dict[str, tuple[Callable[[], State], str, list[str]]] = {  # state dict, target, the names that are left
    "the root": (lambda: built("the root").state_dict(), "instance", ["weight", "bias"]),
    "the root, population": (
        lambda: built("the root").state_dict(),
        "population",
        ["weight", "bias", "running_mean", "running_var"],
    ),
    "affine=False": (lambda: built("affine=False").state_dict(), "instance", BLOCK[:2]),
    "saved before there was num_batches_tracked": (
        lambda: {name: value for name, value in built("the root").state_dict().items() if "num" not in name},
        "instance",
        ["weight", "bias"],
    ),
    "one statistic alone": (
        lambda: {"a.running_mean": torch.ones(2), "b.running_mean": torch.ones(2), "b.running_var": torch.ones(2)},
        "instance",
        ["a.running_mean"],
    ),
    "Parameters": (
        lambda: built("the root").state_dict(keep_vars=True),
        "instance",
        ["weight", "bias"],
    ),
    "bfloat16": (lambda: built("bfloat16").state_dict(), "instance", BLOCK),
    "NumPy arrays": (
        lambda: {name: value.numpy() for name, value in built("the root").state_dict().items()},
        "instance",
        ["weight", "bias"],
    ),
    "no tensors beside": (lambda: {"n": 3, **built("the root").state_dict()}, "instance", ["n", "weight", "bias"]),
}


@pytest.mark.parametrize(("make", "to", "left"), ODD.values(), ids=ODD)
def test_odd_state_dicts_are_understood(make: Callable[[], State], to: str, left: list[str]) -> None:
    assert list(convert_state_dict(make(), to, **asked(to))) == left


SELECTIONS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {  # options, and which layers are converted
    "only": ({"only": ["heads.*"]}, LAYERS[1:]),
    "only, twice": ({"only": ["*.left", "steps*"]}, LAYERS[:2]),
    "skip": ({"skip": ["heads.right.?"]}, LAYERS[:2]),
    "only and skip": ({"only": ["heads.*"], "skip": ["*.1"]}, LAYERS[1:2]),
}


@pytest.mark.parametrize(("options", "layers"), SELECTIONS.values(), ids=SELECTIONS)
def test_only_and_skip_choose_layers(options: dict[str, Any], layers: tuple[str, ...]) -> None:
    gone = state().keys() - convert_state_dict(state(), "instance", **options).keys()
    assert gone == statistics(layers, "instance")


UNSUITED: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "unknown target": (lambda: convert_state_dict(state(), "instnace"), SelectionError, "the nearest is 'instance'"),
    "unknown glob": (
        lambda: convert_state_dict(state(), "instance", only=["heads.lef"]),
        SelectionError,
        r"no BatchNorm layer matches 'heads\.lef' among the 3 found; the nearest is 'heads\.left'",
    ),
    "a glob of no BatchNorm": (
        lambda: convert_state_dict(state(), "instance", skip=["steps.0"]),
        SelectionError,
        "the nearest is 'steps.1'",
    ),
    "all skipped": (
        lambda: convert_state_dict(state(), "instance", skip=["*"]),
        NothingToConvertError,
        "none of 3 BatchNorm layers would change to instance: steps.1: not selected",
    ),
    "no BatchNorm": (
        lambda: convert_state_dict(built("GroupNorm").state_dict(), "instance"),
        NothingToConvertError,
        "no BatchNorm was found",
    ),
    "nothing": (lambda: convert_state_dict({}, "instance"), NothingToConvertError, "no BatchNorm was found"),
}


@pytest.mark.parametrize(("convert", "error", "says"), UNSUITED.values(), ids=UNSUITED)
def test_what_cannot_be_converted_is_refused(convert: Callable[[], object], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        convert()


@pytest.mark.parametrize("to", NORMS)
def test_a_converted_state_dict_is_that_of_the_converted_module(to: str) -> None:
    model, (x,) = built("BatchNorm2d, train"), MODULES["BatchNorm2d, train"].inputs()
    after = convert_state_dict(model.state_dict(), to, **asked(to))
    conversion = normswap.convert(model, to, **asked(to), inputs=(x,))
    theirs = conversion.model.state_dict()
    assert conversion.report.ok
    assert {name: bits(value) for name, value in after.items()} == {name: bits(value) for name, value in theirs.items()}
    conversion.model.load_state_dict(after, strict=True)


def test_versions_of_modules_are_kept() -> None:
    model = nn.Sequential(nn.BatchNorm2d(2), nn.MultiheadAttention(4, 2))
    torch.save(model.state_dict(), "g.pth")
    write_checkpoint(convert_state_dict(read_checkpoint("g.pth"), "instance"), Path("out.pth"))
    assert vars(read_checkpoint("out.pth")) == vars(model.state_dict())


# What is read.


def saved(content: Callable[[], object], name: str = "g.pth", *, legacy: bool = False) -> Callable[[], str]:
    """Return a function that saves something by torch.save."""

    def write() -> str:
        torch.save(content(), name, _use_new_zipfile_serialization=not legacy)
        return name

    return write


def in_safetensors(content: Callable[[], dict[str, Tensor]]) -> Callable[[], str]:
    def write() -> str:
        safetensors.torch.save_file(content(), "g.safetensors")
        return "g.safetensors"

    return write


def in_bfloat16() -> dict[str, Tensor]:
    return {name: value.bfloat16() if value.is_floating_point() else value for name, value in state().items()}


READABLE: dict[str, tuple[Callable[[], str], Callable[[], dict[str, Tensor]]]] = {
    "zip": (saved(state), state),
    "legacy": (saved(state, legacy=True), state),
    "safetensors": (in_safetensors(state), state),
    ".pt": (saved(state, "g.pt"), state),
    ".ckpt": (saved(lambda: {"epoch": 3, "state_dict": state(), "lr": [0.1]}, "g.ckpt"), state),
    "an optimizer beside": (saved(lambda: {"model": state(), "optimizer": {"m": [torch.ones(2)]}}), state),
    "nested, legacy": (saved(lambda: {"generator": state(), "epoch": 3}, legacy=True), state),
    "a plain dict": (saved(lambda: dict(state())), state),
    "Parameters": (saved(lambda: built().state_dict(keep_vars=True)), state),
    "bfloat16": (saved(in_bfloat16), in_bfloat16),
    "bfloat16, legacy": (saved(in_bfloat16, legacy=True), in_bfloat16),
    "bfloat16, safetensors": (in_safetensors(in_bfloat16), in_bfloat16),
}


@pytest.mark.parametrize(("write", "expected"), READABLE.values(), ids=READABLE)
def test_a_checkpoint_is_read_bit_for_bit(write: Callable[[], str], expected: Callable[[], dict[str, Tensor]]) -> None:
    found = read_checkpoint(write())
    assert {name: bits(value) for name, value in found.items()} == {n: bits(v) for n, v in expected().items()}


@dataclass(frozen=True)
class Calls:
    """A pickle of this calls a function when it is loaded by pickle itself."""

    function: Callable[..., Any]
    argument: str

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return self.function, (self.argument,)


def touches() -> Calls:
    return Calls(os.system, "touch executed")


def evil() -> State:
    return {**state(), "extra": touches()}


def with_bytes(name: str, content: Callable[[], bytes]) -> Callable[[], str]:
    def write() -> str:
        Path(name).write_bytes(content())
        return name

    return write


def part(write: Callable[[], str], share: float) -> Callable[[], bytes]:
    """Return a function that gives the beginning of a good file."""

    def content() -> bytes:
        whole = Path(write()).read_bytes()
        return whole[: int(share * len(whole))]

    return content


def in_a_folder(name: str) -> Callable[[], str]:
    def write() -> str:
        Path(name).mkdir()
        return name

    return write


def scripted() -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript's time is over, its files are not
        torch.jit.script(nn.Sequential(nn.BatchNorm2d(4))).save("g.pt")  # type: ignore[no-untyped-call]  # as torch has it
    return "g.pt"


def other_zip() -> str:
    with zipfile.ZipFile("g.pth", "w") as archive:
        archive.writestr("readme.txt", "a zip archive of something else")
    return "g.pth"


def text() -> bytes:
    return b"This is the README of a model.\n" * 40


def noise() -> bytes:
    return random.Random(0).randbytes(5000)


SYSTEM = f"{os.system.__module__}.system"
EXECUTES = "holds more than tensors, and nothing in it is executed"
WOULD_BE = "support.models.modules.Collections would be"
NO_STATE = "expected a state dict, or one under a name such as state_dict"
NO_TORCH = "expected a checkpoint that torch.save wrote"
NO_SAFE = "expected a .safetensors file"
BAD: dict[str, tuple[Callable[[], str], str]] = {  # how the file is made, and what is said of it
    "a pickle that runs a command": (saved(evil), f"{EXECUTES} ({SYSTEM} would be)"),
    "one in the legacy format": (saved(evil, legacy=True), f"{EXECUTES} ({SYSTEM} would be)"),
    "one that is nested": (saved(lambda: {"state_dict": evil()}), f"{EXECUTES} ({SYSTEM} would be)"),
    "one that runs code": (saved(lambda: Calls(builtins.exec, "open('executed', 'w')")), f"{EXECUTES} (exec would be)"),
    "a pickle of pickle's": (with_bytes("g.pth", lambda: pickle.dumps(touches(), 2)), f"{EXECUTES} ({SYSTEM}"),
    "one of a later protocol": (with_bytes("g.pth", lambda: pickle.dumps(touches())), NO_TORCH),
    "one with another suffix": (with_bytes("g.safetensors", lambda: pickle.dumps(touches())), NO_SAFE),
    "a whole module": (
        saved(built),
        f"{EXECUTES} (support.models.modules.Collections would be): save model.state_dict() instead",
    ),
    "a whole module, legacy": (saved(built, legacy=True), f"{EXECUTES} ({WOULD_BE})"),
    "NumPy arrays": (saved(lambda: {"weight": np.ones(3)}), EXECUTES),
    "TorchScript": (scripted, "is a TorchScript archive, which holds code: save model.state_dict() of the nn.Module"),
    "cut in half": (with_bytes("b.pth", part(saved(state), 0.5)), "finding central directory"),
    "cut at the end": (with_bytes("b.pth", part(saved(state), 0.99)), NO_TORCH),
    "cut at the beginning": (with_bytes("b.pth", part(saved(state), 0.01)), "finding central directory"),
    "cut in half, legacy": (with_bytes("b.pth", part(saved(state, legacy=True), 0.5)), NO_TORCH),
    "cut at the end, legacy": (with_bytes("b.pth", part(saved(state, legacy=True), 0.99)), NO_TORCH),
    "cut at the beginning, legacy": (with_bytes("b.pth", part(saved(state, legacy=True), 0.01)), NO_TORCH),
    "cut in half, safetensors": (with_bytes("b.safetensors", part(in_safetensors(state), 0.5)), NO_SAFE),
    "cut at the end, safetensors": (with_bytes("b.safetensors", part(in_safetensors(state), 0.99)), NO_SAFE),
    "random bytes": (with_bytes("g.pth", noise), NO_TORCH),
    "random bytes, safetensors": (with_bytes("g.safetensors", noise), NO_SAFE),
    "empty": (with_bytes("g.pth", bytes), f"{NO_TORCH}: it ends too early"),
    "empty, safetensors": (with_bytes("g.safetensors", bytes), NO_SAFE),
    "text": (with_bytes("g.pth", text), NO_TORCH),
    "text, safetensors": (with_bytes("g.safetensors", text), NO_SAFE),
    "a zip of something else": (other_zip, NO_TORCH),
    "a pickle called .safetensors": (saved(state, "g.safetensors"), NO_SAFE),
    "a folder": (in_a_folder("g.pth"), "Is a directory"),
    "a folder, safetensors": (in_a_folder("g.safetensors"), "is a directory"),
    "no file": (lambda: "lost.pth", "no such file"),
    "no file, safetensors": (lambda: "lost.safetensors", "no such file"),
    "one tensor": (saved(lambda: torch.ones(2)), f"{NO_STATE}, model_state_dict, model, found Tensor"),
    "a list": (saved(lambda: [torch.ones(2)]), "found list"),
    "nothing in it": (saved(dict), "found a mapping of nothing"),
    "no tensors in it": (saved(lambda: {"epoch": 3}), "found a mapping of epoch"),
    "no tensors in what is nested": (saved(lambda: {"state_dict": {}}), "found a mapping of state_dict"),
    "a name that says nothing": (saved(lambda: {"G": state(), "D": state()}), "found a mapping of G, D"),
    "several state dicts": (
        saved(lambda: {"net": state(), "generator": state()}),
        "holds 2 state dicts (net, generator); save the one that is meant by itself",
    ),
}


@pytest.mark.parametrize(("write", "says"), BAD.values(), ids=BAD)
def test_a_bad_checkpoint_is_refused_in_one_sentence(write: Callable[[], str], says: str) -> None:
    name = write()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(ModelReadError) as raised:
            read_checkpoint(name)
    said = str(raised.value)
    assert said.startswith(f"{name}: ")
    assert says in said
    assert "\n" not in said
    assert "weights_only" not in said, "advice to execute the file"
    assert len(said) < 300
    assert not warned
    assert not Path("executed").exists()


@pytest.mark.parametrize("package", ["torch", "safetensors"])
@pytest.mark.parametrize("act", [read_checkpoint, lambda name: write_checkpoint({}, Path(name))], ids=["read", "write"])
def test_a_package_that_is_missing_is_named(
    package: str, act: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = in_safetensors(state)()
    for loaded in (package, f"{package}.torch"):
        monkeypatch.setitem(__import__("sys").modules, loaded, None)
    with pytest.raises((ModelReadError, ModelWriteError), match=f"pip install {package}"):
        act(name)


# What is written.

TIED = torch.arange(6.0)
WRITABLE: dict[str, Callable[[], State]] = {
    "a state dict": state,
    "converted": lambda: convert_state_dict(state(), "batch-stat"),
    "bfloat16": in_bfloat16,
    "tied": lambda: {"a": TIED, "b": TIED, "c": TIED[2:4]},
    "transposed": lambda: {"a": torch.arange(6.0).reshape(2, 3).T},
    "no elements and no axes": lambda: {"a": torch.empty(0, 3), "b": torch.tensor(2.5)},
    "integers and booleans": lambda: {"a": torch.arange(3), "b": torch.tensor([True, False])},
    "NaN and signed zero": lambda: {"a": torch.tensor([float("nan"), -0.0, 0.0, float("-inf")])},
    "Parameters": lambda: built().state_dict(keep_vars=True),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", WRITABLE.values(), ids=WRITABLE)
def test_what_was_written_is_read_back(make: Callable[[], State], name: str) -> None:
    write_checkpoint(make(), Path(name))
    assert {n: bits(v) for n, v in read_checkpoint(name).items()} == {n: bits(v) for n, v in make().items()}


def test_libraries_that_ask_a_file_for_its_framework_are_told() -> None:
    write_checkpoint(state(), Path("out.safetensors"))
    with safetensors.safe_open("out.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_what_is_no_tensor_stays_in_a_pickle_and_is_refused_elsewhere() -> None:
    beside = {"head._extra_state": {"scale": 3, "table": torch.ones(2)}, **state()}
    write_checkpoint(beside, Path("out.pth"))
    assert read_checkpoint("out.pth")["head._extra_state"]["scale"] == 3  # type: ignore[index]  # it is no tensor
    with pytest.raises(ModelWriteError, match=r"out\.safetensors: head\._extra_state is not a tensor"):
        write_checkpoint(beside, Path("out.safetensors"))
    assert not Path("out.safetensors").exists()


@pytest.mark.parametrize("name", ["lost/out.pth", "lost/out.safetensors"])
def test_a_file_that_cannot_be_written_is_named(name: str) -> None:
    with pytest.raises((ModelWriteError, OSError), match=r"out\.|No such file"):
        write_checkpoint(state(), Path(name))


# What is compared.


def flipped(name: str, bit: int = 0, at: int = -1) -> Callable[[State], State]:
    """Return a change of one bit of one element."""

    def change(after: State) -> State:
        tensor = after[name].clone()
        raw = tensor.reshape(-1).view(torch.uint8)
        raw[at] ^= 1 << bit
        return {**after, name: tensor}

    return change


def without(name: str) -> Callable[[State], State]:
    return lambda after: {key: value for key, value in after.items() if key != name}


def with_value(name: str, make: Callable[[State], object]) -> Callable[[State], State]:
    return lambda after: {**after, name: make(after)}


MUTANTS: dict[str, tuple[Callable[[State], State], str]] = {  # what is done to a conversion, and what is said of it
    "a bit of gamma": (flipped("steps.1.weight"), "steps.1.weight has other values"),
    "the first bit of beta": (flipped("heads.left.bias", at=0), "heads.left.bias has other values"),
    "a sign": (flipped("steps.1.bias", bit=7), "steps.1.bias has other values"),
    "a bit of a convolution": (flipped("steps.0.weight", at=33), "steps.0.weight has other values"),
    "a sign of zero": (
        with_value("zero", lambda after: torch.tensor([-0.0])),
        "zero has other values",
    ),
    "gamma is gone": (without("heads.left.weight"), "heads.left.weight is gone"),
    "a convolution is gone": (without("steps.0.bias"), "steps.0.bias is gone"),
    "something new": (with_value("more", lambda after: torch.ones(1)), "more is new"),
    "gamma of another layer": (with_value("steps.1.weight", lambda after: after["heads.left.weight"]), "other values"),
    "another type": (with_value("steps.1.weight", lambda after: after["steps.1.weight"].double()), "other values"),
    "another type of the same bits": (
        with_value("steps.1.weight", lambda after: after["steps.1.weight"].view(torch.int32)),
        "steps.1.weight has other values",
    ),
    "another shape": (with_value("steps.1.weight", lambda after: after["steps.1.weight"][None]), "other values"),
    "no tensor": (with_value("steps.1.weight", lambda after: after["steps.1.weight"].tolist()), "other values"),
    "another number": (with_value("epoch", lambda after: 4), "epoch has other values"),
    "a number of another type": (with_value("epoch", lambda after: 3.0), "epoch has other values"),
    "another tensor in a module's extra state": (
        with_value("extra", lambda after: {"table": torch.tensor([1.0, 3.0])}),
        "extra has other values",
    ),
}


def beside() -> State:
    """A state dict with things that are no tensors, NaN and zero."""
    extra = {"table": torch.tensor([1.0, 2.0])}
    return {**state(), "epoch": 3, "extra": extra, "zero": torch.zeros(1), "nan": torch.tensor([float("nan")])}


def compared(
    before: State, after: State, to: str, only: Sequence[str] = (), skip: Sequence[str] = ()
) -> normswap.Report:
    return compare_checkpoints(before, after, make_plan(NORMS[to], layers_in(before), only=only, skip=skip))


@pytest.mark.parametrize("to", NORMS)
@pytest.mark.parametrize(("mutant", "says"), MUTANTS.values(), ids=MUTANTS)
def test_comparison_notices(mutant: Callable[[State], State], says: str, to: str) -> None:
    report = compared(beside(), mutant(convert_state_dict(beside(), to, **asked(to))), to)
    assert not report.ok
    assert [check.detail for check in report.checks] == [check.detail for check in report.checks if not check.ok]
    assert says in report.to_text()
    assert "NOT shown equal" in report.to_text()


@pytest.mark.parametrize(("to", "name"), [(to, name) for to, names in DROPPED.items() for name in names])
def test_statistics_that_were_left_in_are_noticed(to: str, name: str) -> None:
    key = f"heads.left.{name}"
    after = {**convert_state_dict(state(), to, **asked(to)), key: state()[key]}
    report = compared(state(), after, to)
    assert not report.ok
    assert f"{key} is still there" in report.to_text()
    assert not compared(state(), state(), to).ok


@pytest.mark.parametrize("name", ["running_mean", "running_var"])
def test_statistics_that_are_missing_are_noticed(name: str) -> None:
    report = compared(state(), without(f"steps.1.{name}")(convert_state_dict(state(), "population")), "population")
    assert f"steps.1.{name} is gone" in report.to_text()
    skipped = without(f"steps.1.{name}")(convert_state_dict(state(), "instance", skip=["steps.*"]))
    assert not compared(state(), skipped, "instance", skip=["steps.*"]).ok


@pytest.mark.parametrize("to", NORMS)
def test_a_conversion_passes_and_the_verdict_says_what_was_not_done(to: str) -> None:
    before = beside()
    write_checkpoint(before, Path("out.pth"))
    after = convert_state_dict(read_checkpoint("out.pth"), to, **asked(to))
    report = compared(before, dict(reversed(after.items())), to)
    assert report.ok
    assert report.planned == LAYERS
    text = report.to_text()
    assert f"{len(after)} tensors are identical, {len(statistics(LAYERS, to))} statistics of 3 layers are gone" in text
    assert text.splitlines()[1:4] == [
        "probes      not run",
        "end to end  not run",
        "inputs      none: a checkpoint cannot be run",
    ]
    meaning = NORMS[to].meaning
    assert text.splitlines()[-1] == f"PASS: the weights of a model that is to equal {meaning}; no model was run"


def test_layers_that_were_left_are_named() -> None:
    options: dict[str, Any] = {"skip": ["heads.*"]}
    report = compared(state(), OrderedDict(convert_state_dict(state(), "instance", **options)), "instance", **options)
    assert report.ok
    assert report.left == dict.fromkeys(LAYERS[1:], "not selected")
    assert not compared(state(), convert_state_dict(state(), "instance"), "instance", **options).ok


def test_a_list_in_very_many_places_is_compared_once() -> None:
    """A pickle of half a kilobyte that unfolds into 2 ** 60 tensors."""

    def nested(value: float) -> State:
        inside: Any = torch.tensor([value])
        for _ in range(60):
            inside = [inside, inside]
        return {**state(), "extra": inside}

    torch.save(nested(1.0), "nested.pth")
    assert main(["convert", "nested.pth", "--to", "instance", "-o", "out.pth"]) == 0
    torch.save(nested(2.0), "other.pth")
    assert main(["verify", "nested.pth", "out.pth", "--to", "instance"]) == 0
    assert main(["verify", "other.pth", "out.pth", "--to", "instance"]) == 1
