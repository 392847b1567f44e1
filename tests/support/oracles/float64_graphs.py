"""Evaluate an ONNX model in float64 NumPy, some of its BatchNorms under another meaning.

It knows the few operators that random_graphs writes and shares no code with what it judges. With ``noise`` every
result is perturbed as rounding may, which measures how far two correct computations can be apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

__all__ = ["Evaluation", "Layer", "layers_of"]

Array = NDArray[Any]
UNIT = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
_PRIOR = 16  # of blend, which is over the batch; group is one of all channels
_UNARY: dict[str, Callable[[Array], Array]] = {
    "Relu": lambda x: np.maximum(x, 0),
    "Neg": np.negative,
    "Abs": np.abs,
    "Identity": lambda x: x,
}
_BINARY = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply}


class Number(NamedTuple):
    """A value in float64 (or as it is, where it is no float) and its type in the model."""

    array: Array
    dtype: str


class Frame(NamedTuple):
    """One place of evaluation: the path of its layers' names, its values, and its function's attributes."""

    path: tuple[str, ...]
    values: dict[str, Number]
    attributes: Mapping[str, Any]


class Layer(NamedTuple):
    """One call of a BatchNormalization: its documented name, the code that it is part of, and its node."""

    name: str
    body: tuple[str, ...]
    node: onnx.NodeProto


def layers_of(model: onnx.ModelProto) -> list[Layer]:
    """List every BatchNormalization, once for each call; what is never called comes last."""
    functions = {(function.domain, function.name): function for function in model.functions}
    called: set[tuple[str, str]] = set()
    found: list[Layer] = []

    def visit(nodes: Any, path: tuple[str, ...], body: tuple[str, ...]) -> None:
        for node in nodes:
            if node.op_type == "BatchNormalization":
                name = "/".join((*path, node.output[0]))
                taken = {layer.name for layer in found}
                names = [name, *(f"{name}#{number}" for number in range(2, len(found) + 3))]
                found.append(Layer(next(name for name in names if name not in taken), body, node))
        for node in nodes:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    step = f"{node.output[0]}:{attribute.name}"
                    visit(attribute.g.node, (*path, step), (*body, step))
            key = (node.domain, node.op_type)
            if key in functions:
                called.add(key)
                visit(functions[key].node, (*path, node.output[0]), key)

    visit(model.graph.node, (), ())
    for key in functions.keys() - called:
        visit(functions[key].node, ("::".join(key),), key)
    return found


class Evaluation:
    """One model, some of its layers under a target's meaning.

    Args:
        model: What to evaluate.
        target: ``instance``, ``batch-stat`` or ``population``.
        planned: Names of the layers that have this meaning; the others have their own.
        noise: Size of the relative perturbation of every result, in units of roundoff of its type.
        seed: Of the perturbations.
    """

    def __init__(
        self, model: onnx.ModelProto, target: str, planned: set[str], noise: float = 0.0, seed: int = 0
    ) -> None:
        self._model = model
        self._opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        self._functions = {(function.domain, function.name): function for function in model.functions}
        self._target = target
        self._planned = planned
        self._noise = noise
        self._rng = np.random.default_rng(seed)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Number]:
        """Evaluate the model; return its outputs by name."""
        graph = self._model.graph
        values = {tensor.name: _number(_array(tensor)) for tensor in graph.initializer}
        values |= {name: _number(array) for name, array in feeds.items()}
        frame = Frame((), values, {})
        with np.errstate(invalid="ignore"):
            self._nodes(graph.node, frame)
        return {value.name: frame.values[value.name] for value in graph.output}

    def _nodes(self, nodes: Any, frame: Frame) -> None:
        for node in nodes:
            results = [self._wobbled(result) for result in self._evaluate(node, frame)]
            frame.values.update({name: result for name, result in zip(node.output, results, strict=False) if name})

    def _wobbled(self, value: Number) -> Number:
        if not self._noise or value.dtype not in UNIT:
            return value
        factor = 1 + self._noise * UNIT[value.dtype] * self._rng.uniform(-1, 1, value.array.shape)
        return Number(value.array * factor, value.dtype)

    def _evaluate(self, node: onnx.NodeProto, frame: Frame) -> list[Number]:
        inputs = [frame.values[name] for name in node.input]
        attributes = _attributes(node, frame)
        if (node.domain, node.op_type) in self._functions:
            return self._called(node, inputs, attributes, frame)
        if node.op_type == "BatchNormalization":
            return self._batch_norm(node, inputs, attributes, frame)
        if node.op_type == "If":
            branch = "then_branch" if bool(inputs[0].array) else "else_branch"
            return self._graph(attributes[branch], [], node, branch, frame)
        if node.op_type == "Loop":
            return self._loop(node, inputs, attributes, frame)
        return [_simple(node.op_type, inputs, attributes, self._opset)]

    def _graph(
        self, graph: onnx.GraphProto, inputs: list[Number], node: onnx.NodeProto, step: str, frame: Frame
    ) -> list[Number]:
        values = dict(frame.values)
        values |= {tensor.name: _number(_array(tensor)) for tensor in graph.initializer}
        values |= {value.name: given for value, given in zip(graph.input, inputs, strict=True)}
        inner = Frame((*frame.path, f"{node.output[0]}:{step}"), values, frame.attributes)
        self._nodes(graph.node, inner)
        return [inner.values[value.name] for value in graph.output]

    def _loop(
        self, node: onnx.NodeProto, inputs: list[Number], attributes: dict[str, Any], frame: Frame
    ) -> list[Number]:
        trips, going, *carried = inputs
        for step in range(int(trips.array)):
            counted = Number(np.asarray(step), "int64")
            going, *carried = self._graph(attributes["body"], [counted, going, *carried], node, "body", frame)
        return carried

    def _called(
        self, node: onnx.NodeProto, inputs: list[Number], attributes: dict[str, Any], frame: Frame
    ) -> list[Number]:
        function = self._functions[node.domain, node.op_type]
        defaults = {a.name: helper.get_attribute_value(a) for a in function.attribute_proto}
        inner = Frame(
            (*frame.path, node.output[0]), dict(zip(function.input, inputs, strict=True)), defaults | attributes
        )
        self._nodes(function.node, inner)
        return [inner.values[name] for name in function.output]

    def _batch_norm(
        self, node: onnx.NodeProto, inputs: list[Number], attributes: dict[str, Any], frame: Frame
    ) -> list[Number]:
        x = inputs[0].array
        column = (1, -1) + (1,) * (x.ndim - 2)
        scale, bias, mean, var = (given.array.reshape(column) for given in inputs[1:])
        name = "/".join((*frame.path, node.output[0]))
        axes = self._axes(name, node, attributes, x.ndim)
        eps = float(np.float32(attributes.get("epsilon", 1e-5)))
        used_mean, used_var = (mean, var) if axes is None else (x.mean(axes, keepdims=True), x.var(axes, keepdims=True))
        if self._target == "blend" and name in self._planned:
            kept, own, n = (mean, var), (used_mean, used_var), len(x)
            used_mean, used_var = ((_PRIOR * old + n * new) / (_PRIOR + n) for old, new in zip(kept, own, strict=True))
        size = self._noise * UNIT[inputs[0].dtype]
        if axes is not None and size:
            wobble = self._rng.uniform(-size, size, used_mean.shape)
            used_mean = used_mean + wobble * np.abs(x).mean(axes, keepdims=True)
        gain = scale / np.sqrt(used_var + eps)
        y = (x - used_mean) * gain + bias
        if size:  # kernels also compute x * gain + (bias - mean * gain)
            y = y + self._rng.uniform(-size, size, x.shape) * (np.abs(x * gain) + np.abs(bias))
        momentum = float(attributes.get("momentum", 0.9))
        running = (momentum * old + (1 - momentum) * new for old, new in ((mean, used_mean), (var, used_var)))
        # momentum is a float32, whatever the type of the statistics
        return [
            Number(y, inputs[0].dtype),
            *(Number(np.ravel(value), _no_better(inputs[3].dtype)) for value in running),
        ]

    def _axes(self, name: str, node: onnx.NodeProto, attributes: dict[str, Any], rank: int) -> tuple[int, ...] | None:
        """Which axes the statistics are over, None where they are given."""
        if self._opset >= 14:
            trains = bool(attributes.get("training_mode", 0))
        else:
            trains = len(node.output) > 1 if self._opset >= 7 else not attributes.get("is_test", 0)
        meaning = self._target if name in self._planned else "batch-stat" if trains else "population"
        spatial = tuple(range(2, rank))
        return {
            "instance": spatial,
            "batch-stat": (0, *spatial),
            "blend": (0, *spatial),
            "group": (1, *spatial),
            "population": None,
        }[meaning]


def _simple(op_type: str, inputs: list[Number], attributes: dict[str, Any], opset: int) -> Number:
    """Evaluate an operator of one output and no subgraph."""
    if op_type == "Constant":
        return _number(_array(attributes["value"]))
    x = inputs[0]
    if op_type in _UNARY:
        return Number(_UNARY[op_type](x.array), x.dtype)
    if op_type in _BINARY:
        return Number(_BINARY[op_type](x.array, inputs[1].array), x.dtype)
    if op_type == "Cast":
        return Number(x.array, str(helper.tensor_dtype_to_np_dtype(attributes["to"])))
    if op_type == "Transpose":
        return Number(x.array.transpose(attributes["perm"]), x.dtype)
    if op_type == "Reshape":
        shape = [x.array.shape[i] if dim == 0 else int(dim) for i, dim in enumerate(inputs[1].array)]
        return Number(x.array.reshape(shape), x.dtype)
    if op_type == "ReduceMean":
        axes = inputs[1].array if opset >= 18 else attributes["axes"]
        return Number(x.array.mean(tuple(int(a) for a in axes), keepdims=bool(attributes["keepdims"])), x.dtype)
    raise NotImplementedError(op_type)


def _no_better(dtype: str) -> str:
    return "float32" if dtype == "float64" else dtype


def _attributes(node: onnx.NodeProto, frame: Frame) -> dict[str, Any]:
    return {
        attribute.name: frame.attributes[attribute.ref_attr_name]
        if attribute.ref_attr_name
        else helper.get_attribute_value(attribute)
        for attribute in node.attribute
    }


def _array(tensor: onnx.TensorProto) -> Array:
    return np.asarray(numpy_helper.to_array(tensor))


def _number(array: Array) -> Number:
    floating = array.dtype.kind == "f" or array.dtype == ml_dtypes.bfloat16
    return Number(array.astype(np.float64) if floating else array, str(array.dtype))
