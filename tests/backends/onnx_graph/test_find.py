"""Every BatchNorm is found, with its role, its parameters and its shape; nothing else is."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from support.models.cases import CASES, C, Case, build, parameter
from support.models.everything import MODELS
from support.work import counting_calls

import normswap


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model.roles is not None])
def test_roles(name: str) -> None:
    model = MODELS[name]
    found = normswap.find(model.build(), inputs=model.inputs())
    assert {layer.name: layer.role for layer in found} == model.roles
    assert len(found) == len(model.roles or {})


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_every_node_is_found_once_for_each_call(case: Case) -> None:
    names = [layer.name for layer in normswap.find(build(case.text))]
    assert len(names) == len(set(names)) == len(case.roles)


@pytest.mark.parametrize(
    ("case", "name", "eps", "scale", "mean"),
    [
        ("opset 6, is_test=1", "y", 0.01, "s", "m"),
        ("default epsilon", "y", 1e-5, "s", "m"),
        ("float16", "y", 0.01, "sh", "mh"),
        ("bfloat16", "y", 0.01, "se", "me"),
        ("Identity and Cast chains, Constant nodes", "y", 0.01, "s", "mh"),
        ("If and Loop, parameters in outer scopes", "out:body/z2", 0.03, "s3", "m3"),
        ("local function, called three times", "f2/n/n", 0.2, "s2", "m2"),
        ("local function, called three times", "out/n", 0.03, "s3", "m3"),
    ],
)
def test_parameters(case: str, name: str, eps: float, scale: str, mean: str) -> None:
    (layer,) = (layer for layer in normswap.find(build(CASES[case].text)) if layer.name == name)
    assert layer.weight is not None
    assert layer.running_mean is not None
    assert layer.num_features == C
    assert layer.eps == pytest.approx(eps, rel=1e-6)
    np.testing.assert_array_equal(layer.weight, parameter(scale))
    np.testing.assert_array_equal(layer.running_mean, parameter(mean).astype(layer.running_mean.dtype))


@pytest.mark.parametrize(
    ("case", "shape", "dtype"),
    [
        ("opset 9", ("N", 4, 6, 5), "float32"),
        ("rank 2", ("N", 4), "float32"),
        ("rank 5", ("N", 4, 3, 2, 3), "float32"),
        ("unknown rank", None, "float32"),
        ("float64", ("N", 4, 6, 5), "float64"),
        ("float16 with float32 parameters", ("N", 4, 6, 5), "float16"),
        ("local function, called three times", ("N", 4, 6, 5), "float32"),
    ],
)
def test_shapes_and_types(case: str, shape: tuple[int | str, ...] | None, dtype: str) -> None:
    for layer in normswap.find(build(CASES[case].text)):
        assert (layer.shape, layer.dtype) == (shape, dtype)


@pytest.mark.parametrize(
    "node",
    [
        "y = InstanceNormalization(x, s, b)",
        "y = GroupNormalization<num_groups=2>(x, s, b)",
        "y = LpNormalization(x)",
        "y = Relu(x)",
    ],
)
def test_noop(node: str) -> None:
    text = f'<ir_version: 10, opset_import: ["" : 21]> g (float[N,4,6,5] x) => (float[N,4,6,5] y) {{ {node} }}'
    assert normswap.find(build(text)) == ()


def test_a_function_that_nothing_calls_is_reported() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "pkg" : 1]>
    g (float[N,4,6,5] x) => (float[N,4,6,5] y) { y = Relu(x) }
    <domain: "pkg", opset_import: ["" : 17]> norm (a, s, b, m, v) => (r) { r = BatchNormalization(a, s, b, m, v) }"""
    (layer,) = normswap.find(onnx.parser.parse_model(text))
    assert "never called" in layer.blocked


def test_a_batch_norm_of_a_foreign_domain_is_reported() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "acme" : 1]> g (float[N,4,6,5] x) => (float[N,4,6,5] y)
    { y = acme.FusedBatchNormRelu(x, s, b, m, v) }"""
    (layer,) = normswap.find(build(text))
    assert (layer.role, "'acme'" in layer.blocked) == ("unknown", True)


def test_external_data_are_read(tmp_path: Path) -> None:
    model = build(CASES["opset 9"].text)
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, size_threshold=0)
    (layer,) = normswap.find(path)
    assert layer.running_var is not None
    np.testing.assert_array_equal(layer.running_var, parameter("v"))


@pytest.mark.parametrize(
    "nodes",
    [
        "k = Identity(j) j = Identity(k) y = BatchNormalization(x, k, b, m, v)",
        "k = Add(j, x) j = Neg(k) i = ReduceMean<axes=[0,2,3], keepdims=0>(k) y = BatchNormalization(x, s, b, i, v)",
        "y = BatchNormalization(y, s, b, m, v)",
    ],
)
def test_nodes_in_a_circle_are_refused(nodes: str) -> None:
    text = f'<ir_version: 8, opset_import: ["" : 17]> g (float[N,4,6,5] x) => (float[N,4,6,5] y) {{ {nodes} }}'
    with pytest.raises(normswap.ModelReadError, match="in a circle"):
        normswap.find(build(text))


@pytest.mark.parametrize("step", ["Neg", "Cast <to=1>", "Identity"])
def test_a_parameter_at_the_end_of_a_long_row_is_read(step: str) -> None:
    """Longer than Python's stack is deep."""
    row = " ".join(f"k{index + 1} = {step}(k{index})" for index in range(2000)).replace("(k0)", "(m)")
    text = f"""<ir_version: 8, opset_import: ["" : 17]> g (float[N,4,6,5] x) => (float[N,4,6,5] y)
    {{ {row} y = BatchNormalization(x, s, b, k2000, v) }}"""
    (layer,) = normswap.find(build(text))
    assert layer.running_mean is not None
    np.testing.assert_array_equal(layer.running_mean, parameter("m"))


def test_statistics_at_the_end_of_a_long_row_cost_one_walk() -> None:
    """The row is walked once, not once from each of its steps."""
    row = " ".join(f"k{index + 1} = Cast<to=1>(k{index})" for index in range(3000))
    text = f"""<ir_version: 8, opset_import: ["" : 17]> g (float[N,4,6,5] x) => (float[N,4,6,5] y)
    {{ k0 = ReduceMean<axes=[0,2,3], keepdims=0>(x) {row} y = BatchNormalization(x, s, b, k3000, v) }}"""
    model = build(text)
    (layer,), calls = counting_calls(lambda: normswap.find(model))
    assert "variance" not in layer.role and layer.role == "unknown"
    assert calls <= 400_000  # a walk from each step would take millions


@pytest.mark.parametrize("huge", ["ConstantOfShape(size)", "Expand(m, size)", "Tile(m, count)"])
def test_a_parameter_is_not_computed_from_more_than_a_parameter_can_need(huge: str) -> None:
    """Of a file of a kilobyte: a mean that is the greatest of as many numbers as the file cares to say."""
    text = f"""<ir_version: 8, opset_import: ["" : 17]> g (float[N,4,6,5] x) => (float[N,4,6,5] y)
    <int64[2] size = {{40000000, 4}}, int64[1] count = {{40000000}}, int64[2] rows = {{-1, 4}}>
    {{ k = {huge} r = Reshape(k, rows) m1 = ReduceMax<axes=[0], keepdims=0>(r)
      y = BatchNormalization(x, s, b, m1, v) }}"""
    tracemalloc.start()
    try:
        (layer,) = normswap.find(build(text))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert layer.running_mean is None
    assert most < 64 << 20
