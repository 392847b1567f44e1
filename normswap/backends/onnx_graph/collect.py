"""GraphCollector: a graph in ONNX Runtime that also returns the statistics of its BatchNorms' inputs, sample by sample.

They are computed inside the graph, by two passes, and only a mean and a variance for each sample and channel leave it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter

import numpy as np
import onnx

from normswap.backends.onnx_graph.find import sites
from normswap.backends.onnx_graph.graph.model import OnnxModel, copy_of, set_nodes
from normswap.backends.onnx_graph.graph.nodes import graphs_in
from normswap.backends.onnx_graph.graph.shapes import element_of, spelled
from normswap.backends.onnx_graph.rewrite import names_in, rewrite
from normswap.backends.onnx_graph.runtime import Session
from normswap.backends.onnx_graph.witness import fix_randomness
from normswap.backends.values import Run, SampleStatistics
from normswap.errors import CannotRunError
from normswap.layer import Array
from normswap.plan import Plan

__all__ = ["GraphCollector"]


class GraphCollector:
    """A model in ONNX Runtime, with its default optimizations, that tells what its layers are given.

    Args:
        model: The model, prepared.
        plan: How its layers are rewritten first; nothing is where there are no planned layers.
        names: The layers to look at.

    Attributes:
        unobserved: Why a layer's input cannot be seen, by its name.

    Raises:
        CannotRunError: If the runtime does not take the model.
    """

    def __init__(self, model: OnnxModel, plan: Plan, names: Sequence[str]) -> None:
        self.unobserved: dict[str, str] = {}
        self._values: dict[str, str] = {}  # name of a layer -> the value that it is given
        types: dict[str, str | None] = {}
        for site in sites(model):
            if site.layer.name not in names:
                continue
            if site.scope.path:
                inside = "a local function" if site.scope.function is not None else "a subgraph"
                self.unobserved[site.layer.name] = f"it stands in {inside}, whose values do not leave the main graph"
            else:
                value = self._values[site.layer.name] = site.x
                types[value] = spelled(site.scope.value_type(value)) or site.layer.dtype
        rewritten = rewrite(model, plan, version="") if plan.layers else copy_of(model)
        self._outputs = [value.name for value in rewritten.proto.graph.output]
        self._added = _add_outputs(rewritten, types)
        order = _order(rewritten.proto.graph)
        self._values = dict(sorted(self._values.items(), key=lambda item: order[item[0]]))
        self._session = Session(fix_randomness(rewritten)[0], optimize=True)

    def __call__(self, arrays: Mapping[str, Array]) -> tuple[Run, dict[str, list[SampleStatistics]]]:
        """Run on one batch; return the outputs, and for each layer the calls seen.

        Raises:
            CannotRunError: If the runtime fails.
        """
        found = self._session.run(arrays)
        statistics: dict[str, SampleStatistics] = {}
        for value, outputs in self._added.items():
            mean, var, shape = (found[name] for name in outputs)
            if not shape[2]:
                raise CannotRunError(f"{value!r}: it has no elements in this batch, so that there are no statistics")
            statistics[value] = SampleStatistics(mean[..., 0], var[..., 0], int(shape[2]))
        run = Run({name: found[name] for name in self._outputs})
        return run, {layer: [statistics[value]] for layer, value in self._values.items()}


def _order(graph: onnx.GraphProto) -> dict[str, int]:
    """Number values by when they can be computed first; a graph's nodes need not be sorted."""
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for node in graph.node:
        reads = {*node.input, *(name for inner in graphs_in(node) for n in inner.node for name in n.input)}
        for output in node.output:
            sorter.add(output, *reads)
    return {name: number for number, name in enumerate(sorter.static_order())}


def _add_outputs(model: OnnxModel, types: Mapping[str, str | None]) -> dict[str, tuple[str, str, str]]:
    """Add the statistics of values as outputs of the main graph; return their names, by value.

    The mean and the variance have shape (N, C, 1), in float32, or float64 where the value is; the shape is that of
    the value as (N, C, L).
    """
    graph = model.proto.graph
    taken = names_in(model.proto)
    nodes = list(graph.node)
    added: dict[str, tuple[str, str, str]] = {}
    for number, (value, dtype) in enumerate(types.items()):
        prefix = f"collected_{number}"
        while any(name.startswith(prefix) for name in taken):
            prefix += "_"
        compute = "float64" if dtype == "float64" else "float32"
        mean, var, shape = outputs = (f"{prefix}/mean", f"{prefix}/var", f"{prefix}/shape")
        x = value
        if dtype != compute:
            nodes.append(onnx.helper.make_node("Cast", [x], [f"{prefix}/cast"], to=element_of(compute)))
            x = f"{prefix}/cast"
        flat, centred, squares = (f"{prefix}/{word}" for word in ("flat", "centred", "squares"))
        dims = onnx.numpy_helper.from_array(np.asarray([0, 0, -1], np.int64))  # 0 copies a dimension
        nodes += [
            onnx.helper.make_node("Constant", [], [f"{prefix}/dims"], value=dims),
            onnx.helper.make_node("Reshape", [x, f"{prefix}/dims"], [flat]),
            *_mean_of(flat, mean, model.opset),
            onnx.helper.make_node("Sub", [flat, mean], [centred]),
            onnx.helper.make_node("Mul", [centred, centred], [squares]),
            *_mean_of(squares, var, model.opset),
            onnx.helper.make_node("Shape", [flat], [shape]),
        ]
        for name, kind in zip(outputs, (element_of(compute), element_of(compute), onnx.TensorProto.INT64), strict=True):
            graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
        added[value] = outputs
    set_nodes(graph.node, nodes)
    return added


def _mean_of(value: str, output: str, opset: int) -> list[onnx.NodeProto]:
    """Reduce the last of three axes, and keep it; from opset 18 on the axes are an input."""
    if opset < 18:
        return [onnx.helper.make_node("ReduceMean", [value], [output], axes=[2], keepdims=1)]
    axes = onnx.numpy_helper.from_array(np.asarray([2], np.int64))
    return [
        onnx.helper.make_node("Constant", [], [f"{output}/axes"], value=axes),
        onnx.helper.make_node("ReduceMean", [value, f"{output}/axes"], [output], keepdims=1),
    ]
