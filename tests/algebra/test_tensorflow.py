"""TensorFlow's exports are read rightly: every normalization by its role, and its numbers are those of a run.

The models are no part of the project; they are looked for next to the corpus of third-party models.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from support import ROOT
from support.oracles.expression_values import Numbers

from normswap.algebra.expressions import Parameter
from normswap.algebra.search import Normalization, Survey, find
from normswap.backends.onnx_graph.graph.model import OnnxModel, load
from normswap.backends.onnx_graph.view import GraphView

CORPUS = Path(os.environ.get("NORMSWAP_CORPUS", ROOT.parent / "shared" / "corpus"))
MODELS = CORPUS.parent / "tf"
pytestmark = pytest.mark.skipif(
    not (MODELS / "index.json").exists(), reason="the TensorFlow models are not next to the corpus"
)
INDEX: dict[str, Any] = json.loads((MODELS / "index.json").read_text()) if (MODELS / "index.json").exists() else {}

# How many layers of what role each model has, by the beginning of its name, the longest first; a model of an eval-mode
# layer behind a Conv has none left, since tf2onnx folds it, and nor have those that Keras 2 loses train mode of.
ROLES: dict[str, dict[str, int]] = {
    "contrib_fused": {"batch-stat": 1},
    "contrib_nonfused": {"batch-stat": 1},
    "contrib_nonfused_relu_eval": {},
    "dualgan_cycle": {"batch-stat": 12},
    "dualgan_moments12": {"instance": 1},
    "keras2_": {},
    "keras2_renorm_train": {"renorm": 1},
    "keras3_": {},
    "keras3_dense_train": {"batch-stat": 1},
    "keras3_function_train": {"batch-stat": 1},
    "pix2pix_4down_train": {"batch-stat": 6},
    "pix2pix_contrib_fused_train": {"batch-stat": 6},
    "pix2pix_dropout_train": {"batch-stat": 6},
    "pix2pix_eval": {"eval": 5},
    "pix2pix_train": {"batch-stat": 8},
    "v1_fused_eval": {},
    "v1_fused_placeholder": {"batch-stat": 1, "eval": 1},
    "v1_fused_relu_eval": {"eval": 1},
    "v1_fused_": {"batch-stat": 1},
    "v1_nonfused_": {"batch-stat": 1},
    "v1_nonfused_eval": {},
    "v1_renorm_inference": {},
    "v1_renorm_train": {"renorm": 1},
}


def expected(name: str) -> dict[str, int]:
    return ROLES[max((start for start in ROLES if name.startswith(start)), key=len)]


def survey(model: OnnxModel) -> Survey:
    return find(GraphView(model))


@pytest.mark.parametrize("name", INDEX)
def test_every_normalization_is_found_with_its_role(name: str) -> None:
    found = survey(load(MODELS / f"{name}.onnx"))
    assert not found.missed
    assert Counter(layer.role for layer in found.found) == expected(name)
    for layer in found.found:
        assert layer.meaning.channel_axis == 1
        held = (layer.gamma, layer.beta)
        assert all(value is not None for value in held) == (layer.role != "renorm")
        assert layer.serves
    assert all(layer.other is None for layer in found.found)


@pytest.mark.parametrize("name", [name for name in INDEX if expected(name)])
def test_what_is_read_is_what_is_computed(name: str) -> None:
    """Each layer's expression, with the numbers of the run, gives the value that the runtime has for it."""
    model = load(MODELS / f"{name}.onnx")
    graph = GraphView(model)
    layers = [layer for layer in find(graph).found if layer.y[0] == () and layer.x[0] == ()]
    if not layers:  # inside an If, whose values a run does not show
        assert "placeholder" in name
        return
    run = values_of(model, {key[1] for layer in layers for key in (layer.x, layer.y)}, name)
    for layer in layers:
        found = expression_of(graph, layer, run[layer.x[1]])
        value = run[layer.y[1]]
        assert np.max(np.abs(found - value)) <= 2e-4 * max(1.0, float(np.max(np.abs(value))))


def values_of(model: OnnxModel, names: set[str], name: str) -> dict[str, Any]:
    shown = onnx.ModelProto()
    shown.CopyFrom(model.proto)
    have = {value.name for value in shown.graph.output}
    shown.graph.output.extend(onnx.ValueInfoProto(name=value) for value in sorted(names - have))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    with np.load(MODELS / f"{name}.npz") as archive:
        feed = {key.removeprefix("input:"): archive[key] for key in archive.files if key.startswith("input:")}
    known = {value.name for value in session.get_inputs()}
    outputs = [value.name for value in session.get_outputs()]
    results = session.run(outputs, {key: value for key, value in feed.items() if key in known})
    return {**feed, **dict(zip(outputs, results, strict=True))}


def expression_of(graph: GraphView, layer: Normalization, x: Any) -> Any:
    hit = layer.hit
    names = {atom.name for atom in hit.tensor.expr.atoms() if isinstance(atom, Parameter)}
    parameters = {key: graph.array(key) for key in names}  # type: ignore[arg-type]  # names of a graph are its keys
    return Numbers(x, hit.layout, hit.axes, parameters).tensor(hit.tensor)
