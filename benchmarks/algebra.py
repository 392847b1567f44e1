"""Measure what finding by meaning costs, as a ratio to finding by name in the same graph.

A graph of a hundred thousand Adds, and one with BatchNormalizations among them. Each ratio is that of a pair run in
turn; the median of the rounds, with the least and the most in brackets.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper

from normswap.algebra.search import find as find_by_meaning
from normswap.backends.onnx_graph.find import find as find_by_name
from normswap.backends.onnx_graph.graph.model import OnnxModel
from normswap.backends.onnx_graph.graph.scopes import walk
from normswap.backends.onnx_graph.view import GraphView


def graph(nodes: int, layers: int) -> OnnxModel:
    """Return a chain of Adds with BatchNormalizations spread evenly among them."""
    made = []
    every = nodes // layers if layers else nodes + 1
    for i in range(nodes):
        if i % every == every - 1:
            made.append(helper.make_node("BatchNormalization", [f"v{i}", "s", "b", "m", "v"], [f"v{i + 1}"]))
        else:
            made.append(helper.make_node("Add", [f"v{i}", f"v{i}"], [f"v{i + 1}"]))
    dims: list[str | int | None] = ["N", 4, "H", "W"]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name in ("v0", f"v{nodes}")]
    parameters = [onnx.numpy_helper.from_array(np.ones(4, np.float32), name) for name in ("s", "b", "m", "v")]
    body = helper.make_graph(made, "chain", ends[:1], ends[1:], parameters)
    return OnnxModel(helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def seconds(function: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def ratio(model: OnnxModel) -> float:
    """Return how much longer finding by name and by meaning takes than by name alone."""
    scopes = tuple(walk(model))
    by_name = seconds(lambda: find_by_name(model))
    return 1 + seconds(lambda: find_by_meaning(GraphView(model, scopes), native=False)) / by_name


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    for nodes, layers in ((100_000, 0), (100_000, 5_000)):
        model = graph(nodes, layers)
        ratios = [ratio(model) for _ in range(rounds)]
        shown = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}-{max(ratios):.2f}]"
        print(f"{nodes} nodes, {layers} BatchNormalizations: both take {shown} times as long as by name alone")


if __name__ == "__main__":
    main()
