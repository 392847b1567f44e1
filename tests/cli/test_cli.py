"""The command line: exit codes as diff(1) has them, what is printed, what is written, what is imported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from support.models.small_models import LOWLIGHT, ONE_LAYER, built, tree

from normswap.cli import main
from normswap.norms import NORMS, OnnxOps
from normswap.norms.base import Form, by_name
from normswap.norms.instance import Instance

FRAMEWORKS = ("torch", "onnx", "onnxruntime")
TRAIN = LOWLIGHT.with_name("lowlight_train.onnx")


def swapped(ops: OnnxOps) -> None:
    """Write weight and bias the wrong way round."""
    ops.eps_attribute("InstanceNormalization", ops.x, ops.bias, ops.scale, output=ops.y)


class Swapped(Instance):
    """States what instance states, and writes operators that do not compute ``reference``."""

    forms = by_name(Form("swapped", swapped))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of its own that holds one small model."""
    monkeypatch.chdir(tmp_path)
    onnx.save(built(ONE_LAYER), "model.onnx")
    return tmp_path


def python(*argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *argv], text=True, capture_output=True, timeout=60, **options)


def infer(path: str | Path) -> list[np.ndarray[Any, np.dtype[Any]]]:
    """Run a model on inputs that are the same for all."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (value,) = session.get_inputs()
    shape = (2, *(size if isinstance(size, int) else 64 for size in value.shape[1:]))
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return [np.asarray(array) for array in session.run(None, {value.name: image})]


CODES = {
    "inspect": ("inspect model.onnx", 0),
    "inspect, nothing to do": ("inspect model.onnx --to population", 0),
    "inspect, unreadable": ("inspect lost.onnx", 2),
    "convert": ("convert model.onnx --to instance -o out.onnx", 0),
    "convert to batch-stat": ("convert model.onnx --to batch-stat -o out.onnx", 0),
    "convert, one witness left out": ("convert model.onnx --to instance -o out.onnx --no-end-to-end", 0),
    "convert, nothing to do": ("convert model.onnx --to population -o out.onnx", 2),
    "verify": ("verify model.onnx instance.onnx --to instance", 0),
    "verify, never converted": ("verify model.onnx model.onnx --to instance", 1),
    "verify, another target": ("verify model.onnx instance.onnx --to batch-stat", 1),
    "verify, unreadable": ("verify model.onnx lost.onnx --to instance", 2),
    "help": ("--help", 0),
    "help of a command": ("convert -h", 0),
    "version": ("--version", 0),
}


@pytest.mark.parametrize(("command", "code"), CODES.values(), ids=CODES)
def test_exit_codes_are_those_of_diff(command: str, code: int) -> None:
    assert main(["convert", "model.onnx", "--to", "instance", "-o", "instance.onnx"]) == 0
    assert main(command.split()) == code


@pytest.mark.parametrize("forgotten", [LOWLIGHT, TRAIN], ids=["left in eval mode", "left in train mode"])
def test_verify_fails_a_generator_that_was_never_converted(forgotten: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(LOWLIGHT), str(forgotten), "--to", "instance"]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("FAIL: NOT shown equal to train-mode BatchNorm")


def test_convert_says_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(LOWLIGHT), "--to", "instance", "-o", "out.onnx"]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0] == "9 BatchNorm layers -> instance: train-mode BatchNorm fed one sample at a time"
    assert [line.split()[0] for line in lines[1:4]] == ["structure", "probes", "end"]
    assert lines[-2:] == ["PASS: equal to train-mode BatchNorm fed one sample at a time", "wrote out.onnx"]
    assert shown.err == ""


def test_help_spells_its_tables_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    assert "    population  eval-mode BatchNorm" in capsys.readouterr().out.splitlines()


REPORT_KEYS = {"ok", "target", "meaning", "planned", "inputs", "notes", "checks"}
CHECK_KEYS = {"witness", "name", "ok", "may_fail", "error", "bound", "index", "detail", "wrong", "size", "cause"}
ENVELOPE_KEYS = {"version", "normswap", "created", "command", "verdict", "exit_code"}
LAYER_KEYS = {"name", "role", "num_features", "eps", "dtype", "rank", "shape", "blocked"}


def strict_json(text: str) -> Any:
    """Parse JSON as the standard has it, without NaN and Infinity."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.mark.parametrize("argv", ["convert model.onnx -o out.onnx", "verify model.onnx model.onnx"])
def test_a_report_is_json(argv: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, *arguments = argv.split()
    code = main([command, *arguments, "--to", "instance", "--json"])
    (outcome,) = strict_json(capsys.readouterr().out)["outcomes"]
    report = outcome["report"]
    assert report.keys() >= REPORT_KEYS
    assert all(check.keys() >= CHECK_KEYS for check in report["checks"])
    assert report["ok"] is (code == 0)
    assert report["planned"] == ["y"]
    assert outcome["written"] == ("out.onnx" if command == "convert" else None)


@pytest.mark.parametrize("to", [(), ("--to", "instance")], ids=["", "to instance"])
def test_an_inspection_is_json(to: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    model = built(ONE_LAYER)
    model.graph.node[1].attribute.append(onnx.helper.make_attribute("epsilon", float("inf")))
    onnx.save(model, "model.onnx")
    assert main(["inspect", "model.onnx", "--json", *to]) == 0
    found = strict_json(capsys.readouterr().out)
    assert found.keys() == ENVELOPE_KEYS | {"model", "to", "layers", "remarks"}
    (layer,) = found["layers"]
    assert layer.keys() == LAYER_KEYS | ({"fate", "reason"} if to else set())
    assert layer["name"] == "y"
    assert layer["shape"] == ["N", 4, 8, 8]


SELECTIONS = {  # options, and how many of the nine layers are converted
    "all": ([], 9),
    "only": (["--only", "/down.*"], 4),
    "only, twice": (["--only", "/down.*", "--only", "/stem*"], 5),
    "skip": (["--skip", "/down.*"], 5),
    "only and skip": (["--only", "/down.*", "--skip", "/down.0*"], 3),
}


@pytest.mark.parametrize(("options", "count"), SELECTIONS.values(), ids=SELECTIONS)
def test_inspect_and_convert_agree_on_the_selection(
    options: list[str], count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(LOWLIGHT), "--to", "instance", "--json", *options]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    fates = {layer["name"]: layer["fate"] for layer in layers}
    assert list(fates.values()).count("converted") == count
    assert main(["convert", str(LOWLIGHT), "--to", "instance", "-o", "out.onnx", "--json", *options]) == 0
    planned = json.loads(capsys.readouterr().out)["outcomes"][0]["report"]["planned"]
    assert planned == [name for name, fate in fates.items() if fate == "converted"]


def test_inspect_shows_the_fate_of_each_layer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(LOWLIGHT), "--to", "instance", "--only", "/stem*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "--to instance" in lines[0]
    assert [line.rstrip().rpartition("  ")[2] for line in lines[1:10]] == ["converted", *["kept: not selected"] * 8]
    assert lines[-1].endswith(": 8 kept, 1 converted")


@pytest.mark.parametrize("json_option", [(), ("--json",)], ids=["text", "json"])
def test_a_conversion_that_does_not_verify_is_not_written(
    json_option: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("old.onnx").write_text("old")
    before = tree(folder)
    monkeypatch.setitem(NORMS, "instance", Swapped())
    for output in ("out.onnx", "old.onnx"):
        assert main(["convert", "model.onnx", "--to", "instance", "-o", output, "--force", *json_option]) == 1
        shown = capsys.readouterr()
        written = json.loads(shown.out)["outcomes"][0]["written"] if json_option else None
        assert written is None if json_option else "FAIL: NOT shown equal" in shown.out
        assert shown.err == "normswap: nothing was written, because the conversion did not verify\n"
    assert tree(folder) == before


def test_force_replaces_and_goes_on_replacing(folder: Path) -> None:
    command = ["convert", "model.onnx", "--to", "instance", "-o", "out.onnx", "--force"]
    Path("out.onnx").write_text("old")
    for _ in range(2):
        assert main(command) == 0
        assert main(["verify", "model.onnx", "out.onnx", "--to", "instance"]) == 0
    assert set(tree(folder)) == {"model.onnx", "out.onnx"}


def test_an_external_model_becomes_a_model_and_one_data_file(folder: Path) -> None:
    for name in ("source", "target"):
        Path(name).mkdir()
    onnx.save(onnx.load(LOWLIGHT), "source/model.onnx", save_as_external_data=True, all_tensors_to_one_file=False)
    assert len(list(Path("source").iterdir())) > 2
    command = ["convert", "source/model.onnx", "--to", "instance", "-o", "target/out.onnx"]
    assert main(command) == 0
    assert set(tree(folder / "target")) == {"out.onnx", "out.onnx.data"}
    shutil.copytree("target", "moved")
    assert main(["convert", str(LOWLIGHT), "--to", "instance", "-o", "inline.onnx"]) == 0
    for path in ("target/out.onnx", "moved/out.onnx"):
        np.testing.assert_array_equal(infer(path), infer("inline.onnx"))
    for _ in range(2):
        assert main([*command, "--force"]) == 0
        np.testing.assert_array_equal(infer("target/out.onnx"), infer("inline.onnx"))
    np.testing.assert_array_equal(infer("moved/out.onnx"), infer("inline.onnx"))


PATHS = ["a model.onnx", "größe, 模型.onnx", "two  spaces.onnx", "~", "no suffix", "-.onnx", "%s{0}.onnx"]


@pytest.mark.parametrize("name", PATHS)
def test_names_of_files_are_taken_as_they_are(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("model.onnx").rename(name)
    target = Path("~") / name if name != "~" else Path("out") / name
    target.parent.mkdir()
    arguments = ["--to", "instance", "-o", str(target), "--", name]
    assert main(["convert", *arguments]) == 0
    assert capsys.readouterr().out.endswith(f"\nwrote {target}\n")
    assert main(["inspect", "--", str(target)]) == 0
    assert {path.name for path in folder.rglob("*")} == {name, target.parent.name}
    assert target.is_file()


def test_relative_paths_hold_from_another_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("elsewhere").mkdir()
    onnx.save(onnx.load(LOWLIGHT), "big.onnx", save_as_external_data=True, location="big.data")
    monkeypatch.chdir(folder / "elsewhere")
    assert main(["convert", "../big.onnx", "--to", "instance", "-o", "out.onnx"]) == 0
    assert set(tree(Path.cwd())) == {"out.onnx", "out.onnx.data"}


@pytest.mark.parametrize(
    "code", ["import normswap", "import normswap.testing", "from normswap.cli import main; main(['--help'])"]
)
def test_starting_up_loads_no_framework(code: str) -> None:
    done = python("-c", f"{code}\nimport sys\nprint([name for name in {FRAMEWORKS} if name in sys.modules])")
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("argv", [["-m", "normswap"], ["-c", "from normswap.cli import run; run()"]], ids=["-m", "run"])
def test_a_process_exits_with_the_code(argv: list[str]) -> None:
    assert python(*argv, "verify", "model.onnx", "model.onnx", "--to", "instance").returncode == 1


@pytest.mark.parametrize("argv", ["inspect 模型.onnx", "convert 模型.onnx --to instance -o 新.onnx"])
def test_names_that_the_terminal_cannot_show_are_escaped(argv: str) -> None:
    model = built(ONE_LAYER)
    model.graph.node[1].output[0] = model.graph.output[0].name = "層"
    onnx.save(model, "模型.onnx")
    western = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    done = python("-m", "normswap", *argv.split(), env=western)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u5c64" in done.stdout


@pytest.mark.parametrize("option", [[], ["--json"]], ids=["text", "json"])
def test_a_reader_that_goes_away_is_no_difference(option: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "normswap", "inspect", "model.onnx", *option]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (2, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_full_standard_output_is_no_bug_of_ours() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "normswap", "inspect", "model.onnx", "--json"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr == "normswap: OSError: [Errno 28] No space left on device\n"
