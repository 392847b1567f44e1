"""Normalizations written as ONNX operators by hand, in many ways, and what looks like one and is none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx.parser

from normswap.backends.onnx_graph.graph.model import OnnxModel

__all__ = ["NCHW", "NHWC", "NONE", "PARAMETERS", "ROLES", "model", "two_pass"]

PARAMETERS = "float[4] g, float[4] b, float[4] m, float[4] v, float[4, 1, 1] g3, float[4, 1, 1] b3"
NCHW, NHWC = "N, 4, H, W", "N, H, W, 4"


def model(body: str, dims: str = NCHW, *, opset: int = 17, stored: str = PARAMETERS, opens: bool = True) -> OnnxModel:
    """Parse a graph from x to y; what is declared in <> is stored, drawn at random."""
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
    graph (float[{dims}] i) => (float[{dims}] y) <{stored}> {{
      {"x = Relu (i)" if opens else ""}
      {body}
    }}"""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for value in proto.graph.value_info:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        array = rng.uniform(0.5, 2, shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
    del proto.graph.value_info[:]
    return OnnxModel(proto)


def two_pass(
    axes: Sequence[int], *, gain: str = "g3", offset: str = "b3", mean_axes: Sequence[int] | None = None
) -> str:
    """Statistics over some axes by two passes, gain and offset laid along the channels."""
    return f"""
      mu = ReduceMean <axes = {list(mean_axes or axes)}> (x)
      d = Sub (x, mu)
      q = Mul (d, d)
      va = ReduceMean <axes = {list(axes)}> (q)
      e = Constant <value = float {{1e-3}}> ()
      ve = Add (va, e)
      s = Sqrt (ve)
      n = Div (d, s)
      w = Mul (n, {gain})
      y = Add (w, {offset})"""


ROLES = {
    "two passes over the batch": (two_pass([0, 2, 3]), NCHW, "batch-stat", 1),
    "two passes over each sample": (two_pass([2, 3]), NCHW, "instance", 1),
    "channels last": (two_pass([0, 1, 2], gain="g", offset="b"), NHWC, "batch-stat", 3),
    "channels last, each sample": (two_pass([1, 2], gain="g", offset="b"), NHWC, "instance", 3),
    "rank 2": (two_pass([0], gain="g", offset="b"), "N, 4", "batch-stat", 1),
    "rank 5": (two_pass([0, 2, 3, 4], gain="g4", offset="b4"), "N, 4, D, H, W", "batch-stat", 1),
    "layer norm over the last axis": (two_pass([3], gain="g", offset="b"), NHWC, "layer-norm", 3),
    "layer norm over the channels of a map": (two_pass([1]), NCHW, "layer-norm", 1),
    "one pass": ("""
      mu = ReduceMean <axes = [0, 2, 3]> (x)
      q = Mul (x, x)
      mq = ReduceMean <axes = [0, 2, 3]> (q)
      mm = Mul (mu, mu)
      va = Sub (mq, mm)
      e = Constant <value = float {1e-3}> ()
      ve = Add (va, e)
      half = Constant <value = float {-0.5}> ()
      r = Pow (ve, half)
      k = Mul (r, g3)
      xk = Mul (x, k)
      mk = Mul (mu, k)
      o = Sub (b3, mk)
      y = Add (xk, o)""", NCHW, "batch-stat", 1),
    "global average pools": ("""
      mu = GlobalAveragePool (x)
      d = Sub (x, mu)
      q = Mul (d, d)
      va = GlobalAveragePool (q)
      e = Constant <value = float {1e-3}> ()
      ve = Add (va, e)
      s = Sqrt (ve)
      r = Reciprocal (s)
      n = Mul (d, r)
      w = Mul (n, g3)
      y = Add (w, b3)""", NCHW, "instance", 1),
    "InstanceNormalization": ("y = InstanceNormalization <epsilon = 1e-3> (x, g, b)", NCHW, "instance", 1),
    "BatchNormalization": ("y = BatchNormalization <epsilon = 1e-3> (x, g, b, m, v)", NCHW, "eval", 1),
    "BatchNormalization, training": (
        "y, rm, rv = BatchNormalization <epsilon = 1e-3, training_mode = 1> (x, g, b, m, v)", NCHW, "train", 1),
    "stored statistics by hand": ("""
      e = Constant <value = float {1e-3}> ()
      ve = Add (v, e)
      s = Sqrt (ve)
      ax = Constant <value = int64[2] {1, 2}> ()
      m3 = Unsqueeze (m, ax)
      s3 = Unsqueeze (s, ax)
      d = Sub (x, m3)
      n = Div (d, s3)
      w = Mul (n, g3)
      y = Add (w, b3)""", NCHW, "eval", 1),
    "stored statistics by hand, folded into gain and offset": ("""
      e = Constant <value = float {1e-3}> ()
      ve = Add (v, e)
      s = Sqrt (ve)
      k = Div (g, s)
      mk = Mul (m, k)
      o = Sub (b, mk)
      ax = Constant <value = int64[2] {1, 2}> ()
      k3 = Unsqueeze (k, ax)
      o3 = Unsqueeze (o, ax)
      w = Mul (x, k3)
      y = Add (w, o3)""", NCHW, "eval", 1),
    "root mean square": ("""
      q = Mul (x, x)
      va = ReduceMean <axes = [3]> (q)
      e = Constant <value = float {1e-3}> ()
      ve = Add (va, e)
      s = Sqrt (ve)
      n = Div (x, s)
      y = Mul (n, g)""", NHWC, "rms-norm", 3),
}  # fmt: skip


NONE = {
    "attention": """
      e = Constant <value = float {8}> ()
      s = Sqrt (e)
      t = Transpose <perm = [0, 1, 3, 2]> (x)
      p = MatMul (x, t)
      z = Div (p, s)
      y = Softmax (z)""",
    "a distance": """
      q = Mul (x, x)
      t = ReduceSum (q)
      y = Sqrt (t)""",
    "division by its own length": """
      q = Mul (x, x)
      ax = Constant <value = int64[1] {3}> ()
      t = ReduceSum (q, ax)
      s = Sqrt (t)
      y = Div (x, s)""",
    "a deviation that scales nothing": """
      mu = ReduceMean <axes = [2, 3]> (x)
      d = Sub (x, mu)
      q = Mul (d, d)
      va = ReduceMean <axes = [2, 3]> (q)
      s = Sqrt (va)
      y = Concat <axis = 1> (mu, s)""",
    "a root element by element": "y = Sqrt (x)",
    "a power that is no root": """
      two = Constant <value = float {2}> ()
      y = Pow (x, two)""",
}
