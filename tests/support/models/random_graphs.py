"""A hypothesis strategy: ONNX models that hold BatchNorms in the dresses that exporters give them.

Every BatchNormalization carries the role that it was built for in its doc string, ``role=train`` say, so that a
test can hold what was found to what was meant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from support.models.graph_layers import LAYERS, LayerWriter
from support.models.graph_writer import DOMAIN, ELEMENT, Array, Code, Value

__all__ = ["Drawn", "models"]

_DEEPEST = 2  # nesting of If, Loop and calls
_PARAMETERS = ("scale", "bias", "mean", "var")


@dataclass(frozen=True, eq=False)
class Drawn:
    """A model and inputs to run it with."""

    proto: onnx.ModelProto
    feeds: dict[str, Array]


@dataclass(frozen=True)
class _Function:
    name: str
    parameters: tuple[str, ...]
    generic: bool
    shape: tuple[int, ...]
    dtype: str
    has_default: bool
    y: str


@st.composite
def models(draw: st.DrawFn) -> Drawn:
    """Draw a model that holds at least one BatchNormalization."""
    return _Builder(draw).model()


class _Builder(LayerWriter):
    """Draws one model."""

    def __init__(self, draw: st.DrawFn) -> None:
        super().__init__(draw)
        self.dtype = self.pick(("float32", "float32", "float32", "float16", "float64"))
        self.functions: list[onnx.FunctionProto] = []
        self.signatures: list[_Function] = []

    # The model.

    def model(self) -> Drawn:
        x = self._input()
        y = self._chain(self.main, x, 0)
        while self.left == LAYERS:
            y = self._layer(self.main, y)
        self._output(y)
        if self.chance(30):
            self._unused_initializers()
        if self.chance(20):
            self._dead_reader()
        if self.ir < 4:
            self._declare_initializers()
        graph = helper.make_graph(
            self.main.nodes, "g", self.inputs, self.outputs, self.main.initializers, doc_string="a graph"
        )
        imports = [helper.make_opsetid("", self.opset)]
        if self.functions:
            imports.append(helper.make_opsetid(DOMAIN, 1))
        proto = helper.make_model(
            graph, functions=self.functions, ir_version=self.ir, opset_imports=imports, producer_name="drawn"
        )
        if self.chance(40):
            self._decorate(proto)
        if self.chance(40):
            _declare_values(proto, self.pick((1, 2, 3)))
        return Drawn(proto, self.feeds)

    def _input(self) -> Value:
        rank = self.pick((4, 3, 2, 5))
        shape = (self.number(1, 3), self.number(1, 4), *(self.number(1, 4) for _ in range(rank - 2)))
        declared: list[int | str | None] = list(shape)
        for axis in (0, *range(2, rank)):
            if self.chance(40):
                declared[axis] = self.pick((f"d{axis}", None))
        if self.chance(10):
            declared[1] = "channels"
        style = (*shape[:2], *(1,) * (rank - 2))
        data = self._rng.normal(size=shape) * self._rng.uniform(0.5, 2, style) + self._rng.uniform(-1, 1, style)
        self.blind = rank > 2 and self.chance(5)
        return self.given("x", np.asarray(data), self.dtype, None if self.blind else declared)

    def _output(self, y: Value) -> None:
        dims = None if self.chance(10) else [None] * len(y.shape)
        self.outputs.append(helper.make_tensor_value_info(y.name, ELEMENT[y.dtype], dims))

    def _unused_initializers(self) -> None:
        for hint in ("running_mean", "unused"):
            self.main.initializers.append(numpy_helper.from_array(np.ones(3, np.float32), self.name("param", hint)))

    def _dead_reader(self) -> None:
        """Read a tensor by a node that nothing reads."""
        if self.main.initializers:
            tensor = self.pick(self.main.initializers)
            self.op(self.main, "Identity", [tensor.name])

    def _declare_initializers(self) -> None:
        """Before IR version 4 every initializer is a graph input too."""
        known = {value.name for value in self.inputs}
        for tensor in self.main.initializers:
            if tensor.name not in known:
                self.inputs.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))

    def _decorate(self, proto: onnx.ModelProto) -> None:
        """Write down what no runtime reads: documentation and metadata."""
        proto.doc_string = "a model"
        proto.model_version = 7
        proto.metadata_props.add(key="license", value="none")
        for tensor in proto.graph.initializer:
            tensor.doc_string = "a tensor"
        if self.ir >= 10:
            proto.graph.metadata_props.add(key="of", value="the graph")
            for node in proto.graph.node:
                node.metadata_props.add(key="of", value="a node")

    # Blocks.

    def _chain(self, code: Code, x: Value, depth: int) -> Value:
        for _ in range(self.number(1, 4 if depth == 0 else 2)):
            x = self._block(code, x, depth)
            code.values.append(x)
        return x

    def _block(self, code: Code, x: Value, depth: int) -> Value:
        blocks = [self._layer, self._layer, self._layer, self._unary, self._residual]
        if self.opset >= 7:
            blocks += [self._affine]
        if self.opset >= 13:
            blocks += [self._island]
        if code is self.main:
            blocks += [self._weight_standardisation]
        block = self.pick([*blocks, *([None] * 5 if depth < _DEEPEST else [])])
        if block is not None:
            return block(code, x)
        nested = [self._if, self._if, self._loop]
        if self.ir >= 8 and self.opset >= 9:
            nested += [self._call, self._call, self._call]
        return self.pick(nested)(code, x, depth)

    def _layer(self, code: Code, x: Value) -> Value:
        roles = ["eval", "train", "eval", "train"]
        if len(x.shape) > 2 and not code.is_function:
            roles += ["instance"]
        roles += ["batch-stat", "batch-stat"]
        if x.shape[0] * int(np.prod(x.shape[2:])) > 1:  # the variance of one element is 0 either way
            roles += ["unbiased"]
        role = self.pick(roles)
        if self.left == 0:
            return self._unary(code, x)
        if role == "instance":
            return self.disguised(code, x)
        if role in ("batch-stat", "unbiased"):
            return self.batch_stat(code, x, role)
        return self.batch_norm(code, x, role)

    def _unary(self, code: Code, x: Value) -> Value:
        return Value(self.op(code, self.pick(("Relu", "Neg", "Abs", "Identity")), [x.name]), x.dtype, x.shape)

    def _residual(self, code: Code, x: Value) -> Value:
        others = [value for value in code.values if (value.dtype, value.shape) == (x.dtype, x.shape)]
        other = self.pick(others) if others else x
        return Value(self.op(code, "Add", [x.name, other.name]), x.dtype, x.shape)

    def _affine(self, code: Code, x: Value) -> Value:
        """Multiply or add a parameter that a BatchNorm may share."""
        given = self.parameter(code, self.pick(("scale", "bias")), x.shape[1], x.dtype)
        column = self.reshape(code, Value(given, x.dtype, (x.shape[1],)), [1, -1, *[1] * (len(x.shape) - 2)])
        return Value(self.op(code, self.pick(("Mul", "Add")), [x.name, column.name]), x.dtype, x.shape)

    def _island(self, code: Code, x: Value) -> Value:
        """Compute one layer in another type, between Casts."""
        dtype = self.pick(("float16", "float64", "bfloat16" if self.opset >= 14 else "float32"))
        inner = Value(self.op(code, "Cast", [x.name], to=ELEMENT[dtype]), dtype, x.shape)
        inner = self.batch_norm(code, inner, self.pick(("eval", "train"))) if self.left else inner
        return Value(self.op(code, "Cast", [inner.name], to=ELEMENT[x.dtype]), x.dtype, x.shape)

    def _weight_standardisation(self, code: Code, x: Value) -> Value:
        """Normalize a stored tensor, which becomes an output of its own."""
        if not self.left:
            return x
        name = self.name("param", "kernel")
        code.initializers.append(numpy_helper.from_array(self._rng.normal(size=(3, 2, 4)).astype(x.dtype), name))
        self._output(self.batch_norm(code, Value(name, x.dtype, (3, 2, 4)), "train", said="weight"))
        return x

    # Subgraphs and functions.

    def _if(self, code: Code, x: Value, depth: int) -> Value:
        cond = self._condition(code)
        start = self.counts["value"]
        then, farthest = self._branch(code, x, depth), self.counts["value"]
        if self.chance(50):  # branches may use the same names
            self.counts["value"] = start
        other = self._branch(code, x, depth)
        self.counts["value"] = max(farthest, self.counts["value"])
        return Value(self.op(code, "If", [cond], then_branch=then, else_branch=other), x.dtype, x.shape)

    def _condition(self, code: Code) -> str:
        truth = np.asarray(self.chance(50))
        if code.is_function or self.chance(50):
            return self.constant(code, truth, bool)
        if self.chance(50):
            return self.given("cond", truth, "bool", []).name
        name = self.name("param", "cond")
        self.main.initializers.append(numpy_helper.from_array(truth, name))
        return name

    def _inside(self, code: Code) -> Code:
        return Code(parent=code, formal=code.formal, holds=self.ir >= 4, is_function=code.is_function)

    def _branch(self, code: Code, x: Value, depth: int) -> onnx.GraphProto:
        inner = self._inside(code)
        y = self._chain(inner, x, depth + 1)
        if not inner.nodes:
            y = self._unary(inner, x)
        if y.name not in {out for node in inner.nodes for out in node.output}:
            y = Value(self.op(inner, "Identity", [y.name]), y.dtype, y.shape)
        return helper.make_graph(inner.nodes, "branch", [], [self._typed(y)], inner.initializers, doc_string="a branch")

    def _typed(self, value: Value) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(value.name, ELEMENT[value.dtype], [None] * len(value.shape))

    def _loop(self, code: Code, x: Value, depth: int) -> Value:
        self.blind = True  # what it gives is of unknown rank to onnx's inference
        trips = self.constant(code, 2, np.int64)
        always = self.constant(code, True, bool)
        inner = self._inside(code)
        step, keep = self.name("value", "step"), self.name("value", "keep")
        carried = Value(self.name("value", "carried"), x.dtype, x.shape)
        y = self._chain(inner, carried, depth + 1)
        y = Value(self.op(inner, "Identity", [y.name]), y.dtype, y.shape)
        going = self.op(inner, "Identity", [keep])
        body = helper.make_graph(
            inner.nodes,
            "body",
            [
                helper.make_tensor_value_info(step, TensorProto.INT64, []),
                helper.make_tensor_value_info(keep, TensorProto.BOOL, []),
                self._typed(carried),
            ],
            [helper.make_tensor_value_info(going, TensorProto.BOOL, []), self._typed(y)],
            inner.initializers,
        )
        return Value(self.op(code, "Loop", [trips, always, x.name], body=body), x.dtype, x.shape)

    def _call(self, code: Code, x: Value, depth: int) -> Value:
        usable = [function for function in self.signatures if _takes(function, x)]
        if not usable or self.chance(30):
            usable = [self._function(x, depth)]
        function = self.pick(usable)
        y = self._one_call(code, function, x)
        if self.chance(5) and code is self.main and self.left:
            y = self._namesake(function, y)
        for _ in range(self.number(0, 2)):
            y = self._one_call(code, function, y)
        if function.generic and len(x.shape) > 3 and self.chance(20):  # the same code, another rank
            flat = self.reshape(code, y, [0, 0, -1])
            y = self.reshape(code, self._one_call(code, function, flat), list(x.shape))
        return y

    def _one_call(self, code: Code, function: _Function, x: Value) -> Value:
        given = [self.parameter(code, kind, x.shape[1], x.dtype) for kind in function.parameters]
        attributes: dict[str, Any] = (
            {} if function.has_default and self.chance(40) else {"eps": self.pick((1e-3, 1e-2, 0.1))}
        )
        return Value(self.op(code, function.name, [x.name, *given], **attributes), x.dtype, x.shape)

    def _namesake(self, function: _Function, x: Value) -> Value:
        """Normalize the result of a call, into a value called as the path of the layer inside the call is."""
        y = Value(f"{x.name}/{function.y}", x.dtype, x.shape)
        self.batch_norm(self.main, x, "eval")
        self.main.nodes[-1].output[0] = y.name
        return y

    def _function(self, x: Value, depth: int) -> _Function:
        """Write a local function that normalizes x, names beginning anew as they may."""
        outside, self.counts = self.counts, {"value": 0, "param": 0}
        with_parameters = self.chance(75)
        formal = {(kind, x.dtype): self.name("param", kind) for kind in _PARAMETERS if with_parameters}
        code = Code(formal=formal, holds=False, is_function=True)
        generic = bool(formal) and self.chance(50)
        inner = Value(self.name("param", "x"), x.dtype, x.shape)
        self.left = max(self.left, 1)
        if generic:
            y = self.batch_norm(code, self._unary(code, inner), self.pick(("eval", "train")))
        else:
            y = self.batch_norm(code, self._chain(code, inner, depth + 1), self.pick(("eval", "train")))
        self.counts = outside
        has_default = self.chance(40)
        imports = [helper.make_opsetid("", self.opset)]
        if self.signatures:
            imports.append(helper.make_opsetid(DOMAIN, 1))
        function = helper.make_function(
            DOMAIN,
            f"Norm{len(self.functions)}",
            [inner.name, *formal.values()],
            [y.name],
            code.nodes,
            imports,
            [] if has_default else ["eps"],
            [helper.make_attribute("eps", 0.05)] if has_default else [],
        )
        self.functions.append(function)
        taken = tuple(kind for kind, _ in formal)
        signature = _Function(function.name, taken, generic, x.shape, x.dtype, has_default, y.name)
        self.signatures.append(signature)
        self.local.add(function.name)
        return signature


def _takes(function: _Function, x: Value) -> bool:
    return function.dtype == x.dtype and (function.generic or function.shape == x.shape)


def _declare_values(proto: onnx.ModelProto, every: int) -> None:
    """Declare the type of every first, second or third value that onnx infers."""
    try:
        inferred = onnx.shape_inference.infer_shapes(proto)
    except Exception:  # what cannot be inferred is not declared
        return
    known = {tensor.name for tensor in proto.graph.initializer}
    proto.graph.value_info.extend(value for value in inferred.graph.value_info[::every] if value.name not in known)
