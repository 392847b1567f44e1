"""Write BatchNormalization in each of the roles that it plays, as exporters of each opset do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
from hypothesis import strategies as st
from onnx import helper

from support.models.graph_writer import ELEMENT, Code, Value, Writer

__all__ = ["LAYERS", "LayerWriter"]

LAYERS = 5  # at most so many BatchNorm nodes


class LayerWriter(Writer):
    """Writes the layers of one model; ``left`` says how many more there may be."""

    def __init__(self, draw: st.DrawFn) -> None:
        super().__init__(draw)
        self.left = LAYERS
        self.blind = False  # whether the rank of some value may be unknown
        self.outputs: list[onnx.ValueInfoProto] = []

    def batch_norm(self, code: Code, x: Value, role: str, *, said: str = "", statistics: Sequence[str] = ()) -> Value:
        """Add the node, its parameters and mode; ``said`` is the role in its doc string where it is another."""
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

    def batch_stat(self, code: Code, x: Value, role: str) -> Value:
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
        return self.batch_norm(code, x, "eval", said=role, statistics=(mean, var))

    def _from_squares(self, code: Code, x: Value, axes: list[int]) -> tuple[str, str]:
        """E[x²] - E[x]², no less than a little, kept dimensions reshaped away."""
        wide = self.reduce_mean(code, x.name, axes, 1)
        squares = self.reduce_mean(code, self.op(code, "Mul", [x.name, x.name]), axes, 1)
        var = self.op(code, "Relu", [self.op(code, "Sub", [squares, self.op(code, "Mul", [wide, wide])])])
        shape = (1, x.shape[1], *(1,) * (len(x.shape) - 2))
        flat = [self.reshape(code, Value(name, x.dtype, shape), [-1]).name for name in (wide, var)]
        return flat[0], flat[1]

    def disguised(self, code: Code, x: Value) -> Value:
        """InstanceNorm as a train-mode BatchNorm of (1, N * C, ...)."""
        batch, channels = x.shape[:2]
        folded = self.reshape(code, x, [1, batch * channels, *x.shape[2:]])
        told = batch > 1 and not self.blind and self.ir >= 4  # before, the shape is a default that may be overridden
        y = self.batch_norm(code, folded, "train", said="instance" if told else "instance or train")
        return self.reshape(code, y, list(x.shape))
