"""Normalizations are found by what they compute, in every writing; what is none is not taken for one."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import onnx
import onnx.parser
import pytest
from support.models.written_norms import NCHW, NONE, PARAMETERS, ROLES, model, two_pass

from normswap.algebra.errors import UnreadableError
from normswap.algebra.reader import Reader, layout_of
from normswap.algebra.search import Normalization, Survey, find
from normswap.algebra.values import Axes
from normswap.backends.onnx_graph.graph.model import OnnxModel
from normswap.backends.onnx_graph.view import GraphView
from normswap.layer import Dim


def survey(body: str, dims: str = NCHW, **options: object) -> Survey:
    return find(GraphView(model(body, dims, **options)))  # type: ignore[arg-type]  # options as they are


def only(body: str, dims: str = NCHW, **options: object) -> Normalization:
    found = survey(body, dims, **options)
    assert not found.missed
    (layer,) = found.found
    return layer


def reader_of(graph: GraphView, dims: tuple[Dim, ...]) -> Reader:
    layout, lengths = layout_of(dims)
    return Reader(graph, ((), "x"), layout, Axes(lengths))


@pytest.mark.parametrize("name", ROLES)
def test_a_role_is_found_however_it_is_written(name: str) -> None:
    body, dims, role, channel = ROLES[name]
    layer = only(body, dims, stored=f"{PARAMETERS}, float[4, 1, 1, 1] g4, float[4, 1, 1, 1] b4")
    assert (layer.role, layer.meaning.channel_axis) == (role, channel)
    assert (layer.x, layer.y) == (((), "x"), ((), "y"))
    assert layer.eps == Fraction(float(np.float32(1e-3)))
    assert layer.places == tuple(range(dims.count(",") + 1))
    gain = layer.gamma[1] if isinstance(layer.gamma, tuple) else None
    assert gain is not None and gain[0] == "g"
    if role == "eval":
        assert (layer.mean, layer.var) == (((), "m"), ((), "v"))


def test_what_serves_a_layer_alone_is_told_from_what_others_read() -> None:
    layer = only(two_pass([0, 2, 3]))
    assert [node.op_type for node in layer.serves] == [
        "ReduceMean", "Sub", "Mul", "ReduceMean", "Constant", "Add", "Sqrt", "Div", "Mul", "Add"
    ]  # fmt: skip
    shared = two_pass([0, 2, 3]).replace("y = Add (w, b3)", "t = Add (w, b3)\n u = Relu (mu)\n y = Add (t, u)")
    layer = only(shared)
    assert layer.y == ((), "t")
    assert [node.op_type for node in layer.serves][:2] == ["Sub", "Mul"]


def test_without_gain_and_offset() -> None:
    body = two_pass([0, 2, 3]).replace("n = Div (d, s)", "y = Div (d, s)").split("\n      w =")[0]
    layer = only(body)
    assert (layer.role, layer.gamma, layer.beta) == ("batch-stat", Fraction(1), Fraction(0))


def test_a_group_norm_between_two_reshapes_is_one_layer() -> None:
    layer = only("""
      to = Constant <value = int64[3] {0, 2, -1}> ()
      one = Constant <value = float[2] {1, 1}> ()
      zero = Constant <value = float[2] {0, 0}> ()
      f = Reshape (x, to)
      n = InstanceNormalization <epsilon = 1e-3> (f, one, zero)
      sh = Shape (x)
      back = Reshape (n, sh)
      w = Mul (back, g3)
      y = Add (w, b3)""")
    assert (layer.role, layer.x[1], layer.y[1], layer.meaning.channel_axis) == ("group", "x", "y", 1)


def test_an_instance_norm_in_disguise_is_one() -> None:
    layer = only(
        """
      to = Constant <value = int64[4] {1, -1, 5, 6}> ()
      one = Constant <value = float[8] {1, 1, 1, 1, 1, 1, 1, 1}> ()
      zero = Constant <value = float[8] {0, 0, 0, 0, 0, 0, 0, 0}> ()
      f = Reshape (x, to)
      n, rm, rv = BatchNormalization <epsilon = 1e-3, training_mode = 1> (f, one, zero, zero, one)
      sh = Shape (x)
      y = Reshape (n, sh)""",
        "2, 4, 5, 6",
    )
    assert (layer.role, layer.x[1]) == ("instance", "x")


def test_the_mean_of_a_sample_with_the_variance_of_the_batch_is_unknown() -> None:
    layer = only(
        two_pass([0, 2, 3], mean_axes=[2, 3]).replace(
            "q = Mul (d, d)",
            """
      bm = ReduceMean <axes = [0, 2, 3]> (x)
      bd = Sub (x, bm)
      q = Mul (bd, bd)""",
        )
    )
    assert layer.role == "unknown" and layer.gamma is None


def test_an_eps_outside_of_the_root_is_unknown() -> None:
    body = two_pass([0, 2, 3]).replace("ve = Add (va, e)\n      s = Sqrt (ve)", "sq = Sqrt (va)\n      s = Add (sq, e)")
    assert only(body).role == "unknown"


def test_the_unbiased_variance_is_unknown_and_says_so() -> None:
    body = two_pass([0, 2, 3]).replace(
        "va = ReduceMean <axes = [0, 2, 3]> (q)",
        """
      ax = Constant <value = int64[3] {0, 2, 3}> ()
      total = ReduceSum (q, ax)
      sh = Shape (x)
      at = Constant <value = int64[3] {0, 2, 3}> ()
      lengths = Gather (sh, at)
      count = ReduceProd <keepdims = 0> (lengths)
      real = Cast <to = 1> (count)
      one = Constant <value = float {1}> ()
      less = Sub (real, one)
      va = Div (total, less)""",
    )
    layer = only(body)
    assert layer.role == "unknown" and "unbiased" in layer.meaning.note


def test_an_outer_product_is_not_read_as_its_diagonal() -> None:
    """[N, 4] - [1, 4, 1, 1] pairs every channel with every other; one axis would stand in two dimensions."""
    body = """
      mu = ReduceMean <axes = [0], keepdims = 0> (x)
      ax = Constant <value = int64[3] {0, 2, 3}> ()
      column = Unsqueeze (mu, ax)
      d = Sub (x, column)
      q = Mul (d, d)
      va = ReduceMean <axes = [0]> (q)
      e = Constant <value = float {1e-3}> ()
      ve = Add (va, e)
      s = Sqrt (ve)
      y = Div (d, s)"""
    graph = GraphView(model(body, "4, 4"))
    with pytest.raises(UnreadableError, match="outer product"):
        reader_of(graph, (4, 4)).tensor(((), "d"))
    assert {layer.x for layer in find(graph).found} <= {((), "d")}  # over which it is a root mean square


def test_a_parameter_that_is_turned_is_another() -> None:
    """A square matrix and its transpose vary along the same axes, and are not the same."""
    body = """
      t = Transpose (p)
      z = Sub (p, t)
      k = Mul (x, z)
      y = Add (x, k)"""
    reader = reader_of(GraphView(model(body, "N, 4, 4", stored="float[4, 4] p")), (None, 4, 4))
    assert reader.tensor(((), "y")).expr != reader.tensor(((), "x")).expr


@pytest.mark.parametrize("name", NONE)
def test_what_is_no_normalization_is_not_taken_for_one(name: str) -> None:
    found = survey(NONE[name])
    assert not found.found and not found.missed


def test_an_unknown_number_of_channels_is_assumed_to_be_that_of_the_parameters() -> None:
    """Were it 1, it would broadcast against them."""
    assert not only(two_pass([0, 2, 3])).hit.axes.assumed
    layer = only(two_pass([0, 2, 3]), "N, C, H, W")
    assert layer.role == "batch-stat"
    assert {axis: length.integer for axis, length in layer.hit.axes.assumed.items()} == {"1": 4}


def test_lengths_that_differ_do_not_meet() -> None:
    assert only(two_pass([0, 2, 3]), "N, 3, H, W").y == ((), "n")


def test_an_if_gives_a_layer_two_roles() -> None:
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
    graph (float[N, 4, H, W] i, bool train) => (float[N, 4, H, W] y) <float[4] g, float[4] b, float[4] m, float[4] v> {
      x = Relu (i)
      mu = ReduceMean <axes = [0, 2, 3], keepdims = 0> (x)
      mk = ReduceMean <axes = [0, 2, 3]> (x)
      d = Sub (x, mk)
      q = Mul (d, d)
      va = ReduceMean <axes = [0, 2, 3], keepdims = 0> (q)
      um, uv = If (train) <
        then_branch = own () => (float[4] m1, float[4] v1) { m1 = Identity (mu) v1 = Identity (va) },
        else_branch = kept () => (float[4] m2, float[4] v2) { m2 = Identity (m) v2 = Identity (v) }
      >
      y = BatchNormalization <epsilon = 1e-3> (x, g, b, um, uv)
    }""")
    rng = np.random.default_rng(0)
    for value in proto.graph.value_info:
        array = rng.uniform(0.5, 2, 4).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
    del proto.graph.value_info[:]
    (layer,) = find(GraphView(OnnxModel(proto))).found
    assert (layer.role, layer.other) == ("batch-stat", "eval")


def test_inside_a_local_function() -> None:
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
    graph (float[N, 4, H, W] i) => (float[N, 4, H, W] y) <float[4, 1, 1] g, float[4, 1, 1] b> {
      x = Relu (i)
      t = own.normalize (x, g, b)
      u = own.normalize (t, g, b)
      y = Relu (u)
    }
    <domain: "own", opset_import: ["" : 17]>
    normalize (a, k, o) => (r) {
      mu = ReduceMean <axes = [0, 2, 3]> (a)
      d = Sub (a, mu)
      q = Mul (d, d)
      va = ReduceMean <axes = [0, 2, 3]> (q)
      e = Constant <value = float {1e-3}> ()
      ve = Add (va, e)
      s = Sqrt (ve)
      n = Div (d, s)
      w = Mul (n, k)
      r = Add (w, o)
    }""")
    for value in list(proto.graph.value_info):
        array = np.linspace(0.5, 2, 4, dtype=np.float32).reshape(4, 1, 1)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
    del proto.graph.value_info[:]
    found = find(GraphView(OnnxModel(proto))).found
    assert [(layer.role, layer.x, layer.gamma) for layer in found] == [
        ("batch-stat", ((), "x"), ((), "g")),
        ("batch-stat", (("t",), "r"), ((), "g")),
    ]


def test_operators_that_normalize_by_themselves_can_be_left_out() -> None:
    for name, (body, dims, _, _) in ROLES.items():
        graph = GraphView(model(body, dims, stored=f"{PARAMETERS}, float[4, 1, 1, 1] g4, float[4, 1, 1, 1] b4"))
        by_itself = "Normalization" in name
        assert len(find(graph, native=False).found) == (not by_itself)


def test_a_gain_that_is_a_function_of_parameters_alone_is_no_correction() -> None:
    body = two_pass([0, 2, 3]).replace("w = Mul (n, g3)", "p = Max (g3, b3)\n w = Mul (n, p)")
    layer = only(body)
    assert layer.role == "batch-stat" and layer.gamma == ((), "p")


def test_the_shape_of_another_value_counts_where_it_is_declared_to_be_the_same() -> None:
    """As torch's exporter writes an unbiased deviation: expanded by the batch size of the model's own input."""
    body = two_pass([2, 3]).replace(
        "ve = Add (va, e)",
        """
      batch = Shape <start = 0, end = 1> (i)
      rest = Constant <value = int64[3] {4, 1, 1}> ()
      to = Concat <axis = 0> (batch, rest)
      wide = Expand (va, to)
      ve = Add (wide, e)""",
    )
    assert only(body).role == "instance"
    assert not survey(body.replace("start = 0, end = 1", "start = 2, end = 3")).found  # the height is another length
