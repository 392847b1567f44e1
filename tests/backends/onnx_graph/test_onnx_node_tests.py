"""onnx's own backend node tests for BatchNormalization: found, converted, verified, and the values they expect."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.backend.test.case.node import collect_testcases
from support.models.targets import asked

import normswap
from normswap import NORMS
from normswap.layer import Array

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # onnx's tests of other operators overflow on purpose as they are collected
    TESTS: dict[str, Any] = {
        test.name: test for test in collect_testcases("BatchNormalization") if test.name.startswith("test_batchnorm_")
    }
TRAINING = [name for name in TESTS if name.endswith("_training_mode")]
INFERENCE = [name for name in TESTS if not name.endswith(("_training_mode", "_expanded"))]


def values_of(test: Any) -> tuple[dict[str, Array], Array]:
    inputs, outputs = test.data_sets[0]
    return dict(zip([value.name for value in test.model.graph.input], inputs, strict=True)), outputs[0]


def run(model: onnx.ModelProto, feed: dict[str, Array]) -> Array:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], feed)[0])


def test_there_are_some_of_both_kinds() -> None:
    assert len(TRAINING) >= 2
    assert len(INFERENCE) >= 2


@pytest.mark.parametrize("to", ["instance", "batch-stat"])
@pytest.mark.parametrize("name", INFERENCE)
def test_inference(name: str, to: str) -> None:
    feed, _ = values_of(TESTS[name])
    (layer,) = normswap.find(TESTS[name].model)
    assert layer.role == "eval"
    report = normswap.convert(TESTS[name].model, to, **asked(to), inputs=feed).report
    assert report.ok, report.to_text()


@pytest.mark.parametrize("to", NORMS)
@pytest.mark.parametrize("name", TRAINING)
def test_training_outputs_that_are_read_are_refused(name: str, to: str) -> None:
    (layer,) = normswap.find(TESTS[name].model)
    assert layer.role == "train"
    with pytest.raises(normswap.RefusedLayersError, match="running statistics"):
        normswap.convert(TESTS[name].model, to, **asked(to))


@pytest.mark.parametrize("name", TRAINING)
def test_training_without_them_gives_the_expected_value(name: str) -> None:
    feed, expected = values_of(TESTS[name])
    conversion = normswap.convert(TESTS[name].model, "batch-stat", inputs=feed, drop_statistics=True)
    assert conversion.report.ok, conversion.report.to_text()
    np.testing.assert_allclose(run(conversion.model.proto, feed), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", TRAINING)
def test_training_without_them_converts_to_instance(name: str) -> None:
    feed, _ = values_of(TESTS[name])
    report = normswap.convert(TESTS[name].model, "instance", inputs=feed, drop_statistics=True).report
    assert report.ok, report.to_text()


@pytest.mark.parametrize("name", TRAINING)
def test_training_to_population_gives_the_value_of_the_inference_test(name: str) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(TESTS[name].model)
    feed, _ = values_of(TESTS[name])
    for value, word in zip(feed.values(), list(feed), strict=True):
        if word in ("mean", "var", "s", "bias"):
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, word))
    kept = [value for value in model.graph.input if value.name == "x"]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    conversion = normswap.convert(model, "population", inputs={"x": feed["x"]}, drop_statistics=True)
    assert conversion.report.ok, conversion.report.to_text()
    inference = TESTS[name.removesuffix("_training_mode")]
    expected = run(inference.model, {**feed})
    np.testing.assert_allclose(run(conversion.model.proto, {"x": feed["x"]}), expected, rtol=1e-6, atol=1e-6)
