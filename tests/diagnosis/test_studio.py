"""The second shipped model: eval mode serves it best, until its running statistics are shifted, which data undo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from support import ROOT
from support.models.shifted_statistics import recalibrated, run, shifted

import normswap
from normswap.layer import Array

STUDIO = ROOT / "fixtures" / "studio.onnx"


def images() -> tuple[Array, Array]:
    with np.load(ROOT / "fixtures" / "studio_images.npz") as archive:
        return archive["dark"], archive["target"]


def error(model: onnx.ModelProto, batch_size: int = 32) -> float:
    """Return the mean L1 error on the held-back images, so many at a time."""
    dark, target = images()
    starts = range(0, len(dark), batch_size)
    restored = np.concatenate([run(model, dark[start : start + batch_size])["restored"] for start in starts])
    return float(np.mean(np.abs(restored.astype(np.float64) - target)))


def converted(to: str, tmp_path: Path) -> onnx.ModelProto:
    path = tmp_path / "converted.onnx"
    assert normswap.convert(STUDIO, to, output=path).report.ok
    return onnx.load(path)


def test_eval_mode_beats_the_statistics_of_each_sample_and_of_batches(tmp_path: Path) -> None:
    in_eval_mode = error(onnx.load(STUDIO))
    assert error(converted("instance", tmp_path)) > 1.5 * in_eval_mode


@pytest.mark.parametrize("batch_size", [8, 32])
def test_eval_mode_beats_the_statistics_of_batches(batch_size: int, tmp_path: Path) -> None:
    assert error(converted("batch-stat", tmp_path), batch_size) > error(onnx.load(STUDIO))


def test_recalibrating_does_not_help_it() -> None:
    model = onnx.load(STUDIO)
    assert error(recalibrated(model, images()[0])) > error(model)


@pytest.mark.parametrize("seed", range(3))
def test_shifted_statistics_ruin_it_and_those_of_the_data_restore_it(seed: int) -> None:
    model = onnx.load(STUDIO)
    ruined = shifted(model, seed)
    restored = recalibrated(ruined, images()[0])
    assert error(ruined) > 2 * error(model)
    assert error(restored) < 1.15 * error(model)
    again = recalibrated(model, images()[0])
    assert restored.SerializeToString() == again.SerializeToString(), "the shift has left a trace"


def test_statistics_by_hand_are_those_of_batch_stat(tmp_path: Path) -> None:
    dark, _ = images()
    found = run(recalibrated(onnx.load(STUDIO), dark), dark)["restored"]
    np.testing.assert_allclose(found, run(converted("batch-stat", tmp_path), dark)["restored"], rtol=0, atol=1e-4)


def test_the_fixture_is_small_and_takes_any_batch() -> None:
    model = onnx.load(STUDIO)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert {len(node.output) for node in model.graph.node if node.op_type == "BatchNormalization"} == {1}
    assert STUDIO.stat().st_size + (ROOT / "fixtures" / "studio_images.npz").stat().st_size < 1e6
