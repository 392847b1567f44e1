"""A graph with a slip in it is never given a role that its numbers deny."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from support.models.written_norms import NHWC, PARAMETERS, ROLES, model
from support.oracles.expression_values import Numbers
from support.oracles.graph_slips import slipped

from normswap.algebra.expressions import Expr, Parameter
from normswap.algebra.search import Normalization, find
from normswap.algebra.values import Tensor
from normswap.backends.onnx_graph.graph.model import OnnxModel
from normswap.backends.onnx_graph.view import GraphView

STORED = f"{PARAMETERS}, float[4, 1, 1, 1] g4, float[4, 1, 1, 1] b4"
SHAPES = {"N, 4": (5, 4), "N, 4, D, H, W": (3, 4, 2, 5, 6), NHWC: (3, 5, 6, 4)}
SLIPS = 30  # for each way to write a normalization


def run(proto: onnx.ModelProto, x: Any) -> dict[str, Any] | None:
    """Every value of a graph, None where it does not run."""
    shown = onnx.ModelProto()
    shown.CopyFrom(proto)
    have = {value.name for value in shown.graph.output}
    names = [name for node in shown.graph.node for name in node.output if name not in have]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
        outputs = [value.name for value in session.get_outputs()]
        return {"i": x, **dict(zip(outputs, session.run(outputs, {"i": x}), strict=True))}
    except Exception:  # whatever a runtime has against a graph with a slip
        return None


def by_role(graph: GraphView, layer: Normalization, x: Any) -> Any:
    """What the role says is computed, by NumPy: its expressions count for gain, offset and stored statistics alone."""
    form, hit = layer.hit.form, layer.hit

    def number(value: Expr) -> Any:
        names = {atom.name for atom in value.atoms() if isinstance(atom, Parameter)}
        parameters = {name: graph.array(name) for name in names}  # type: ignore[arg-type]  # names are keys here
        numbers = Numbers(x, hit.layout, hit.axes, parameters)
        return numbers.tensor(Tensor(value, hit.layout)).astype(np.float64)

    wide = x.astype(np.float64)
    over = layer.meaning.over
    if layer.role == "eval":
        m, v = number(form.m), number(form.v)
    elif layer.role == "rms-norm":
        m, v = 0.0, (wide * wide).mean(over, keepdims=True)
    else:
        m, v = wide.mean(over, keepdims=True), wide.var(over, keepdims=True)
    return (wide - m) / np.sqrt(v + float(layer.eps)) * number(form.g) + number(form.b)


@pytest.mark.parametrize("name", ROLES)
def test_no_role_is_false(name: str) -> None:
    body, dims, _, _ = ROLES[name]
    right = model(body, dims, stored=STORED).proto
    rng = Random(name)
    x = np.random.default_rng(0).uniform(0.5, 3, SHAPES.get(dims, (3, 4, 5, 6))).astype(np.float32)
    for graph in (right, *(slipped(right, rng) for _ in range(SLIPS))):
        confirm(graph, x)


def confirm(proto: onnx.ModelProto, x: Any) -> int:
    """Hold every role that is found to the numbers of a run; return how many there are."""
    values = run(proto, x)
    if values is None:
        return 0
    view = GraphView(OnnxModel(proto))
    count = 0
    for layer in find(view).found:
        if layer.role in ("unknown", "renorm", "group"):
            continue
        y = values[layer.y[1]]
        with np.errstate(all="ignore"):
            expected = by_role(view, layer, values[layer.x[1]])
        assert sorted(place for place in layer.places if place is not None) == list(range(expected.ndim))
        order = [place for place in layer.places if place is not None]
        expected = expected.transpose(order).reshape(y.shape)
        finite = np.isfinite(expected) & (np.abs(expected) < 1e6)
        scale = 1 + np.max(np.abs(expected[finite]), initial=0.0)
        assert np.all(np.abs(y[finite] - expected[finite]) <= 1e-3 * scale), layer.role
        count += 1
    return count
