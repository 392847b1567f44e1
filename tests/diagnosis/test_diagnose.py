"""diagnose: what it advises for models whose right fix is known, and what it says of their layers."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import shlex
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from support import ROOT, Refused
from support.models.shifted_statistics import shifted
from support.models.small_models import ONE_LAYER, RANK_TWO, built

import normswap
from normswap import Diagnosis, diagnose
from normswap.backends.torch.factory import build
from normswap.cli import main
from normswap.diagnosis.fewest import Fewest
from normswap.diagnosis.layers import finding_of, trained_alone
from normswap.diagnosis.measures import MEASURES, l1
from normswap.diagnosis.verdict import Advice, Evidence, judge
from normswap.errors import CannotRunError
from normswap.layer import Array, NormLayer
from normswap.statistics.moments import Moments

FIXTURES = ROOT / "fixtures"
LOWLIGHT = (FIXTURES / "lowlight.onnx", FIXTURES / "lowlight_images.npz")
STUDIO = (FIXTURES / "studio.onnx", FIXTURES / "studio_images.npz")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def of(model: Any, data: Path, **options: Any) -> Diagnosis:
    return diagnose(model, data, targets=data, **options) if options else plainly(model, data)


@cache
def plainly(model: Any, data: Path) -> Diagnosis:
    """A diagnosis that several tests look at."""
    return diagnose(model, data, targets=data)


def errors(diagnosis: Diagnosis) -> dict[str, float]:
    return {mode.name: mode.error for mode in diagnosis.modes if mode.error is not None}


def error_by_hand(path: Path, data: Path, size: int) -> float:
    """Mean absolute error of a file in ONNX Runtime, ``size`` samples at a time."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = np.load(data)
    parts = [images["dark"][i : i + size] for i in range(0, len(images["dark"]), size)]
    found = np.concatenate([session.run(None, {"dark": part})[0] for part in parts])
    return float(np.abs(found.astype(np.float64) - images["target"]).mean())


def test_a_model_that_needs_each_sample_by_itself() -> None:
    diagnosis = of(*LOWLIGHT)
    assert diagnosis.verdict.advice == "convert to instance"
    assert not diagnosis.verdict.thin
    found = errors(diagnosis)
    assert found["eval"] > 5 * found["instance"], "eval is about five times worse, or more"
    assert found["recalibrated"] > 5 * found["instance"], "which recalibration does not help"
    normswap.convert(LOWLIGHT[0], "instance", output="instance.onnx")
    for name, path in (("eval", LOWLIGHT[0]), ("instance", Path("instance.onnx"))):
        assert found[name] == pytest.approx(error_by_hand(path, LOWLIGHT[1], 4), rel=1e-4)


def test_a_model_that_is_well_in_eval_mode() -> None:
    diagnosis = of(*STUDIO)
    assert diagnosis.verdict.advice == "keep eval"
    assert min(errors(diagnosis), key=errors(diagnosis).__getitem__) == "eval"
    assert diagnosis.fewest is None


@pytest.mark.parametrize("seed", range(3))
def test_a_model_whose_statistics_were_shifted(seed: int) -> None:
    onnx.save(shifted(onnx.load(STUDIO[0]), seed), "shifted.onnx")
    diagnosis = of("shifted.onnx", STUDIO[1])
    assert diagnosis.verdict.advice == "recalibrate"
    command = f"recalibrate shifted.onnx --inputs {STUDIO[1]} -o mended.onnx"
    assert main(command.split()) == 0
    mended, sound = (error_by_hand(Path(path), STUDIO[1], 8) for path in ("mended.onnx", STUDIO[0]))
    assert errors(diagnosis)["recalibrated"] == pytest.approx(mended, rel=1e-3)
    assert mended < 1.1 * sound < error_by_hand(Path("shifted.onnx"), STUDIO[1], 8)
    assert np.mean([found.trained.staleness for found in diagnosis.layers]) > 0.1


def test_without_targets_train_mode_is_taken_for_right_and_that_is_said() -> None:
    diagnosis = diagnose(*LOWLIGHT)
    assert diagnosis.verdict.advice == "convert to instance"
    assert diagnosis.train.startswith("instance: the stored variances hold")
    assert "--targets" in diagnosis.verdict.thin[0]
    assert all(mode.error is None for mode in diagnosis.modes)
    assert {mode.name: mode.distance for mode in diagnosis.modes}["instance"] == 0


def test_a_module_is_diagnosed_as_its_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    generator = build("fixtures.lowlight:Generator", "fixtures/lowlight.safetensors").eval()
    state = {name: value.clone() for name, value in generator.state_dict().items()}
    images = np.load(LOWLIGHT[1])
    loader = [(torch.tensor(images["dark"][i : i + 8]), torch.tensor(images["target"][i : i + 8])) for i in (0, 8)]
    module, file = diagnose(generator, loader), of(*LOWLIGHT)
    assert module.verdict.advice == file.verdict.advice
    assert errors(module) == pytest.approx(errors(file), rel=1e-3)
    assert not generator.training
    assert all(torch.equal(value, state[name]) for name, value in generator.state_dict().items())


def test_the_fewest_layers_do_what_all_do() -> None:
    fewest = of(*LOWLIGHT).fewest
    assert fewest is not None
    assert 0 < len(fewest.names) < fewest.of == 9
    for names, path in ((fewest.names, "few.onnx"), ((), "all.onnx")):
        normswap.convert(LOWLIGHT[0], "instance", only=names, output=path)
    images = np.load(LOWLIGHT[1])["dark"][:8]
    few, whole = (
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"dark": images})[0]
        for path in ("few.onnx", "all.onnx")
    )
    off = float(np.sqrt(np.square(few - whole).mean()) / whole.std())
    assert off == pytest.approx(fewest.distance, rel=1e-2)
    assert off <= 0.05


@pytest.mark.parametrize("name", ["/stem/y", "a[0]*?", "it's", "two words"])
def test_the_list_to_paste_selects_its_layers_alone(name: str) -> None:
    only, glob = shlex.split(Fewest((name,), 0.0, 2).options)
    assert only == "--only"
    assert [other for other in (name, f"{name}2", "a0b", "other") if fnmatch.fnmatchcase(other, glob)] == [name]


def test_batch_statistics_of_several_sizes() -> None:
    diagnosis = of(*STUDIO, batch_size=[1, 4, 8])
    assert [mode.name for mode in diagnosis.modes][2:] == ["instance", "batch-stat, N = 4", "batch-stat, N = 8"]
    normswap.convert(STUDIO[0], "batch-stat", output="batch.onnx")
    for size in (4, 8):
        by_hand = error_by_hand(Path("batch.onnx"), STUDIO[1], size)
        assert errors(diagnosis)[f"batch-stat, N = {size}"] == pytest.approx(by_hand, rel=1e-4)
    assert len({round(error, 4) for error in errors(diagnosis).values()}) == 5, "they can be told apart"


def test_a_last_batch_that_is_smaller_is_told_of() -> None:
    images = {name: array[:11] for name, array in np.load(STUDIO[1]).items()}
    diagnosis = diagnose(STUDIO[0], images)
    assert diagnosis.samples == 11
    assert "a batch had 3 samples instead of 8, so its batch statistics are of fewer samples" in diagnosis.notes


def test_distances_are_from_the_outputs_of_train_mode() -> None:
    diagnosis = of(*LOWLIGHT)
    images = np.load(LOWLIGHT[1])["dark"]
    normswap.convert(LOWLIGHT[0], "instance", output="instance.onnx")
    eval_, instance = (
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"dark": images})[0]
        for path in (LOWLIGHT[0], "instance.onnx")
    )
    by_hand = np.sqrt(np.square(eval_ - instance).reshape(len(images), -1).mean(axis=1)).mean() / instance.std()
    assert diagnosis.modes[0].distance == pytest.approx(by_hand, rel=1e-4)


def test_mismatch_is_measured_in_both_modes() -> None:
    layers = of(*LOWLIGHT).layers
    first, *deep = layers
    for name in ("spread", "staleness"):
        seen = getattr(first.trained.mismatch, name)
        np.testing.assert_allclose(seen, getattr(first.eval.mismatch, name), rtol=1e-4, atol=1e-6)
    assert all(found.eval.staleness > 2 * found.trained.staleness for found in deep), "their input has shifted"
    session_input = np.load(LOWLIGHT[1])["dark"]
    graph = onnx.load(LOWLIGHT[0])
    norm = next(node for node in graph.graph.node if first.layer.name in node.output)
    graph.graph.output.append(onnx.helper.make_tensor_value_info(norm.input[0], onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    x = session.run([norm.input[0]], {"dark": session_input})[0].astype(np.float64)
    mean, var = x.mean(axis=(2, 3)), x.var(axis=(2, 3)) + first.layer.eps
    assert first.layer.running_mean is not None and first.layer.running_var is not None
    stored = first.layer.running_var.astype(np.float64) + first.layer.eps
    ratio = (var + np.square(mean - first.layer.running_mean)) / stored
    divergence = (np.log(stored) - np.log(var) + ratio - 1) / 2  # KL of normal distributions
    assert first.eval.mismatch is not None
    np.testing.assert_allclose(first.eval.mismatch.total, divergence.mean(axis=0), rtol=1e-4)


def mean_cubed(output: Array, target: Array) -> Any:
    return (np.abs(output.astype(np.float64) - target) ** 3).reshape(len(output), -1).mean(axis=1)


def test_errors_by_a_function_of_the_user() -> None:
    diagnosis = of(*LOWLIGHT, error=mean_cubed)
    assert (diagnosis.verdict.advice, diagnosis.measure) == ("convert to instance", "error")
    session = onnxruntime.InferenceSession(LOWLIGHT[0], providers=["CPUExecutionProvider"])
    images = np.load(LOWLIGHT[1])
    by_hand = mean_cubed(session.run(None, {"dark": images["dark"]})[0], images["target"])
    assert diagnosis.modes[0].error == pytest.approx(by_hand.mean(), rel=1e-4)
    assert diagnosis.modes[0].error_std == pytest.approx(by_hand.std(ddof=1) / 4, rel=1e-4)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (lambda output, target: float(np.abs(output - target).mean()), r"shape \(8,\), found \(\)"),
        (lambda output, target: ["much"] * len(target), "did not return numbers"),
    ],
)
def test_a_function_that_gives_no_error_for_each_sample_is_refused(error: Any, says: str) -> None:
    with pytest.raises(CannotRunError, match=says):
        of(*LOWLIGHT, error=error)


def test_psnr_is_shown_in_decibels_and_judged_as_an_error() -> None:
    diagnosis = of(*LOWLIGHT, error="psnr")
    assert diagnosis.verdict.advice == "convert to instance"
    found = errors(diagnosis)
    assert 20 < found["instance"] < 40
    assert found["eval"] < found["instance"] - 10, "the more decibels the better"


def test_targets_that_have_nothing_to_do_with_the_outputs() -> None:
    images = np.load(LOWLIGHT[1])["dark"]
    noise = np.random.default_rng(0).standard_normal(images.shape).astype(np.float32)
    diagnosis = diagnose(LOWLIGHT[0], images, targets=noise)
    assert diagnosis.verdict.advice == "retrain"
    assert "that of returning the mean target for every sample" in diagnosis.verdict.why


def batches_of(data: Path, rng: np.random.Generator | None = None) -> Iterator[dict[str, Array]]:
    images = np.load(data)
    order = np.arange(16) if rng is None else rng.permutation(16)
    for part in (order[:8], order[8:]):
        yield {name: images[name][part] for name in ("dark", "target")}


def test_data_that_can_be_read_only_once() -> None:
    diagnosis = diagnose(LOWLIGHT[0], batches_of(LOWLIGHT[1]))
    assert diagnosis.verdict.advice == "convert to instance"
    assert diagnosis.modes[1].trouble == "that takes a second pass, and these data can be read only once"
    assert diagnosis.verdict.thin == (f"recalibrated was not compared: {diagnosis.modes[1].trouble}",)
    assert diagnosis.fewest is not None


def test_a_loader_that_shuffles() -> None:
    rng = np.random.default_rng(0)
    diagnosis = diagnose(LOWLIGHT[0], lambda: batches_of(LOWLIGHT[1], rng))
    assert diagnosis.verdict.advice == "convert to instance"
    assert "shuffle" in diagnosis.modes[1].trouble
    assert any(sentence.startswith("recalibrated was not compared: ") for sentence in diagnosis.verdict.thin)


@pytest.mark.parametrize(("in_pass", "samples"), [(1, 16), (2, 32)])
def test_an_interrupt_gives_what_was_seen(in_pass: int, samples: int) -> None:
    images = np.load(STUDIO[1])
    passes = []

    def batches() -> Iterator[dict[str, Array]]:
        passes.append(0)
        for start in range(0, 32, 8):
            if len(passes) == in_pass and start == 16:
                raise KeyboardInterrupt
            yield {name: images[name][start : start + 8] for name in ("dark", "target")}

    diagnosis = diagnose(STUDIO[0], batches)
    assert (diagnosis.complete, diagnosis.samples) == (False, samples)
    assert diagnosis.notes[-1] == "it was interrupted; this covers the data that were seen until then"
    assert diagnosis.verdict.advice == "keep eval"
    assert "interrupted" in diagnosis.modes[1].trouble
    whole = {name: images[name][:samples] for name in ("dark", "target")}
    expected = errors(diagnose(STUDIO[0], whole))
    del expected["recalibrated"]
    assert errors(diagnosis) == pytest.approx(expected, rel=1e-6)


def test_an_interrupt_before_anything_was_seen_is_one() -> None:
    def batches() -> Iterator[dict[str, Array]]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        diagnose(STUDIO[0], batches)


def test_an_interrupt_while_the_fewest_layers_are_looked_for_costs_those_alone() -> None:
    def progress(stage: str, done: int, total: int) -> None:
        if stage == "finding the fewest layers" and done == 3:
            raise KeyboardInterrupt

    diagnosis = of(*LOWLIGHT, progress=progress)
    assert (diagnosis.verdict.advice, diagnosis.fewest, diagnosis.complete) == ("convert to instance", None, False)
    assert errors(diagnosis) == errors(of(*LOWLIGHT))


def test_progress_is_in_samples() -> None:
    stages = []
    of(*LOWLIGHT, progress=lambda *stage: stages.append(stage))
    assert stages[:4] == [
        ("running it in 3 ways", 8, 16),
        ("running it in 3 ways", 16, 16),
        ("running it recalibrated", 8, 16),
        ("running it recalibrated", 16, 16),
    ]
    assert {stage for stage, _, _ in stages[4:]} == {"finding the fewest layers"}


def test_a_model_that_takes_one_sample_at_a_time() -> None:
    model = onnx.load(LOWLIGHT[0])
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    diagnosis = diagnose(model, LOWLIGHT[1], targets=LOWLIGHT[1])
    assert [mode.name for mode in diagnosis.modes] == ["eval", "recalibrated", "instance"]
    assert diagnosis.verdict.advice == "convert to instance"


def test_what_keeps_its_mode_is_told_of() -> None:
    diagnosis = diagnose(built(RANK_TWO), np.random.default_rng(0).standard_normal((16, 4), np.float32))
    assert diagnosis.modes[2].trouble.startswith("no layer takes it: y: its input has rank 2")
    assert diagnosis.train.startswith("batch-stat, N = 8: instance does not run: no layer takes it")
    (layer,) = diagnosis.layers
    assert np.isnan(layer.trained.spread) and layer.trained.staleness > 0
    assert "one value in each sample, which has no variance of its own" in layer.remarks
    assert any(
        sentence.startswith("instance was not compared: no layer takes it") for sentence in diagnosis.verdict.thin
    )


BATCH_STATISTICS = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] y) <float[3] scale, float[3] bias> {
  m = ReduceMean <axes = [0, 2, 3], keepdims = 0> (x)
  m4 = ReduceMean <axes = [0, 2, 3], keepdims = 1> (x)
  d = Sub (x, m4)
  s = Mul (d, d)
  v = ReduceMean <axes = [0, 2, 3], keepdims = 0> (s)
  y = BatchNormalization (x, scale, bias, m, v)
}"""


TWO_LAYERS = """<ir_version: 8, opset_import: ["" : 8]>
g (float[N, 4, 8, 8] x) => (float[N, 4, 8, 8] y)
<float[4] other1, float[4] other2, float[4] other3, float[4] other4, float[4] a, float[4] b, float[4] c, float[4] d> {
  n = BatchNormalization (x, other1, other2, other3, other4)
  y = BatchNormalization (n, a, b, c, d)
}"""


def test_what_does_not_stop_a_diagnosis() -> None:
    """Statistics of each place, statistics that are not stored, and outputs that are all the same."""
    places = built(TWO_LAYERS.replace("4] other", "4, 8, 8] other"))
    (norm,) = (node for node in places.graph.node if "n" in node.output)
    norm.attribute.append(onnx.helper.make_attribute("spatial", 0))
    images = np.random.default_rng(0).standard_normal((8, 3, 8, 8), np.float32)
    found = diagnose(places, np.concatenate([images, images[:, :1]], axis=1))
    assert any("for each position" in remark for remark in found.layers[0].remarks)
    assert "in instance 1 of 2 layers were left as they were; see the notes" in found.verdict.thin
    assert any(note.startswith("left as they were in instance: n (spatial=0") for note in found.notes)

    same = built(ONE_LAYER)
    same.graph.node[-1].output[0] = "n"
    zero = onnx.helper.make_node("Constant", [], ["zero"], value_float=0.0)
    same.graph.node.extend([zero, onnx.helper.make_node("Mul", ["n", "zero"], ["y"])])
    found = diagnose(same, images)
    assert [mode.distance for mode in found.modes] == [0.0] * 4
    assert found.verdict.advice == "keep eval"

    found = diagnose(built(BATCH_STATISTICS), images)
    assert "it stores no running statistics" in found.modes[1].trouble


def test_memory_does_not_grow_with_the_data() -> None:
    model = built(ONE_LAYER.replace("8, 8", "128, 128"))
    batch = np.random.default_rng(0).standard_normal((4, 3, 128, 128), np.float32)

    def peak(count: int) -> int:
        tracemalloc.start()
        diagnose(model, lambda: (batch for _ in range(count)))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(2)  # imports
    few, many = peak(4), peak(40)
    assert many - few < batch.nbytes / 4


# The judge.

BEST = np.array([0.1, 0.11, 0.09, 0.1, 0.12, 0.08, 0.1, 0.1, 0.11, 0.09])
ADVICE: dict[str, Advice] = {"eval": "keep eval", "recalibrated": "recalibrate", "instance": "convert to instance"}


def evidence(baseline: float = 1.0, **found: Any) -> Evidence:
    given = {name: np.asarray(values, np.float64) for name, values in found.items()}
    distances = {name: float(np.mean(values)) for name, values in given.items()}
    return Evidence(given, distances, np.array([baseline]), "instance", ADVICE)


JUDGED = {
    "the best is the simplest": (evidence(eval=BEST, recalibrated=BEST * 2, instance=BEST * 2), "keep eval", 0),
    "a little worse does not matter": (evidence(eval=BEST * 1.04, instance=BEST), "keep eval", 0),
    "much worse matters": (evidence(eval=BEST * 2, recalibrated=BEST * 1.5, instance=BEST), "convert to instance", 0),
    "what may be chance is thin": (
        evidence(eval=np.array([0.05, 0.25] * 5), instance=np.array([0.15, 0.1] * 5)), "keep eval", 1,
    ),
    "few samples are thin": (evidence(eval=BEST[:3] * 3, instance=BEST[:3]), "convert to instance", 1),
    "no mode is any good": (evidence(0.1, eval=BEST * 1.2, instance=BEST), "retrain", 0),
    "NaN everywhere": (evidence(eval=BEST * np.nan, instance=BEST * np.nan), "retrain", 0),
    "NaN in eval mode": (evidence(eval=BEST * np.nan, recalibrated=BEST, instance=BEST * 2), "recalibrate", 0),
}  # fmt: skip


@pytest.mark.parametrize(("given", "advice", "thin"), JUDGED.values(), ids=JUDGED)
def test_the_judge(given: Evidence, advice: str, thin: int) -> None:
    verdict = judge(given)
    assert (verdict.advice, len(verdict.thin)) == (advice, thin), verdict


def layer_of(mean: Any, var: Any) -> NormLayer:
    mean, var = np.asarray(mean, np.float32), np.asarray(var, np.float32)
    return NormLayer("y", "eval", len(mean), 1e-5, np.ones_like(mean), np.zeros_like(mean), mean, var)


RNG = np.random.default_rng(0)
OF_ONE = Moments.of_samples(RNG.standard_normal((64, 4)), RNG.uniform(0.5, 1.5, (64, 4)), elements=64, eps=1e-5)
CONSTANT = Moments.of_samples(np.ones((8, 2)), np.zeros((8, 2)), elements=64, eps=1e-5)
REMARKS = {
    "never trained": (layer_of([0] * 4, [1] * 4), None, "before any training"),
    "NaN": (layer_of([0, np.nan, 0, 0], [1, 2, 3, 4]), None, "1 of 4 channels with NaN"),
    "negative": (layer_of([0] * 4, [1, -2, 3, 4]), None, "1 of 4 channels with a negative variance"),
    "dead": (layer_of([1, 1], [1, 2]), CONSTANT, "2 of 2 channels dead"),
    "moved": (layer_of(OF_ONE.pooled_mean + 5, OF_ONE.pooled_var), OF_ONE, "frozen, shifted, or from other data"),
    "batches of one": (layer_of([0] * 4, OF_ONE.within), OF_ONE, "batches of one sample"),
}


@pytest.mark.parametrize(("layer", "moments", "says"), REMARKS.values(), ids=REMARKS)
def test_what_statistics_look_like(layer: NormLayer, moments: Moments | None, says: str) -> None:
    assert any(says in remark for remark in finding_of(layer, moments, moments, moments).remarks)


def test_sound_statistics_are_not_remarked_on() -> None:
    layer = layer_of(OF_ONE.pooled_mean, OF_ONE.pooled_var)
    finding = finding_of(layer, OF_ONE, OF_ONE, OF_ONE)
    assert finding.remarks == ()
    assert finding.trained.staleness == pytest.approx(0, abs=1e-6)
    assert finding.stored_share == pytest.approx(1, abs=1e-3)
    assert finding.trained.spread > 0.1


@pytest.mark.parametrize(
    ("held", "alone", "says"),
    [
        (0.0, True, "hold 0% of the variance between samples, as those of batches of one sample do"),
        (0.11, True, "hold 11% of the variance between samples, as those of batches of one"),
        (0.5, False, "hold 50% of the variance between samples, as those of small batches do"),
        (1.0, False, "as those of larger batches do"),
        (-0.5, False, "are below those within samples"),
    ],
)
def test_batches_of_training_are_told_by_what_stored_variances_hold(held: float, alone: bool, says: str) -> None:
    var = OF_ONE.within + held * OF_ONE.between_var
    found = trained_alone([finding_of(layer_of(OF_ONE.pooled_mean, var), OF_ONE, OF_ONE, OF_ONE)])
    assert found[0] is alone
    assert says in found[1]


def test_errors_are_of_each_sample() -> None:
    target = np.array([[0.0, 1.0], [1.0, 0.0]])
    np.testing.assert_allclose(l1(target + np.array([[0.5], [0.25]]), target), [0.5, 0.25])
    psnr = MEASURES["psnr"]
    np.testing.assert_allclose(psnr.shown(psnr.of(target + np.array([[0.1], [0.01]]), target)), [20, 40], atol=1e-9)


# The command line.


def test_the_command_says_it_first(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["diagnose", str(LOWLIGHT[0]), "--inputs", str(LOWLIGHT[1]), "--targets", str(LOWLIGHT[1])]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0] == "convert to instance: normalize each sample by its own statistics (normswap convert --to instance)"
    )
    assert any(line.startswith("  --only '/stem/stem.1/") for line in lines)
    assert main([*command, "--json", "--error", "psnr"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["advice"] == "convert to instance"
    assert [mode["name"] for mode in printed["modes"]] == ["eval", "recalibrated", "instance", "batch-stat, N = 8"]
    assert len(printed["layers"]) == 9


def as_images(data: Path, count: int) -> tuple[dict[str, Array], list[str]]:
    """Write samples as folders of images; return their values in -1..1, and the options that say so."""
    images = {}
    for name, array in np.load(data).items():
        Path(name).mkdir()
        pixels = np.round((array[:count] + 1) * 127.5).clip(0, 255).astype(np.uint8)
        for number, image in enumerate(pixels):
            Image.fromarray(image.transpose(1, 2, 0)).save(f"{name}/{number:03}.png")
        images[name] = (pixels / 127.5 - 1).astype(np.float32)
    return images, ["--inputs", "dark", "--scale", "-1,1"]


def test_folders_of_images(capsys: pytest.CaptureFixture[str]) -> None:
    images, given = as_images(LOWLIGHT[1], 16)
    assert main(["diagnose", str(LOWLIGHT[0]), *given, "--targets", "target", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    expected = diagnose(LOWLIGHT[0], images).to_dict()
    assert printed["advice"] == expected["advice"] == "convert to instance"
    for found, wanted in zip(printed["modes"], expected["modes"], strict=True):
        assert found["error"] == pytest.approx(wanted["error"], rel=1e-5)
    assert main(["recalibrate", str(LOWLIGHT[0]), *given, "-o", "images.onnx"]) == 0
    normswap.recalibrate(LOWLIGHT[0], [images["dark"][:8], images["dark"][8:]], output="arrays.onnx")
    one, other = (normswap.find(path)[-1].running_var for path in ("images.onnx", "arrays.onnx"))
    assert one is not None and other is not None
    np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_a_terminal_shows_how_far_it_is_and_an_interrupt_gives_what_was_seen() -> None:
    """As a user has it: a bar after a second, Ctrl-C, and the diagnosis of the samples up to then."""
    import pty

    black = np.broadcast_to(np.float32(-1), (4000, 3, 64, 64))
    np.savez_compressed("many.npz", dark=black, target=black)
    words = ["diagnose", str(STUDIO[0]), "--inputs", "many.npz", "--targets", "many.npz", "-o", "page.html"]
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "normswap", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True, start_new_session=True) as running:
        os.close(theirs)
        shown = b""
        while b"/s" not in shown:
            shown += os.read(ours, 4096)
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does
        with contextlib.suppress(OSError):  # which is how the end of a pseudo-terminal is told
            while os.read(ours, 4096):
                pass
        assert running.stdout is not None
        text = running.stdout.read()
    os.close(ours)
    assert b"running it in 3 ways" in shown and b"/4000" in shown
    assert running.returncode == 130
    assert "way of running it" in text
    assert "note: it was interrupted; this covers the data that were seen until then" in text
    assert "it was interrupted; this covers" in Path("page.html").read_text(encoding="utf-8")


def test_onnx_takes_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; from normswap.cli import main; sys.exit(main())"
    words = ["diagnose", str(STUDIO[0]), "--inputs", str(STUDIO[1]), "--targets", str(STUDIO[1]), "-o", "page.html"]
    found = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.startswith("keep eval: ")


REFUSED = {
    "lost.npz": "lost.npz: expected an .npz or .npy file, or a folder",
    f"{LOWLIGHT[1]} --batch-size 0": "Invalid value for '--batch-size'",
    f"{LOWLIGHT[1]} --scale 0,1": "--scale is for images",
}


@pytest.mark.parametrize(("options", "says"), REFUSED.items())
def test_what_is_refused(options: str, says: str, refused: Refused) -> None:
    assert says in refused("diagnose", str(LOWLIGHT[0]), "--inputs", *options.split())
