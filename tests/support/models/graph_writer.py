"""Write ONNX graphs node by node, the names, storage and types of their values drawn by hypothesis."""

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

__all__ = ["DOMAIN", "ELEMENT", "Array", "Code", "Value", "Writer", "newest_opset"]

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


@dataclass(frozen=True)
class Value:
    """A value of the graph: its name, element type, and shape at run time."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass
class Code:
    """A graph or function under construction; ``holds`` says whether it can hold initializers."""

    parent: Code | None = None
    formal: dict[tuple[str, str], str] = field(default_factory=dict)  # a function's parameters by kind and type
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[TensorProto] = field(default_factory=list)
    holds: bool = True
    is_function: bool = False
    values: list[Value] = field(default_factory=list)

    def sees(self, other: Code) -> bool:
        return self is other or (self.parent is not None and self.parent.sees(other))


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


class Writer:
    """Draws names, nodes, constants and parameters of one model."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self._rng = np.random.default_rng(self.number(0, 9999))
        self.opset = self.pick((7, 8, 9, 11, 12, 13, 14, 15, 17, 18, 20, 21, 22, newest_opset(), 6))
        self.ir = self._ir_version()
        self.dress = self.pick(_DRESSES)
        self.labels = self.pick(("numbered", "empty", "as the output"))
        self.counts = {"value": 0, "param": 0}
        self.main = Code()
        self.inputs: list[onnx.ValueInfoProto] = []
        self.feeds: dict[str, Array] = {}
        self.local: set[str] = set()  # names of local functions
        self.shared: list[tuple[Code, str, int, str, str]] = []

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

    def given(self, hint: str, data: Array, dtype: str, declared: Sequence[int | str | None] | None) -> Value:
        """Add a graph input and what to feed it."""
        name = self.name("param", hint)
        element = TensorProto.BOOL if dtype == "bool" else ELEMENT[dtype]
        self.inputs.append(helper.make_tensor_value_info(name, element, declared))
        self.feeds[name] = data.astype(dtype)
        return Value(name, dtype, data.shape)

    def name(self, counter: str, hint: str) -> str:
        self.counts[counter] += 1
        return self.dress.format(f"{hint}{self.counts[counter]}")

    def op(
        self,
        code: Code,
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
        domain = DOMAIN if op_type in self.local else ""
        node = helper.make_node(op_type, inputs, names, label, doc, domain=domain, **attributes)
        code.nodes.append(node)
        return names[0]

    def constant(self, code: Code, data: Any, dtype: Any, counter: str = "value") -> str:
        array = np.asarray(data, dtype)
        if self.opset < 9 and array.dtype.kind in "ib":  # Constant of that time holds floats alone
            while not code.holds and code.parent is not None:
                code = code.parent
            code.initializers.append(numpy_helper.from_array(array, self.name("param", "k")))
            return code.initializers[-1].name
        return self.op(code, "Constant", [], counter=counter, value=numpy_helper.from_array(array))

    def reduce_mean(self, code: Code, name: str, axes: list[int], keepdims: int) -> str:
        if self.opset >= 18:
            return self.op(code, "ReduceMean", [name, self.constant(code, axes, np.int64)], keepdims=keepdims)
        return self.op(code, "ReduceMean", [name], axes=axes, keepdims=keepdims)

    def reshape(self, code: Code, x: Value, shape: Sequence[int]) -> Value:
        given = self.constant(code, shape, np.int64)
        data = np.zeros(x.shape).reshape([x.shape[i] if dim == 0 else dim for i, dim in enumerate(shape)])
        return Value(self.op(code, "Reshape", [x.name, given]), x.dtype, data.shape)

    def parameter(self, code: Code, kind: str, count: int, dtype: str, *, own: bool = False) -> str:
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

    def _stored(self, code: Code, kind: str, count: int, dtype: str) -> str:
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
            return self.given(kind, data, dtype, [declared]).name
        name = self._initializer(code, kind, data, dtype)
        if way == "identity":
            return self.op(code, "Identity", [self.op(code, "Identity", [name], counter="param")], counter="param")
        if way == "default" and code is self.main:
            self.inputs.append(helper.make_tensor_value_info(name, ELEMENT[dtype], [count]))
        return name

    def _initializer(self, code: Code, kind: str, data: Array, dtype: str) -> str:
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


def _numpy(dtype: str) -> Any:
    return np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)


def _renamed(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    copied = onnx.ValueInfoProto()
    copied.CopyFrom(value)
    copied.name = name
    return copied
