"""A reader fills a site, and everything else goes by it: an operator whose inputs stand in another order converts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from support.models.small_models import built

import normswap
from normswap.backends import onnx_graph
from normswap.backends.onnx_graph.find import READERS
from normswap.backends.onnx_graph.graph.model import OnnxModel
from normswap.backends.onnx_graph.graph.scopes import Scope
from normswap.backends.onnx_graph.site import Site, Slot
from normswap.layer import NormLayer
from normswap.statistics.collect import Collection

NAME = "y"
BACKWARDS = """
<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
backwards (float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] z)
<float[3] var, float[3] mean, float[3] bias, float[3] scale> {
  r = Relu (x)
  y = own.Norm <epsilon: float = 0.25> (var, mean, bias, scale, r)
  z = Sigmoid (y)
}
"""


def read_backwards(scope: Scope, node: onnx.NodeProto) -> Site:
    """Read an operator that takes (var, mean, bias, scale, x)."""
    var, mean, bias, scale, x = node.input
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in scope.model.proto.graph.initializer}
    layer = NormLayer(
        NAME, "eval", 3, 0.25, stored[scale], stored[bias], stored[mean], stored[var], "float32", ("N", 3, 8, 8)
    )
    return Site(layer, scope, node, x, scale, bias, mean, var, mean_slot=Slot(node, 1), var_slot=Slot(node, 0))


def reads_scale_as_bias(scope: Scope, node: onnx.NodeProto) -> Site:
    """Confuse two inputs."""
    site = read_backwards(scope, node)
    return Site(
        site.layer, scope, node, site.x, site.bias, site.scale, site.mean, site.var,
        mean_slot=site.mean_slot, var_slot=site.var_slot,
    )  # fmt: skip


@pytest.fixture
def model() -> onnx.ModelProto:
    return built(BACKWARDS)


def read_by(monkeypatch: pytest.MonkeyPatch, reader: Callable[[Scope, onnx.NodeProto], Site]) -> None:
    monkeypatch.setitem(READERS, ("own", "Norm"), reader)


@pytest.mark.parametrize("target", ["instance", "batch-stat"])
def test_one_reader_and_one_entry_convert_an_operator(
    monkeypatch: pytest.MonkeyPatch, model: onnx.ModelProto, target: str
) -> None:
    read_by(monkeypatch, read_backwards)
    conversion = normswap.convert(model, to=target, end_to_end=False)
    assert conversion.report.ok
    assert [node.domain for node in conversion.model.proto.graph.node if node.domain] == []
    assert {t.name for t in conversion.model.proto.graph.initializer} == {"bias", "scale"}


def test_probes_tell_a_reader_that_confuses_inputs(monkeypatch: pytest.MonkeyPatch, model: onnx.ModelProto) -> None:
    read_by(monkeypatch, reads_scale_as_bias)
    report = normswap.convert(model, to="instance", end_to_end=False).report
    assert not report.ok
    assert {check.witness for check in report.failed} == {"probes"}


def test_statistics_are_collected_where_the_site_says(monkeypatch: pytest.MonkeyPatch, model: onnx.ModelProto) -> None:
    read_by(monkeypatch, read_backwards)
    batch = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
    collection = Collection(model, "instance")
    collection.add(batch)
    np.testing.assert_allclose(
        collection.moments[NAME].pooled_mean, np.maximum(batch, 0).mean((0, 2, 3)), rtol=1e-5, atol=1e-7
    )


def test_new_statistics_enter_where_the_site_says(monkeypatch: pytest.MonkeyPatch, model: onnx.ModelProto) -> None:
    read_by(monkeypatch, read_backwards)
    before = OnnxModel(model)
    mean, var = np.arange(3.0), np.arange(3.0) + 5
    after = onnx_graph.recalibrated(before, {NAME: (mean, var)})
    assert all(check.ok for check in onnx_graph.compare_recalibrated(before, after, [NAME]))
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in after.proto.graph.initializer}
    np.testing.assert_array_equal(stored["mean"], mean)
    np.testing.assert_array_equal(stored["var"], var)
    for tensor in after.proto.graph.initializer:
        if tensor.name == "scale":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(3, 9, np.float32), "scale"))
    assert not all(check.ok for check in onnx_graph.compare_recalibrated(before, after, [NAME]))
