"""The search does work in proportion to the graph, and says where it came to a bound."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper
from support.models.written_norms import model, two_pass
from support.work import counting_calls

from normswap.algebra.search import find
from normswap.backends.onnx_graph.graph.model import OnnxModel
from normswap.backends.onnx_graph.graph.scopes import Scope, walk
from normswap.backends.onnx_graph.graph.shapes import Types
from normswap.backends.onnx_graph.view import GraphView

CALLS_PER_NODE = 2


def chain(nodes: list[onnx.NodeProto], last: str) -> OnnxModel:
    """A graph from v0 to its last value."""
    dims: list[str | int | None] = ["N", 4, "H", "W"]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("v0", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, dims)],
        [onnx.numpy_helper.from_array(np.float32(1e-3), "e")],
    )
    return OnnxModel(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def sums(count: int) -> OnnxModel:
    nodes = [onnx.NodeProto(op_type="Add", input=[f"v{i}", f"v{i}"], output=[f"v{i + 1}"]) for i in range(count)]
    return chain(nodes, f"v{count}")


def layers(count: int) -> OnnxModel:
    nodes = []
    for i in range(count):
        nodes += [
            helper.make_node("Relu", [f"v{i}"], [f"x{i}"]),
            helper.make_node("ReduceMean", [f"x{i}"], [f"m{i}"], axes=[0, 2, 3]),
            helper.make_node("Sub", [f"x{i}", f"m{i}"], [f"d{i}"]),
            helper.make_node("Mul", [f"d{i}", f"d{i}"], [f"q{i}"]),
            helper.make_node("ReduceMean", [f"q{i}"], [f"w{i}"], axes=[0, 2, 3]),
            helper.make_node("Add", [f"w{i}", "e"], [f"a{i}"]),
            helper.make_node("Sqrt", [f"a{i}"], [f"s{i}"]),
            helper.make_node("Div", [f"d{i}", f"s{i}"], [f"v{i + 1}"]),
        ]
    return chain(nodes, f"v{count}")


def test_a_long_graph_costs_a_few_calls_for_each_node_where_nothing_is_found() -> None:
    long = sums(100_000)
    # Walking and inferring types is what reading the layers takes anyway.
    scopes = [Scope(long, long.proto.graph, opsets={"": 17}, types=Types({}))]
    found, calls = counting_calls(lambda: find(GraphView(long, scopes)))
    assert not found.found
    assert calls <= CALLS_PER_NODE * 100_000


def test_work_grows_with_the_graph_and_no_faster() -> None:
    def work_on(count: int) -> int:
        long = layers(count)
        scopes = tuple(walk(long))
        survey, calls = counting_calls(lambda: find(GraphView(long, scopes)))
        assert len(survey.found) == count
        return calls

    assert work_on(100) <= 4.4 * work_on(25)


@pytest.mark.parametrize("count", [10, 300])
def test_a_search_that_comes_to_its_bound_says_so(count: int) -> None:
    steps = "\n".join(f"a{i + 1} = Neg (a{i})" for i in range(count))
    body = two_pass([0, 2, 3]).replace("q = Mul (d, d)", f"a0 = Identity (d)\n{steps}\nq = Mul (a{count}, a{count})")
    found = find(GraphView(model(body)))
    assert [layer.role for layer in found.found] == (["batch-stat"] if count == 10 else [])
    assert len(found.missed) == (count == 300)
