"""diagnose: what it advises for models whose right fix is known, and what it says of their layers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import ROOT, Refused
from shifted_statistics import shifted

import normswap
from normswap import Diagnosis, diagnose
from normswap.cli import main
from normswap.diagnosis.layers import finding_of
from normswap.diagnosis.measures import MEASURES, l1
from normswap.diagnosis.verdict import Advice, Evidence, judge
from normswap.factory import build
from normswap.layer import Array, NormLayer
from normswap.moments import Moments

FIXTURES = ROOT / "fixtures"
LOWLIGHT = (FIXTURES / "lowlight.onnx", FIXTURES / "lowlight_images.npz")
STUDIO = (FIXTURES / "studio.onnx", FIXTURES / "studio_images.npz")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def of(model: Any, data: Path, **options: Any) -> Diagnosis:
    return diagnose(model, data, targets=data, **options)


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


def test_an_interrupt_gives_what_was_seen() -> None:
    images = np.load(STUDIO[1])
    passes = []

    def batches() -> Iterator[dict[str, Array]]:
        passes.append(0)
        for start in range(0, 32, 8):
            if len(passes) == 3 and start == 16:
                raise KeyboardInterrupt
            yield {name: images[name][start : start + 8] for name in ("dark", "target")}

    diagnosis = diagnose(STUDIO[0], batches)
    assert (diagnosis.complete, diagnosis.samples) in {(False, 16), (True, 32)}
    if not diagnosis.complete:
        assert any("interrupted" in note for note in diagnosis.notes)


# The judge.

BEST = np.array([0.1, 0.11, 0.09, 0.1, 0.12, 0.08, 0.1, 0.1, 0.11, 0.09])
ADVICE: dict[str, Advice] = {"eval": "keep eval", "recalibrated": "recalibrate", "instance": "convert to instance"}


def evidence(baseline: float = 1.0, **found: Any) -> Evidence:
    given = {name: np.asarray(values, np.float64) for name, values in found.items()}
    return Evidence(given, given, 1.0, np.array([baseline]), "instance", ADVICE)


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
    assert lines[0] == "convert to instance: normalize each sample by its own statistics (normswap convert --to instance)"
    assert any(line.startswith("  --only '/stem/stem.1/") for line in lines)
    assert main([*command, "--json", "--error", "psnr"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["advice"] == "convert to instance"
    assert [mode["name"] for mode in told["modes"]] == ["eval", "recalibrated", "instance", "batch-stat, N = 8"]
    assert len(told["layers"]) == 9


REFUSED = {
    "lost.npz": "lost.npz: expected an .npz or .npy file, or a folder",
    f"{LOWLIGHT[1]} --batch-size 0": "Invalid value for '--batch-size'",
    f"{LOWLIGHT[1]} --scale 0,1": "--scale is for images",
}


@pytest.mark.parametrize(("options", "says"), REFUSED.items())
def test_what_is_refused(options: str, says: str, refused: Refused) -> None:
    assert says in refused("diagnose", str(LOWLIGHT[0]), "--inputs", *options.split())
