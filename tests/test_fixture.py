"""The shipped model: eval mode ruins it, and converting to instance restores it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import ROOT
from targets import asked

import normswap
from normswap.layer import Array

FIXTURES = ROOT / "fixtures"


def images() -> tuple[Array, Array]:
    with np.load(FIXTURES / "lowlight_images.npz") as archive:
        return archive["dark"], archive["target"]


def run(path: Path, x: Array) -> Array:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"dark": x})[0])


def one_by_one(path: Path, x: Array) -> Array:
    return np.concatenate([run(path, sample[None]) for sample in x])


def l1(x: Array, y: Array) -> float:
    return float(np.mean(np.abs(x.astype(np.float64) - y.astype(np.float64))))


def test_eval_mode_is_at_least_three_times_worse() -> None:
    dark, target = images()
    eval_error = l1(run(FIXTURES / "lowlight.onnx", dark), target)
    own_error = l1(one_by_one(FIXTURES / "lowlight_train.onnx", dark), target)
    assert eval_error > 3 * own_error


def test_converting_to_instance_restores_it(tmp_path: Path) -> None:
    dark, target = images()
    path = tmp_path / "instance.onnx"
    conversion = normswap.convert(
        FIXTURES / "lowlight.onnx", "instance", inputs=FIXTURES / "lowlight_images.npz", output=path
    )
    assert conversion.report.ok
    own = one_by_one(FIXTURES / "lowlight_train.onnx", dark)
    found = run(path, dark)  # all at once: samples do not mix
    (bound,) = {check.bound for check in conversion.report.of("end to end") if "optimized" in check.name}
    assert bound is not None
    # lowlight_train is run with native kernels and the default optimisations, as users run it.
    np.testing.assert_allclose(found, own, rtol=0, atol=2 * bound)
    assert l1(found, target) == pytest.approx(l1(own, target), rel=1e-3)


def test_converting_the_train_mode_file_gives_the_same(tmp_path: Path) -> None:
    dark, _ = images()
    outputs = []
    for name in ("lowlight.onnx", "lowlight_train.onnx"):
        path = tmp_path / name
        assert normswap.convert(FIXTURES / name, "instance", output=path).report.ok
        outputs.append(run(path, dark))
    np.testing.assert_array_equal(outputs[0], outputs[1])


def test_population_turns_the_train_mode_file_into_the_eval_mode_file(tmp_path: Path) -> None:
    dark, _ = images()
    path = tmp_path / "population.onnx"
    assert normswap.convert(FIXTURES / "lowlight_train.onnx", "population", output=path).report.ok
    np.testing.assert_array_equal(run(path, dark), run(FIXTURES / "lowlight.onnx", dark))


def test_the_two_files_hold_the_same_tensors() -> None:
    tensors = [
        {t.name: t for t in onnx.load(FIXTURES / name).graph.initializer}
        for name in ("lowlight.onnx", "lowlight_train.onnx")
    ]
    assert tensors[0] == tensors[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lowlight.onnx", "lowlight_train.onnx"])
def test_no_false_alarm_over_twenty_seeds(name: str) -> None:
    for seed in range(20):
        for to in ("instance", "batch-stat") if name == "lowlight.onnx" else ("instance", "batch-stat", "population"):
            report = normswap.convert(FIXTURES / name, to, **asked(to), seed=seed).report
            assert report.ok, f"seed {seed}: {report.to_text()}"
