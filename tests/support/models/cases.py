"""One table of small models, written as ONNX text, for every test that needs one.

Names that nothing defines become initializers with seeded values, by their first letters: ``s`` a scale,
``b`` a bias, ``m`` a mean, ``v`` a variance (of C = 4 values, never the identity), ``w`` a 4 x 4 x 1 x 1 weight.
A name that ends in ``h`` is float16, in ``d`` float64, in ``e`` bfloat16.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
import onnx
import onnx.parser

from normswap.layer import Array, Role

__all__ = ["CASES", "C", "Case", "build", "parameter"]

C = 4
_RANGES = {"s": (0.5, 2.0), "b": (-1.0, 1.0), "m": (-0.5, 0.5), "v": (0.5, 2.0), "w": (-1.0, 1.0)}
_DTYPES = {"h": np.float16, "d": np.float64, "e": ml_dtypes.bfloat16}


@dataclass(frozen=True)
class Case:
    """A model and what is to be found in it.

    Attributes:
        text: The model, for onnx.parser.
        roles: The role of each BatchNorm, by the layer's name.
        runs: Whether ONNX Runtime has kernels for all of it.
        shapes: Input shapes, where the model leaves the rank open.
    """

    text: str
    roles: dict[str, Role]
    runs: bool = True
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)


def parameter(name: str) -> Array:
    """Make the value that a name stands for; the same for the same name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    low, high = _RANGES[name[0]]
    shape = (C, C, 1, 1) if name[0] == "w" else (C,)
    return np.asarray(rng.uniform(low, high, shape)).astype(_DTYPES.get(name[-1], np.float32))


def build(text: str) -> onnx.ModelProto:
    """Parse a model and give values to the names that nothing defines."""
    model = onnx.parser.parse_model(text)
    graph = model.graph
    known = {value.name for value in (*graph.input, *graph.initializer)}
    known |= {out for node in graph.node for out in node.output}
    for name in _free_names(graph):
        if name not in known:
            known.add(name)
            graph.initializer.append(onnx.numpy_helper.from_array(parameter(name), name))
    return model


def _free_names(graph: onnx.GraphProto) -> list[str]:
    names: list[str] = []
    for node in graph.node:
        names += [name for name in node.input if name]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                inside = {out for inner in attribute.g.node for out in inner.output}
                inside |= {value.name for value in attribute.g.input}
                names += [name for name in _free_names(attribute.g) if name not in inside]
    return names


def _plain(opset: int, node: str, x: str = "float[N,4,6,5]", ir: int = 8) -> str:
    return (
        f'<ir_version: {ir}, opset_import: ["" : {opset}]> g ({x} x) => ({x} out) {{ t = Relu(x) {node} out = Neg(y) }}'
    )


_BN = "y = BatchNormalization<epsilon=0.01>(t, s, b, m, v)"

CASES: dict[str, Case] = {
    "opset 1, is_test=1": Case(
        _plain(1, "y = BatchNormalization<consumed_inputs=[0,0,0,1,1], epsilon=0.01, is_test=1>(t, s, b, m, v)"),
        {"y": "eval"},
    ),
    "opset 1, is_test absent": Case(
        _plain(1, "y, a, c, d, e = BatchNormalization<consumed_inputs=[0,0,0,1,1], epsilon=0.01>(t, s, b, m, v)"),
        {"y": "train"},
    ),
    "opset 6, is_test=1": Case(
        _plain(6, "y = BatchNormalization<is_test=1, epsilon=0.01>(t, s, b, m, v)"), {"y": "eval"}
    ),
    "opset 6, is_test absent": Case(_plain(6, _BN), {"y": "train"}),
    "opset 7": Case(_plain(7, _BN), {"y": "eval"}),
    "opset 7, spatial=1": Case(_plain(7, _BN.replace("0.01", "0.01, spatial=1")), {"y": "eval"}),
    "opset 7, five outputs": Case(
        _plain(7, "y, a, c, d, e = BatchNormalization<epsilon=0.01>(t, s, b, m, v)"), {"y": "train"}
    ),
    "opset 9": Case(_plain(9, _BN), {"y": "eval"}),
    "opset 9, five outputs": Case(
        _plain(9, "y, a, c, d, e = BatchNormalization<epsilon=0.01>(t, s, b, m, v)"), {"y": "train"}
    ),
    "opset 13": Case(_plain(13, _BN), {"y": "eval"}),
    "opset 14": Case(_plain(14, _BN), {"y": "eval"}),
    "opset 14, training_mode=1": Case(
        _plain(14, "y, a, c = BatchNormalization<epsilon=0.01, training_mode=1>(t, s, b, m, v)"), {"y": "train"}
    ),
    "opset 15, training_mode=1": Case(
        _plain(15, "y, a, c = BatchNormalization<epsilon=0.01, training_mode=1>(t, s, b, m, v)"), {"y": "train"}
    ),
    "opset 17, training_mode=0": Case(_plain(17, _BN.replace("0.01", "0.01, training_mode=0")), {"y": "eval"}),
    "opset 18": Case(_plain(18, _BN), {"y": "eval"}),
    "opset 22": Case(_plain(22, _BN, ir=10), {"y": "eval"}),
    "default epsilon": Case(_plain(17, "y = BatchNormalization(t, s, b, m, v)"), {"y": "eval"}),
    "rank 2": Case(_plain(17, _BN, "float[N,4]"), {"y": "eval"}),
    "rank 3": Case(_plain(17, _BN, "float[N,4,7]"), {"y": "eval"}),
    "rank 5": Case(_plain(17, _BN, "float[N,4,3,2,3]"), {"y": "eval"}),
    "unknown rank": Case(_plain(17, _BN, "float[]"), {"y": "eval"}, shapes={"x": (2, 4, 6, 5)}),
    "unknown rank, opset 18": Case(_plain(18, _BN, "float[]"), {"y": "eval"}, shapes={"x": (2, 4, 6, 5)}),
    "static batch": Case(_plain(17, _BN, "float[3,4,5,5]"), {"y": "eval"}),
    "float16": Case(
        _plain(17, "y = BatchNormalization<epsilon=0.01>(t, sh, bh, mh, vh)", "float16[N,4,6,5]"), {"y": "eval"}
    ),
    "float64": Case(
        _plain(17, "y = BatchNormalization<epsilon=0.01>(t, sd, bd, md, vd)", "double[N,4,6,5]"), {"y": "eval"}
    ),
    "bfloat16": Case(
        _plain(17, "y = BatchNormalization<epsilon=0.01>(t, se, be, me, ve)", "bfloat16[N,4,6,5]"),
        {"y": "eval"},
        runs=False,
    ),
    "float16 with float32 parameters": Case(_plain(15, _BN, "float16[N,4,6,5]"), {"y": "eval"}),
    "float16 with float32 statistics": Case(
        _plain(15, "y = BatchNormalization<epsilon=0.01>(t, sh, bh, m, v)", "float16[N,4,6,5]"), {"y": "eval"}
    ),
    "computed statistics": Case(
        _plain(
            17,
            """mm = ReduceMean<axes=[0,2,3], keepdims=1>(t) d = Sub(t, mm) q = Mul(d, d)
               vv = ReduceMean<axes=[0,2,3], keepdims=0>(q) m1 = Squeeze(mm, ax)
               y = BatchNormalization<epsilon=0.01>(t, s, b, m1, vv)""",
        ).replace("{ t = Relu(x)", "<int64[3] ax = {0,2,3}> { t = Relu(x)"),
        {"y": "batch-stat"},
    ),
    "computed statistics, unbiased": Case(
        _plain(
            17,
            """mm = ReduceMean<axes=[0,2,3], keepdims=1>(t) d = Sub(t, mm) q = Mul(d, d)
               qs = ReduceSum(q, ax0) n = Size(t) n1 = Cast<to=1>(n) n4 = Div(n1, four) nm = Sub(n4, one)
               qq = ReshapeTo(qs) vv = Div(qq, nm) m1 = Squeeze(mm, ax)
               y = BatchNormalization<epsilon=0.01>(t, s, b, m1, vv)""".replace("ReshapeTo(qs)", "Squeeze(qs, ax)"),
        ).replace(
            "{ t = Relu(x)",
            "<int64[3] ax = {0,2,3}, int64[3] ax0 = {0,2,3}, float four = {4}, float one = {1}> { t = Relu(x)",
        ),
        {"y": "unknown"},
    ),
    "instance in disguise": Case(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[3,4,6,5] x) => (float[3,4,6,5] out)
        <int64[4] folded = {1,12,6,5}, int64[4] back = {3,4,6,5}> {
          r = Reshape(x, folded) st = Concat<axis=0>(s, s, s) bt = Concat<axis=0>(b, b, b)
          mt = Concat<axis=0>(m, m, m) vt = Concat<axis=0>(v, v, v)
          y, a, c = BatchNormalization<epsilon=0.01, training_mode=1>(r, st, bt, mt, vt)
          out = Reshape(y, back) }""",
        {"y": "instance"},
    ),
    "weight standardisation": Case(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[N,4,6,5] x) => (float[N,4,6,5] out)
        <int64[3] flat = {1,4,4}, int64[4] back = {4,4,1,1}> {
          wf = Reshape(w, flat)
          ws, a, c = BatchNormalization<epsilon=0.01, training_mode=1>(wf, s, b, m, v)
          ww = Reshape(ws, back) out = Conv(x, ww) }""",
        {"ws": "weight"},
    ),
    "Identity and Cast chains, Constant nodes": Case(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[N,4,6,5] x) => (float[N,4,6,5] y) {
          s1 = Identity(s) s2 = Identity(s1) b1 = Cast<to=1>(bd) m1 = Cast<to=1>(mh)
          v1 = Constant<value = float[4] {0.5, 1.5, 2.0, 0.7}>()
          y = BatchNormalization<epsilon=0.01>(x, s2, b1, m1, v1) }""",
        {"y": "eval"},
    ),
    "parameters given at run time": Case(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,4,6,5] x, float[4] si, float[4] bi, float[4] mi, float[4] vi) => (float[N,4,6,5] y)
        { y = BatchNormalization<epsilon=0.01>(x, si, bi, mi, vi) }""",
        {"y": "eval"},
    ),
    "shared parameters": Case(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[N,4,6,5] x) => (float[N,4,6,5] out) {
          y1 = BatchNormalization<epsilon=0.01>(x, s, b, m, v)
          y2 = BatchNormalization<epsilon=0.1>(y1, s, b, m, v)
          p = Reshape(v, column) q = Mul(y2, p) out = Add(q, y1) }""".replace(
            " {\n          y1", " <int64[4] column = {1,4,1,1}> {\n          y1"
        ),
        {"y1": "eval", "y2": "eval"},
    ),
    "initializers that are graph inputs": Case(
        """<ir_version: 3, opset_import: ["" : 8]>
        g (float[N,4,6,5] x, float[4] sg, float[4] bg, float[4] mg, float[4] vg) => (float[N,4,6,5] y)
        <float[4] sg = {1.5,0.5,2,1}, float[4] bg = {0.1,0.2,0.3,0.4},
         float[4] mg = {0.5,0,-0.5,1}, float[4] vg = {1,2,0.5,0.7}>
        { y = BatchNormalization<epsilon=0.01>(x, sg, bg, mg, vg) }""",
        {"y": "eval"},
    ),
    "If and Loop, parameters in outer scopes": Case(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[N,4,6,5] x, bool flag) => (float[N,4,6,5] out)
        <int64 trips = {2}, bool go = {1}> {
          t = Relu(x)
          y = If(flag) <
            then_branch = g1 () => (float[N,4,6,5] yt) { yt = BatchNormalization<epsilon=0.01>(t, s1, b1, m1, v1) },
            else_branch = g2 () => (float[N,4,6,5] yt) {
              ya = BatchNormalization<epsilon=0.02>(t, s2, b2, m2, v2) yt = Neg(ya) }>
          out = Loop(trips, go, y) <
            body = g3 (int64 i, bool c, float[N,4,6,5] z) => (bool c2, float[N,4,6,5] z2) {
              c2 = Identity(c) z2 = BatchNormalization<epsilon=0.03>(z, s3, b3, m3, v3) }> }""",
        {"y:then_branch/yt": "eval", "y:else_branch/ya": "eval", "out:body/z2": "eval"},
    ),
    "local function, called three times": Case(
        """<ir_version: 8, opset_import: ["" : 17, "pkg" : 1]> g (float[N,4,6,5] x) => (float[N,4,6,5] out) {
          f1 = pkg.norm<eps = 0.01>(x, s1, b1, m1, v1)
          f2 = pkg.outer<eps = 0.2>(f1, s2, b2, m2, v2)
          out = pkg.norm<eps = 0.03>(f2, s3, b3, m3, v3) }
        <domain: "pkg", opset_import: ["" : 17]> norm <eps: float> (a, s, b, m, v) => (r)
          { n = BatchNormalization<epsilon: float = @eps>(a, s, b, m, v) r = Relu(n) }
        <domain: "pkg", opset_import: ["" : 17, "pkg" : 1]> outer <eps: float> (a, s, b, m, v) => (r)
          { n = pkg.norm<eps: float = @eps>(a, s, b, m, v) r = Neg(n) }""",
        {"f1/n": "eval", "f2/n/n": "eval", "out/n": "eval"},
    ),
    "graphs nested in graphs, each with layers": Case(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[N,4,6,5] x, bool flag) => (float[N,4,6,5] out) {
          h = BatchNormalization<epsilon=0.01>(x, s, b, m, v)
          y = If(flag) <
            then_branch = g1 () => (float[N,4,6,5] yt) {
              t1 = BatchNormalization<epsilon=0.01>(h, s1, b1, m1, v1)
              yt = If(flag) <
                then_branch = g3 () => (float[N,4,6,5] z) { z = BatchNormalization<epsilon=0.01>(t1, s2, b2, m2, v2) },
                else_branch = g4 () => (float[N,4,6,5] z4) { z4 = Neg(t1) }> },
            else_branch = g2 () => (float[N,4,6,5] ye) { ye = Relu(h) }>
          out = BatchNormalization<epsilon=0.01>(y, s3, b3, m3, v3) }""",
        {"h": "eval", "out": "eval", "y:then_branch/t1": "eval", "y:then_branch/yt:then_branch/z": "eval"},
    ),
    "opset 6, modes in branches of If": Case(
        """<ir_version: 8, opset_import: ["" : 6]> g (float[2,4,6,5] x, bool flag) => (float[2,4,6,5] out) {
          y = If(flag) <
            then_branch = g1 () => (float[2,4,6,5] t) { t = BatchNormalization(x, s1, b1, m1, v1) },
            else_branch = g2 () => (float[2,4,6,5] t) { t = BatchNormalization<is_test=1>(x, s2, b2, m2, v2) }>
          out = BatchNormalization<is_test=1>(y, s, b, m, v) }""",
        {"y:then_branch/t": "train", "y:else_branch/t": "eval", "out": "eval"},
    ),
    "one function at two ranks": Case(
        """<ir_version: 8, opset_import: ["" : 17, "pkg" : 1]>
        g (float[N,4,6,5] x, float[N,4,7] z) => (float[N,4,6,5] y, float[N,4,7] w) {
          y = pkg.norm(x, s1, b1, m1, v1) w = pkg.norm(z, s2, b2, m2, v2) }
        <domain: "pkg", opset_import: ["" : 17]> norm (a, s, b, m, v) => (r)
          { r = BatchNormalization<epsilon=0.01>(a, s, b, m, v) }""",
        {"y/r": "eval", "w/r": "eval"},
    ),
    "two layers of one name": Case(
        """<ir_version: 8, opset_import: ["" : 17, "pkg" : 1]> g (float[N,4,6,5] x) => (float[N,4,6,5] "a/r") {
          a = pkg.norm(x, s1, b1, m1, v1) "a/r" = BatchNormalization<epsilon=0.001>(a, s, b, m, v) }
        <domain: "pkg", opset_import: ["" : 17]> norm (a, s, b, m, v) => (r)
          { r = BatchNormalization<epsilon=0.01>(a, s, b, m, v) }""",
        {"a/r": "eval", "a/r#2": "eval"},
    ),
    "float64, default epsilon": Case(
        _plain(17, "y = BatchNormalization(t, sd, bd, md, vd)", "double[N,4,6,5]"), {"y": "eval"}
    ),
    "float16 parameters through a narrowing Cast": Case(
        """<ir_version: 8, opset_import: ["" : 17]> g (float16[N,4,6,5] x) => (float16[N,4,6,5] y) {
          s1 = Cast<to=10>(s) b1 = Cast<to=10>(b) y = BatchNormalization<epsilon=0.01>(x, s1, b1, mh, vh) }""",
        {"y": "eval"},
    ),
    "unsorted nodes": Case(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[N,4,6,5] x) => (float[N,4,6,5] out) {
          out = Neg(y) y = BatchNormalization<epsilon=0.01>(t, s, b, m, v) t = Relu(x) }""",
        {"y": "eval"},
    ),
    "seeded dropout": Case(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[N,4,6,5] x) => (float[N,4,6,5] out)
        <float ratio = {0.5}, bool training = {1}> {
          t = Dropout(x, ratio, training) y = BatchNormalization<epsilon=0.01>(t, s, b, m, v)
          r = RandomNormalLike(y) out = Add(y, r) }""",
        {"y": "eval"},
    ),
}
