"""Other runtimes: what is run there, what their failures become, and which form is chosen for them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support import Refused
from support.installed import needs
from support.models.cases import CASES, build
from support.models.modules import MODULES
from support.models.other_forms import OTHER_FORMS
from support.models.small_models import LOWLIGHT, ONE_LAYER, built, tree
from support.models.targets import options

import normswap
from normswap import NORMS, CannotRunError, RefusedLayersError, SelectionError
from normswap.backends import onnx_graph, save
from normswap.backends.candidates import runtimes_of
from normswap.backends.inputs import feeds_of
from normswap.cli import main
from normswap.norms.base import by_name
from normswap.plan import Choice, Plan, make_plan
from normswap.runtimes import RUNTIMES, check_runtimes, infer
from normswap.runtimes.choice import chooser
from normswap.runtimes.table import SUPPORT

TRAIN = LOWLIGHT.with_name("lowlight_train.onnx")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of its own that holds one small model."""
    monkeypatch.chdir(tmp_path)
    onnx.save(built(ONE_LAYER), "model.onnx")
    return tmp_path


def reported(capsys: pytest.CaptureFixture[str]) -> Any:
    (outcome,) = json.loads(capsys.readouterr().out)["outcomes"]
    return outcome["report"]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_convert_runs_the_file_there_too(runtime: str, capsys: pytest.CaptureFixture[str]) -> None:
    needs(runtime)
    for to in NORMS:
        source = TRAIN if to == "population" else LOWLIGHT
        output = ["-o", f"{to}.onnx", "--runtime", runtime, "--json"]
        assert main(["convert", str(source), "--to", to, *options(to), *output]) == 0
        report = reported(capsys)
        names = [check["name"] for check in report["checks"] if check["witness"] == "end to end"]
        assert names == [f"restored ({how})" for how in ("as written", "optimized", runtime)]
        assert any(note.startswith(f"{runtime} {SUPPORT[runtime].version}") for note in report["notes"])


def written_as(form: str, to: str, source: Path) -> Path:
    """Write the layers of a model in a form that is not normswap's."""
    before = onnx_graph.load(source)
    plan = make_plan(NORMS[to], onnx_graph.find(before))
    norm = type(plan.norm)()
    norm.forms = by_name(*OTHER_FORMS[to])
    chosen = {layer.name: Choice(form, "others write it") for layer in plan.layers}
    save(onnx_graph, onnx_graph.rewrite(before, replace(plan, norm=norm, forms=chosen)), "others.onnx")
    return Path("others.onnx")


@pytest.mark.parametrize(
    ("runtime", "form", "says"),
    [
        ("opencv", "two-pass primitives, axes at once", "it errs in what is new"),
        ("mnn", "BatchNormalization, training_mode=1", "it errs in what is new"),
    ],
)
def test_a_file_that_is_right_in_onnxruntime_and_wrong_there_fails(runtime: str, form: str, says: str) -> None:
    needs(runtime)
    others = written_as(form, "batch-stat", LOWLIGHT)
    here = normswap.verify(LOWLIGHT, others, "batch-stat", seed=1)
    assert here.ok, here.to_text()
    there = normswap.verify(LOWLIGHT, others, "batch-stat", seed=1, runtimes=[runtime])
    assert not there.ok
    assert [check.name for check in there.checks if not check.ok] == [f"restored ({runtime})"]
    assert any(says in note for note in there.notes), there.to_text()


def test_a_runtime_that_errs_in_the_original_too_is_named(folder: Path) -> None:
    needs("mnn")
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,4,6,5] x) => (float[N,4,6,5] out) {
      y = BatchNormalization<epsilon=0.01>(x, s, b, m, v)
      out = BatchNormalization(y, s1, b1, m1, vsmall) }"""
    model = build(text)
    for tensor in model.graph.initializer:  # a default epsilon, which is large beside this variance and MNN takes for 0
        if tensor.name == "vsmall":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(4, 1e-5, np.float32), "vsmall"))
    onnx.save(model, "before.onnx")
    conversion = normswap.convert("before.onnx", "instance", only=["y"], runtimes=["mnn"])
    assert [check.name for check in conversion.report.checks if not check.ok] == ["out (mnn)"]
    assert any("need not be to blame" in note for note in conversion.report.notes), conversion.report.to_text()


def test_epsilon_is_written_where_it_is_the_default() -> None:
    needs("mnn")
    model = build(CASES["default epsilon"].text)
    conversion = normswap.convert(model, "instance", runtimes=["mnn"])
    (node,) = (n for n in conversion.model.proto.graph.node if n.op_type == "InstanceNormalization")
    assert [(a.name, a.f) for a in node.attribute] == [("epsilon", np.float32(1e-5))]
    assert conversion.report.ok


CRASHES = {  # found by running every small model there
    "opencv": "If and Loop, parameters in outer scopes",
    "mnn": "parameters given at run time",
}


@pytest.mark.parametrize("runtime", CRASHES)
def test_a_crash_of_the_runtime_is_a_finding(runtime: str) -> None:
    needs(runtime)
    model = onnx_graph.load(build(CASES[CRASHES[runtime]].text))
    (feed, *_) = feeds_of(onnx_graph, model, None, {}, 0)
    with pytest.raises(CannotRunError, match=f"{runtime} (crashed|cannot run)"):
        onnx_graph.run_elsewhere(model, feed.arrays, runtime=runtime)


def test_what_does_not_run_there_fails_and_says_so() -> None:
    needs("opencv")
    report = normswap.verify(LOWLIGHT, TRAIN, "batch-stat", runtimes=["opencv"], end_to_end=True)
    assert not report.ok
    model = build(CASES["unknown rank"].text)
    conversion = normswap.convert(model, "batch-stat", shapes={"x": (2, 4, 6, 5)}, runtimes=["opencv"])
    (failed,) = (check for check in conversion.report.checks if not check.ok)
    assert failed.name == "opencv"
    assert failed.detail.startswith("the converted model does not run: opencv cannot run the model")


def test_a_run_that_hangs_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    needs("opencv")
    monkeypatch.setattr("normswap.runtimes._SECONDS", 0.01)
    start = time.monotonic()
    with pytest.raises(CannotRunError, match=r"opencv did not finish within 0.01 s"):
        infer("opencv", Path("model.onnx"), {"x": np.zeros((1, 3, 8, 8), np.float32)}, ["y"])
    assert time.monotonic() - start < 20


def test_half_precision_comes_back_as_the_model_declares_it() -> None:
    needs("opencv")
    model = onnx_graph.load(build(CASES["float16"].text))
    x = np.random.default_rng(0).standard_normal((2, 4, 6, 5)).astype(np.float16)
    run = onnx_graph.run_elsewhere(model, {"x": x}, runtime="opencv")
    assert run.outputs["out"].dtype == np.float16
    assert run.notes[1] == "opencv gives out in float32, where the model declares float16; it was rounded"


def test_random_numbers_are_not_compared_across_runtimes() -> None:
    needs("mnn")
    model = onnx_graph.load(build(CASES["seeded dropout"].text))
    with pytest.raises(CannotRunError, match=r"draws random numbers \(Dropout, RandomNormalLike\), and mnn"):
        onnx_graph.run_elsewhere(model, {"x": np.zeros((2, 4, 6, 5), np.float32)}, runtime="mnn")


def test_external_data_and_large_tensors_go_there(folder: Path) -> None:
    needs("openvino")
    model = onnx.load(LOWLIGHT)
    onnx.save(model, "external.onnx", save_as_external_data=True, location="w.data", size_threshold=0)
    before = tree(folder)
    assert main(["convert", "external.onnx", "--to", "instance", "-o", "out.onnx", "--runtime", "openvino"]) == 0
    assert set(tree(folder)) == {*before, "out.onnx", "out.onnx.data"}, "what was written aside is gone"


def test_a_module_that_is_exported_runs_there() -> None:
    needs("openvino")
    case = MODULES["BatchNorm2d"]
    conversion = normswap.convert(
        case.build(), "instance", inputs=case.inputs(), output="out.onnx", runtimes=["openvino"]
    )
    assert conversion.report.ok
    assert sum(check.name.endswith("(out.onnx, openvino)") for check in conversion.report.checks) == 1
    report = normswap.verify(case.build(), "out.onnx", "instance", inputs=case.inputs(), runtimes=["openvino"])
    assert report.ok
    assert any(check.name.endswith("(openvino)") for check in report.checks)


def test_runtimes_are_named_once_and_the_own_one_always_runs() -> None:
    backend = normswap.backends.backend_for(Path("model.onnx"))
    assert runtimes_of(backend, ["onnxruntime", "mnn", "mnn"]) == ("mnn",)
    assert main(["convert", "model.onnx", "--to", "instance", "-o", "out.onnx", "--runtime", "onnxruntime"]) == 0


TROUBLE = {
    "unknown": (["--runtime", "opencvv"], "unknown runtime 'opencvv'; the nearest is 'opencv'; known are"),
    "unknown, --for": (["--for", "tensorrtt"], "unknown runtime 'tensorrtt'; the nearest is 'tensorrt'; known are"),
    "idle": (["--runtime", "openvino", "--no-end-to-end"], "--runtime does nothing with --no-end-to-end"),
}


@pytest.mark.parametrize(("options", "says"), TROUBLE.values(), ids=TROUBLE)
def test_trouble(options: list[str], says: str, refused: Refused) -> None:
    assert says in refused("convert", "model.onnx", "--to", "instance", "-o", "out.onnx", *options)


def test_a_runtime_that_is_not_installed_is_trouble_before_any_work(
    monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.setitem(RUNTIMES, "mnn", "a_package_that_nobody_has")
    said = refused("convert", "lost.onnx", "--to", "instance", "-o", "out.onnx", "--runtime", "mnn")
    assert said == ("normswap: mnn is not installed, so that nothing can be run there; pip install 'normswap[mnn]'\n")
    said = refused("convert", "lost.onnx", "--to", "instance", "-o", "out.onnx", "--for", "mnn")
    assert "mnn is not installed" in said


def test_files_that_no_other_runtime_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    needs("openvino")
    case = MODULES["BatchNorm2d"]
    for output in (None, "out.pth", "out.pt2"):
        with pytest.raises(SelectionError, match=r"openvino runs \.onnx files, and none results from this"):
            normswap.convert(case.build(), "instance", inputs=case.inputs(), output=output, runtimes=["openvino"])
    with pytest.raises(SelectionError, match=r"--for opencv chooses how layers are written in ONNX"):
        normswap.convert(case.build(), "instance", inputs=case.inputs(), for_runtime="opencv", end_to_end=False)


def test_check_runtimes_takes_what_is_there() -> None:
    check_runtimes(["onnxruntime"])
    check_runtimes([])


# --for.

CHOSEN = {  # runtime, target, type, opset -> form
    ("onnxruntime", "instance", "float32", 17): "InstanceNormalization",
    ("onnxruntime", "instance", "float64", 17): "two-pass primitives",
    ("opencv", "instance", "float32", 17): "two-pass primitives",
    ("opencv", "batch-stat", "float32", 17): "two-pass primitives",
    ("mnn", "instance", "float16", 17): "InstanceNormalization",
    ("mnn", "batch-stat", "float32", 17): "transposed InstanceNormalization",
    ("openvino", "population", "float16", 17): "primitives",
    ("openvino", "population", "float32", 17): "BatchNormalization",
    ("cuda", "instance", "float32", 21): "InstanceNormalization",
    ("cuda", "instance", "float32", 22): "two-pass primitives",
    ("tensorrt", "instance", "float16", 22): "InstanceNormalization",
    ("webgpu", "instance", "float32", 17): "two-pass primitives",
    ("directml", "batch-stat", "float16", 22): "two-pass primitives",
}


@pytest.mark.parametrize(("runtime", "target", "dtype", "opset"), CHOSEN)
def test_the_form_that_is_right_and_fastest_is_chosen(runtime: str, target: str, dtype: str, opset: int) -> None:
    (layer,) = onnx_graph.find(onnx_graph.load(build(CASES["opset 18"].text)))
    choice = chooser(NORMS[target], runtime, opset)(replace(layer, dtype=dtype))
    assert isinstance(choice, Choice)
    assert choice.form == CHOSEN[runtime, target, dtype, opset]
    assert ("it was not run there" in choice.why) is not SUPPORT[runtime].measured


def test_no_choice_is_ever_known_to_be_anything_but_right() -> None:
    (layer,) = onnx_graph.find(onnx_graph.load(build(CASES["opset 18"].text)))
    for runtime, support in SUPPORT.items():
        for norm in NORMS.values():
            for dtype in ("float32", "float16", "float64", "bfloat16"):
                choice = chooser(norm, runtime, 17)(replace(layer, dtype=dtype))
                if isinstance(choice, Choice):
                    cell = support.cells[norm.name, choice.form][dtype]
                    assert set(cell.verdicts) == ({"right"} if support.measured else {"taken"})
                else:
                    assert dtype in ("float64", "bfloat16")


def test_what_no_form_is_right_for_is_refused() -> None:
    model = build(CASES["float64"].text)
    with pytest.raises(RefusedLayersError, match=r"y: nothing is known of instance in float64 for openvino"):
        normswap.convert(model, "instance", for_runtime="openvino", end_to_end=False)


def test_a_form_known_to_be_wrong_is_refused_with_the_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = {key: value for key, value in SUPPORT["opencv"].cells.items() if key[1] != "two-pass primitives"}
    monkeypatch.setitem(SUPPORT, "opencv", replace(SUPPORT["opencv"], cells=cells))
    (layer,) = onnx_graph.find(onnx_graph.load(build(CASES["opset 18"].text)))
    said = chooser(NORMS["instance"], "opencv", 17)(layer)
    assert isinstance(said, str)
    assert said.startswith(
        "no form of instance in float32 is right in opencv: InstanceNormalization (cancels where |mean| is large"
    )


@pytest.mark.parametrize("runtime", ["opencv", "mnn"])
def test_convert_for_a_runtime_writes_the_form_says_why_and_runs_it(
    runtime: str, capsys: pytest.CaptureFixture[str]
) -> None:
    needs(runtime)
    for to in ("instance", "batch-stat"):
        assert main(["convert", str(LOWLIGHT), "--to", to, "--for", runtime, "-o", f"{to}.onnx", "--json"]) == 0
        report = reported(capsys)
        form = CHOSEN.get((runtime, to, "float32", 17), "InstanceNormalization")
        assert {choice["form"] for choice in report["forms"].values()} == {form}
        assert set(report["forms"]) == set(report["planned"])
        assert any(check["name"] == f"restored ({runtime})" for check in report["checks"])
        operators = {node.op_type for node in onnx.load(f"{to}.onnx").graph.node}
        assert ("ReduceMean" in operators) == (form == "two-pass primitives")


def test_for_a_runtime_known_from_documentation_says_that_it_was_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "model.onnx", "--to", "instance", "--for", "tensorrt", "-o", "out.onnx"]) == 0
    shown = capsys.readouterr().out
    assert (
        "  written as InstanceNormalization: all of 1 (taken in tensorrt, by onnx/onnx-tensorrt docs/operators.md"
        in shown
    )
    assert "it was not run there" in shown


def test_inspect_shows_the_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "model.onnx", "--to", "instance", "--for", "opencv"]) == 0
    shown = capsys.readouterr().out
    assert "converted: two-pass primitives" in shown
    assert "cancels where |mean| is large" in shown
    assert main(["inspect", "model.onnx", "--to", "instance", "--for", "opencv", "--json"]) == 0
    (layer,) = json.loads(capsys.readouterr().out)["layers"]
    assert layer["form"] == "two-pass primitives"
    assert main(["inspect", "model.onnx", "--for", "opencv"]) == 2


def test_shared_code_is_written_in_one_form() -> None:
    model = build(CASES["local function, called three times"].text)
    plan = normswap.plan(model, "instance", for_runtime="onnxruntime")
    assert isinstance(plan, Plan)
    assert {choice.form for choice in plan.forms.values()} == {"InstanceNormalization"}
    with pytest.raises(SelectionError):
        normswap.plan(model, "instance", for_runtime="nowhere")


def test_nothing_of_a_runtime_is_loaded_here() -> None:
    needs("opencv")
    code = (
        "import sys; from normswap.cli import main; "
        "assert main('convert model.onnx --to instance -o out.onnx --for opencv'.split()) == 0; "
        "sys.exit(sorted({'cv2', 'MNN', 'openvino'} & set(sys.modules)) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
