"""A hypothesis strategy: ONNX models that hold BatchNorms in the dresses that exporters give them.

Every BatchNormalization carries the role that it was built for in its doc string, ``role=train`` say, so that a
test can hold what was found to what was meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["Drawn", "Value", "models", "newest_opset"]

Array = NDArray[Any]
T = TypeVar("T")

DOMAIN = "local"
ELEMENT = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "float64": TensorProto.DOUBLE,
    "bfloat16": TensorProto.BFLOAT16,
}
_DRESSES = ("{}", "/enc/{}", "{}:0", "my {}", "größe_{}", "{}/y", "a::b.{}", "[{}]*")
# Parameters are cast from these types; ONNX Runtime leaves out a Cast to half precision that narrows.
_WIDENED = {
    "float64": ("float32", "float64"),
    "float32": ("float64", "float16"),
    "float16": ("float16",),
    "bfloat16": ("bfloat16",),
}
_LAYERS = 5  # at most so many BatchNorm nodes
_DEEPEST = 2  # nesting of If, Loop and calls
_PARAMETERS = ("scale", "bias", "mean", "var")


@dataclass(frozen=True)
class Value:
    """A value of the graph: its name, element type, and shape at run time."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Drawn:
    """A model and inputs to run it with."""

    proto: onnx.ModelProto
    feeds: dict[str, Array]


@dataclass
class _Code:
    """A graph or function under construction; ``holds`` says whether it can hold initializers."""

    parent: _Code | None = None
    formal: dict[tuple[str, str], str] = field(default_factory=dict)  # a function's parameters by kind and type
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[TensorProto] = field(default_factory=list)
    holds: bool = True
    is_function: bool = False
    values: list[Value] = field(default_factory=list)

    def sees(self, other: _Code) -> bool:
        return self is other or (self.parent is not None and self.parent.sees(other))


@dataclass(frozen=True)
class _Function:
    name: str
    parameters: tuple[str, ...]
    generic: bool
    shape: tuple[int, ...]
    dtype: str
    has_default: bool


@cache
def newest_opset() -> int:
    """The newest opset that both onnx and ONNX Runtime take."""
    onnxruntime.set_default_logger_severity(4)
    for opset in range(onnx.defs.onnx_opset_version(), 7, -1):
        value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
        graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [_renamed(value, "y")])
        proto = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])
        try:
            onnxruntime.InferenceSession(proto.SerializeToString())
        except Exception:  # the runtime's exceptions have no common public base
            continue
        return opset
    raise AssertionError("ONNX Runtime takes no opset at all")


@st.composite
def models(draw: st.DrawFn) -> Drawn:
    """Draw a model that holds at least one BatchNormalization."""
    return _Builder(draw).model()


class _Builder:
    """Draws one model."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self._rng = np.random.default_rng(self.number(0, 9999))
        self.opset = self.pick((7, 8, 9, 11, 12, 13, 14, 15, 17, 18, 20, 21, 22, newest_opset(), 6))
        self.ir = self._ir_version()
        self.dtype = self.pick(("float32", "float32", "float32", "float16", "float64"))
        self.dress = self.pick(_DRESSES)
        self.labels = self.pick(("numbered", "empty", "as the output"))
        self.left = _LAYERS
        self.blind = False  # whether the rank of some value may be unknown
        self.counts = {"value": 0, "param": 0}
        self.main = _Code()
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.feeds: dict[str, Array] = {}
        self.functions: list[onnx.FunctionProto] = []
        self.signatures: list[_Function] = []
        self.shared: list[tuple[_Code, str, int, str, str]] = []

    # What is drawn.

    def number(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def pick(self, options: Sequence[T]) -> T:
        return self._draw(st.sampled_from(list(options)))

    def chance(self, percent: int) -> bool:
        return self.number(0, 99) >= 100 - percent

    def _ir_version(self) -> int:
        if self.opset < 9:
            return self.pick((3, 8))
        least = helper.find_min_ir_version_for([helper.make_opsetid("", self.opset)])
        return self.pick(sorted({max(4, least), max(8, least), max(10, least)}))

    # The model.

    def model(self) -> Drawn:
        x = self._input()
        y = self._chain(self.main, x, 0)
        while self.left == _LAYERS:
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
        return self._given("x", np.asarray(data), self.dtype, None if self.blind else declared)

    def _given(self, hint: str, data: Array, dtype: str, declared: Sequence[int | str | None] | None) -> Value:
        """Add a graph input and what to feed it."""
        name = self.name("param", hint)
        element = TensorProto.BOOL if dtype == "bool" else ELEMENT[dtype]
        self.inputs.append(helper.make_tensor_value_info(name, element, declared))
        self.feeds[name] = data.astype(dtype)
        return Value(name, dtype, data.shape)

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

    # Names and nodes.

    def name(self, counter: str, hint: str) -> str:
        self.counts[counter] += 1
        return self.dress.format(f"{hint}{self.counts[counter]}")

    def op(
        self,
        code: _Code,
        op_type: str,
        inputs: Sequence[str],
        outputs: int = 1,
        doc: str = "",
        counter: str = "value",
        **attributes: Any,
    ) -> str:
        """Add a node, return the name of its first output."""
        names = [self.name(counter, counter[0]) for _ in range(outputs)]
        label = {"numbered": f"n{names[0]}", "empty": "", "as the output": names[0]}[self.labels]
        domain = DOMAIN if op_type in {function.name for function in self.signatures} else ""
        node = helper.make_node(op_type, inputs, names, label, doc, domain=domain, **attributes)
        code.nodes.append(node)
        return names[0]

    def constant(self, code: _Code, data: Any, dtype: Any, counter: str = "value") -> str:
        array = np.asarray(data, dtype)
        if self.opset < 9 and array.dtype.kind in "ib":  # Constant of that time holds floats alone
            while not code.holds and code.parent is not None:
                code = code.parent
            code.initializers.append(numpy_helper.from_array(array, self.name("param", "k")))
            return code.initializers[-1].name
        return self.op(code, "Constant", [], counter=counter, value=numpy_helper.from_array(array))

    def reduce_mean(self, code: _Code, name: str, axes: list[int], keepdims: int) -> str:
        if self.opset >= 18:
            return self.op(code, "ReduceMean", [name, self.constant(code, axes, np.int64)], keepdims=keepdims)
        return self.op(code, "ReduceMean", [name], axes=axes, keepdims=keepdims)

    def reshape(self, code: _Code, x: Value, shape: Sequence[int]) -> Value:
        given = self.constant(code, shape, np.int64)
        data = np.zeros(x.shape).reshape([x.shape[i] if dim == 0 else dim for i, dim in enumerate(shape)])
        return Value(self.op(code, "Reshape", [x.name, given]), x.dtype, data.shape)

    # Blocks.

    def _chain(self, code: _Code, x: Value, depth: int) -> Value:
        for _ in range(self.number(1, 4 if depth == 0 else 2)):
            x = self._block(code, x, depth)
            code.values.append(x)
        return x

    def _block(self, code: _Code, x: Value, depth: int) -> Value:
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

    def _layer(self, code: _Code, x: Value) -> Value:
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
            return self._disguised(code, x)
        if role in ("batch-stat", "unbiased"):
            return self._batch_stat(code, x, role)
        return self._batch_norm(code, x, role)

    def _unary(self, code: _Code, x: Value) -> Value:
        return Value(self.op(code, self.pick(("Relu", "Neg", "Abs", "Identity")), [x.name]), x.dtype, x.shape)

    def _residual(self, code: _Code, x: Value) -> Value:
        others = [value for value in code.values if (value.dtype, value.shape) == (x.dtype, x.shape)]
        other = self.pick(others) if others else x
        return Value(self.op(code, "Add", [x.name, other.name]), x.dtype, x.shape)

    def _affine(self, code: _Code, x: Value) -> Value:
        """Multiply or add a parameter that a BatchNorm may share."""
        given = self.parameter(code, self.pick(("scale", "bias")), x.shape[1], x.dtype)
        column = self.reshape(code, Value(given, x.dtype, (x.shape[1],)), [1, -1, *[1] * (len(x.shape) - 2)])
        return Value(self.op(code, self.pick(("Mul", "Add")), [x.name, column.name]), x.dtype, x.shape)

    def _island(self, code: _Code, x: Value) -> Value:
        """Compute one layer in another type, between Casts."""
        dtype = self.pick(("float16", "float64", "bfloat16" if self.opset >= 14 else "float32"))
        inner = Value(self.op(code, "Cast", [x.name], to=ELEMENT[dtype]), dtype, x.shape)
        inner = self._batch_norm(code, inner, self.pick(("eval", "train"))) if self.left else inner
        return Value(self.op(code, "Cast", [inner.name], to=ELEMENT[x.dtype]), x.dtype, x.shape)

    def _weight_standardisation(self, code: _Code, x: Value) -> Value:
        """Normalize a stored tensor, which becomes an output of its own."""
        if not self.left:
            return x
        name = self.name("param", "kernel")
        code.initializers.append(numpy_helper.from_array(self._rng.normal(size=(3, 2, 4)).astype(x.dtype), name))
        self._output(self._batch_norm(code, Value(name, x.dtype, (3, 2, 4)), "train", said="weight"))
        return x

    # BatchNorms.

    def _batch_norm(self, code: _Code, x: Value, role: str, *, said: str = "", statistics: Sequence[str] = ()) -> Value:
        self.left -= 1
        channels = x.shape[1]
        affine, stored = x.dtype, x.dtype
        if self.opset >= 15 and self.chance(15) and not code.formal:
            affine, stored = self.pick(("float32", "float16")), self.pick(("float32", "float64"))
        train = role == "train"
        names = [self.parameter(code, kind, channels, affine) for kind in ("scale", "bias")]
        names += statistics or [self.parameter(code, kind, channels, stored, own=train) for kind in ("mean", "var")]
        attributes: dict[str, Any] = {}
        if self.chance(70):
            attributes["epsilon"] = self.pick((1e-3, 1e-5, 1e-2, 0.1, 1e-4))
        if train and code.formal:
            attributes["momentum"] = 1.0  # ONNX Runtime updates statistics in place, which others may read here
        elif self.chance(30):
            attributes["momentum"] = 0.8
        outputs = self._mode(attributes, role)
        y = self.op(code, "BatchNormalization", [x.name, *names], outputs, f"role={said or role}", **attributes)
        node = code.nodes[-1]
        if code.is_function and self.chance(70):
            self._refer_to_eps(node)
        if train and self.opset >= 14 and code is self.main and self.chance(5):
            self.outputs.append(helper.make_tensor_value_info(node.output[1], ELEMENT[stored], [None]))
        return Value(y, x.dtype, x.shape)

    def _mode(self, attributes: dict[str, Any], role: str) -> int:
        """Write the mode as the opset does, return the number of outputs."""
        train = role == "train"
        if self.opset < 7:
            if not train or self.chance(50):
                attributes["is_test"] = int(not train)
            return self.pick((1, 5)) if train else 1
        if self.opset >= 14:
            if train or self.chance(50):
                attributes["training_mode"] = int(train)
            return 3 if train else 1
        return 5 if train else 1

    @staticmethod
    def _refer_to_eps(node: onnx.NodeProto) -> None:
        kept = [attribute for attribute in node.attribute if attribute.name != "epsilon"]
        del node.attribute[:]
        node.attribute.extend(kept)
        node.attribute.add(name="epsilon", ref_attr_name="eps", type=onnx.AttributeProto.FLOAT)

    def _batch_stat(self, code: _Code, x: Value, role: str) -> Value:
        """Compute mean and variance in the graph as one of several exporters does, biased or not."""
        axes = [0, *range(2, len(x.shape))]
        way = self.pick(("twice", "transposed", "reshaped") if self.opset >= 7 else ("reshaped",))
        if way == "transposed":  # channels first, then one row for each
            order = [1, *axes]
            turned = self.op(code, "Transpose", [x.name], perm=order)
            rows = self.reshape(code, Value(turned, x.dtype, tuple(x.shape[i] for i in order)), [x.shape[1], -1])
            wide, mean = (self.reduce_mean(code, rows.name, [1], keep) for keep in (1, 0))
            centred = self.op(code, "Sub", [rows.name, wide])
            var = self.reduce_mean(code, self.op(code, "Mul", [centred, centred]), [1], 0)
        elif way == "twice":
            wide, mean = (self.reduce_mean(code, x.name, axes, keep) for keep in (1, 0))
            centred = self.op(code, "Sub", [x.name, wide])
            var = self.reduce_mean(code, self.op(code, "Mul", [centred, centred]), axes, 0)
        else:
            mean, var = self._from_squares(code, x, axes)
        if role == "unbiased":
            var = self.op(code, "Mul", [var, self.constant(code, [1.25], x.dtype)])
        return self._batch_norm(code, x, "eval", said=role, statistics=(mean, var))

    def _from_squares(self, code: _Code, x: Value, axes: list[int]) -> tuple[str, str]:
        """E[x²] - E[x]², no less than a little, kept dimensions reshaped away."""
        wide = self.reduce_mean(code, x.name, axes, 1)
        squares = self.reduce_mean(code, self.op(code, "Mul", [x.name, x.name]), axes, 1)
        var = self.op(code, "Relu", [self.op(code, "Sub", [squares, self.op(code, "Mul", [wide, wide])])])
        shape = (1, x.shape[1], *(1,) * (len(x.shape) - 2))
        flat = [self.reshape(code, Value(name, x.dtype, shape), [-1]).name for name in (wide, var)]
        return flat[0], flat[1]

    def _disguised(self, code: _Code, x: Value) -> Value:
        """InstanceNorm as a train-mode BatchNorm of (1, N * C, ...)."""
        batch, channels = x.shape[:2]
        folded = self.reshape(code, x, [1, batch * channels, *x.shape[2:]])
        told = batch > 1 and not self.blind
        y = self._batch_norm(code, folded, "train", said="instance" if told else "instance or train")
        return self.reshape(code, y, list(x.shape))

    # Parameters.

    def parameter(self, code: _Code, kind: str, count: int, dtype: str, *, own: bool = False) -> str:
        """Provide a parameter of shape (count,), in one of the ways in which models hold them.

        Args:
            code: Where it is read.
            kind: What it is.
            count: Number of channels.
            dtype: Its type.
            own: Share it with no other layer.
        """
        if (kind, dtype) in code.formal:
            return code.formal[kind, dtype]
        shared = [
            name
            for owner, *key, name in self.shared
            if key == [kind, count, dtype] and code.sees(owner) and not code.is_function
        ]
        if shared and not own and self.chance(25):
            return self.pick(shared)
        home = code
        while home.parent is not None and self.chance(50):
            home = home.parent
        name = self._stored(home, kind, count, dtype)
        if not own:
            self.shared.append((home, kind, count, dtype, name))
        return name

    def _stored(self, code: _Code, kind: str, count: int, dtype: str) -> str:
        data = self._values(kind, count)
        if not code.holds:
            return self.constant(code, data, _numpy(dtype), "param")
        way = self.pick(("initializer", "initializer", "constant", "identity", "cast", "input", "default"))
        if way == "constant":
            return self.constant(code, data, _numpy(dtype), "param")
        if way == "cast" and self.opset >= 6:
            name = self._initializer(code, kind, data, self.pick(_WIDENED[dtype]))
            return self.op(code, "Cast", [name], counter="param", to=ELEMENT[dtype])
        if way == "input" and code is self.main and dtype != "bfloat16" and self.chance(50):
            declared = self.pick((count, None, "n"))
            return self._given(kind, data, dtype, [declared]).name
        name = self._initializer(code, kind, data, dtype)
        if way == "identity":
            return self.op(code, "Identity", [self.op(code, "Identity", [name], counter="param")], counter="param")
        if way == "default" and code is self.main:
            self.inputs.append(helper.make_tensor_value_info(name, ELEMENT[dtype], [count]))
        return name

    def _initializer(self, code: _Code, kind: str, data: Array, dtype: str) -> str:
        name = self.name("param", kind)
        tensor = numpy_helper.from_array(data.astype(_numpy(dtype)), name)
        if dtype == "float32" and self.chance(30):  # the other storage
            tensor = helper.make_tensor(name, TensorProto.FLOAT, data.shape, data.astype(np.float32).tolist())
        code.initializers.append(tensor)
        return name

    def _values(self, kind: str, count: int) -> Array:
        if kind == "scale":
            return np.asarray(self._rng.uniform(0.5, 1.5, count) * self._rng.choice([-1, 1, 1], count))
        low, high = {"bias": (-1.0, 1.0), "mean": (-0.5, 0.5), "var": (0.3, 2.0)}[kind]
        return np.asarray(self._rng.uniform(low, high, count))

    # Subgraphs and functions.

    def _if(self, code: _Code, x: Value, depth: int) -> Value:
        cond = self._condition(code)
        start = self.counts["value"]
        then, farthest = self._branch(code, x, depth), self.counts["value"]
        if self.chance(50):  # branches may use the same names
            self.counts["value"] = start
        other = self._branch(code, x, depth)
        self.counts["value"] = max(farthest, self.counts["value"])
        return Value(self.op(code, "If", [cond], then_branch=then, else_branch=other), x.dtype, x.shape)

    def _condition(self, code: _Code) -> str:
        truth = np.asarray(self.chance(50))
        if code.is_function or self.chance(50):
            return self.constant(code, truth, bool)
        if self.chance(50):
            return self._given("cond", truth, "bool", []).name
        name = self.name("param", "cond")
        self.main.initializers.append(numpy_helper.from_array(truth, name))
        return name

    def _inside(self, code: _Code) -> _Code:
        return _Code(parent=code, formal=code.formal, holds=self.ir >= 4, is_function=code.is_function)

    def _branch(self, code: _Code, x: Value, depth: int) -> onnx.GraphProto:
        inner = self._inside(code)
        y = self._chain(inner, x, depth + 1)
        if not inner.nodes:
            y = self._unary(inner, x)
        if y.name not in {out for node in inner.nodes for out in node.output}:
            y = Value(self.op(inner, "Identity", [y.name]), y.dtype, y.shape)
        return helper.make_graph(inner.nodes, "branch", [], [self._typed(y)], inner.initializers, doc_string="a branch")

    def _typed(self, value: Value) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(value.name, ELEMENT[value.dtype], [None] * len(value.shape))

    def _loop(self, code: _Code, x: Value, depth: int) -> Value:
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

    def _call(self, code: _Code, x: Value, depth: int) -> Value:
        usable = [function for function in self.signatures if _takes(function, x)]
        if not usable or self.chance(30):
            usable = [self._function(x, depth)]
        function = self.pick(usable)
        y = self._one_call(code, function, x)
        for _ in range(self.number(0, 2)):
            y = self._one_call(code, function, y)
        if function.generic and len(x.shape) > 3 and self.chance(20):  # the same code, another rank
            flat = self.reshape(code, y, [0, 0, -1])
            y = self.reshape(code, self._one_call(code, function, flat), list(x.shape))
        return y

    def _one_call(self, code: _Code, function: _Function, x: Value) -> Value:
        given = [self.parameter(code, kind, x.shape[1], x.dtype) for kind in function.parameters]
        attributes = {} if function.has_default and self.chance(40) else {"eps": self.pick((1e-3, 1e-2, 0.1))}
        return Value(self.op(code, function.name, [x.name, *given], **attributes), x.dtype, x.shape)

    def _function(self, x: Value, depth: int) -> _Function:
        """Write a local function that normalizes x, names beginning anew as they may."""
        outside, self.counts = self.counts, {"value": 0, "param": 0}
        with_parameters = self.chance(75)
        formal = {(kind, x.dtype): self.name("param", kind) for kind in _PARAMETERS if with_parameters}
        code = _Code(formal=formal, holds=False, is_function=True)
        generic = bool(formal) and self.chance(50)
        inner = Value(self.name("param", "x"), x.dtype, x.shape)
        self.left = max(self.left, 1)
        if generic:
            y = self._batch_norm(code, self._unary(code, inner), self.pick(("eval", "train")))
        else:
            y = self._batch_norm(code, self._chain(code, inner, depth + 1), self.pick(("eval", "train")))
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
        signature = _Function(function.name, taken, generic, x.shape, x.dtype, has_default)
        self.signatures.append(signature)
        return signature


def _takes(function: _Function, x: Value) -> bool:
    return function.dtype == x.dtype and (function.generic or function.shape == x.shape)


def _numpy(dtype: str) -> Any:
    return np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)


def _renamed(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    copied = onnx.ValueInfoProto()
    copied.CopyFrom(value)
    copied.name = name
    return copied


def _declare_values(proto: onnx.ModelProto, every: int) -> None:
    """Declare the type of every first, second or third value that onnx infers."""
    try:
        inferred = onnx.shape_inference.infer_shapes(proto)
    except Exception:  # what cannot be inferred is not declared
        return
    known = {tensor.name for tensor in proto.graph.initializer}
    proto.graph.value_info.extend(value for value in inferred.graph.value_info[::every] if value.name not in known)
