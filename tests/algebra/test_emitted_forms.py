"""Every form that is emitted is proved from the emitted operators, for all shapes; wrong arithmetic is rejected."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import pytest
from support.models.small_models import built
from support.models.targets import TARGETS
from support.oracles.mutants import MUTANTS, Mutant, Wrong, is_mutant
from support.work import counting_calls

from normswap.algebra.proof import Claim, Proof, prove
from normswap.backends.onnx_graph.find import find, sites
from normswap.backends.onnx_graph.graph.model import OnnxModel
from normswap.backends.onnx_graph.rewrite import rewrite
from normswap.backends.onnx_graph.view import GraphView
from normswap.norms import Norm
from normswap.plan import make_plan

CHANNELS = 24
MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
layer (TYPE[DIMS] x) => (TYPE[DIMS] y) <TYPE[24] scale, TYPE[24] bias, TYPE[24] mean, TYPE[24] var> {
  a = Relu (x)
  b = BatchNormalization <epsilon = 1e-5> (a, scale, bias, mean, var)
  y = Relu (b)
}
"""
TRAINING = MODEL.replace("b = BatchNormalization <", "b, m, v = BatchNormalization <training_mode = 1, ")
DIMS = f"N, {CHANNELS}, H, W"
# The algebra reads a Concat of sizes, not of tensors; it holds no claim about a form that has one.
UNREADABLE = {"two-pass primitives of groups"}
FORMS = [(to, name) for to, norm in TARGETS.items() for name in norm.forms if name not in UNREADABLE]
# Their arithmetic is right over the reals, and only rounding tells them: the probes' work.
ROUNDING = {"variance by E[x^2] - E[x]^2"}
CALLS = 20_000  # of Python functions, for the largest of the forms; benchmarks/algebra.py has the seconds


def only(norm: Norm, form: str) -> Norm:
    """A target that is written in one form alone."""
    chosen = copy(norm)
    chosen.forms = {form: norm.forms[form]}
    return chosen


def converted(norm: Norm, dims: str = DIMS) -> tuple[OnnxModel, OnnxModel]:
    """A layer before and after; population is what a layer in eval mode computes already."""
    dtype = "float16" if norm.forms.keys() == {"InstanceNormalization in float32"} else "float"
    text = (TRAINING if norm.name == "population" else MODEL).replace("TYPE", dtype).replace("DIMS", dims)
    model = built(text)
    for tensor in model.graph.initializer if dtype == "float16" else ():
        tensor.CopyFrom(
            onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float16), tensor.name)
        )
    before = OnnxModel(model)
    plan = make_plan(norm, find(before))
    assert len(plan.layers) == 1
    return before, rewrite(before, plan, version="0")


def proof_of(before: OnnxModel, after: OnnxModel, norm: Norm, rank: int = 4) -> Proof:
    (site,) = sites(before)
    graph = GraphView(after)
    x, scale, bias, mean, var = ((site.scope.path, name) for name in site.node.input)
    claim = Claim(
        x=x,
        y=((), site.node.output[0]),
        rank=rank,
        weight=scale,
        bias=bias,
        mean=mean,
        var=var,
        eps=Fraction(float(np.float32(1e-5))),
        over=norm.formula.over,
        groups=norm.formula.groups_of(CHANNELS) if norm.formula.joins_channels else None,
        weights=norm.formula.weights,
        channels=CHANNELS,
    )
    return prove(graph, claim)


@pytest.mark.parametrize(("to", "form"), FORMS)
def test_a_form_is_proved_for_every_shape(to: str, form: str) -> None:
    norm = only(TARGETS[to], form)
    before, after = converted(norm)
    proof, calls = counting_calls(lambda: proof_of(before, after, norm))
    assert calls <= CALLS
    assert proof.holds, proof.reason
    # The only form that writes the number of channels into the file.
    assert (proof.channels is not None) == (form == "transposed InstanceNormalization")


@pytest.mark.parametrize(("to", "form"), FORMS)
def test_a_form_is_not_another_target(to: str, form: str) -> None:
    norm = only(TARGETS[to], form)
    before, after = converted(norm)
    for other in TARGETS.values():
        same = (other.name, other.parameters) == (norm.name, norm.parameters)
        assert proof_of(before, after, other).holds == same


@pytest.mark.parametrize("form", UNREADABLE)
def test_a_form_that_cannot_be_read_is_neither_proved_nor_rejected(form: str) -> None:
    norm = only(TARGETS["group"], form)
    proof = proof_of(*converted(norm), norm)
    assert not proof.holds and not proof.readable, "it can be proved now: take it out of UNREADABLE"


RANKS = [(to, form, rank) for to, form in FORMS for rank in (2, 3, 5) if rank > 2 or not TARGETS[to].formula.alone]


@pytest.mark.parametrize(("to", "form", "rank"), RANKS)
def test_a_form_is_proved_for_other_ranks(to: str, form: str, rank: int) -> None:
    dims = ["N", str(CHANNELS), "L", "M", "K"][:rank]
    norm = only(TARGETS[to], form)
    proof = proof_of(*converted(norm, ", ".join(dims)), norm, rank)
    assert proof.holds, proof.reason


WRONG = [(to, name) for to, norm in TARGETS.items() for name, wrong in MUTANTS.items() if is_mutant(wrong, norm)]


@pytest.mark.parametrize(("to", "name"), WRONG)
def test_wrong_arithmetic_is_rejected_by_formula_alone(to: str, name: str) -> None:
    mutant = Mutant(TARGETS[to], MUTANTS[name])
    proof = proof_of(*converted(mutant), TARGETS[to])
    assert proof.holds == (name in ROUNDING), proof.reason
    assert proof.readable


@pytest.mark.parametrize("to", TARGETS)
def test_right_arithmetic_written_otherwise_is_proved(to: str) -> None:
    proof = proof_of(*converted(Mutant(TARGETS[to], Wrong())), TARGETS[to])
    assert proof.holds, proof.reason


@pytest.mark.parametrize("to", ["instance", "batch-stat", "blend", "blend of samples"])
def test_an_eps_off_by_a_hundred_thousandth_is_rejected(to: str) -> None:
    norm = TARGETS[to]
    before, after = converted(norm)
    off = np.float32(1e-5) * np.float32(1 + 1e-5)
    assert off != np.float32(1e-5)
    for node in after.proto.graph.node:
        for attribute in node.attribute:
            if attribute.name == "epsilon":
                attribute.f = float(off)
            if attribute.name == "value" and float(onnx.numpy_helper.to_array(attribute.t).ravel()[0]) == np.float32(
                1e-5
            ):
                attribute.t.CopyFrom(onnx.numpy_helper.from_array(np.asarray(off)))
    proof = proof_of(before, after, norm)
    assert not proof.holds and "another formula" in proof.reason


def edited(name: str, edit: Callable[[Any], None]) -> Proof:
    """The two-pass form of batch-stat with one node changed."""
    norm = only(TARGETS["batch-stat"], "two-pass primitives")
    before, after = converted(norm)
    edit([node for node in after.proto.graph.node if node.op_type == name])
    return proof_of(before, after, norm)


def axes_of(node: Any, axes: list[int]) -> None:
    for attribute in node.attribute:
        if attribute.name == "axes":
            del attribute.ints[:]
            attribute.ints.extend(axes)


def turn(node: Any) -> None:
    node.input[0], node.input[1] = node.input[1], node.input[0]


def swap(node: Any, index: int, name: str) -> None:
    node.input[index] = name


@pytest.mark.parametrize(
    ("operator", "edit"),
    [
        ("ReduceMean", lambda nodes: axes_of(nodes[-1], [2])),
        ("ReduceMean", lambda nodes: axes_of(nodes[0], [2])),
        ("ReduceMean", lambda nodes: axes_of(nodes[0], [1, 2, 3])),
        ("Sub", lambda nodes: swap(nodes[0], 1, nodes[0].input[1].replace("ReduceMean_1", "ReduceMean_0"))),
        ("Sub", lambda nodes: turn(nodes[0])),
        ("Div", lambda nodes: setattr(nodes[0], "op_type", "Mul")),
        ("Sqrt", lambda nodes: setattr(nodes[0], "op_type", "Identity")),
        ("Mul", lambda nodes: swap(nodes[1], 0, "a")),
    ],
)
def test_a_slip_in_one_operator_is_rejected(operator: str, edit: Callable[[Any], None]) -> None:
    proof = edited(operator, edit)
    assert not proof.holds


def test_another_way_to_write_the_variance_is_proved() -> None:
    proof = edited("Mul", lambda nodes: swap(nodes[0], 1, "a"))  # the mean of (x - m) x is that of (x - m) (x - m)
    assert proof.holds, proof.reason


def test_an_operator_without_a_rule_is_named() -> None:
    proof = edited("Sqrt", lambda nodes: setattr(nodes[0], "op_type", "Softplus"))
    assert not proof.holds and not proof.readable and "Softplus has no rule" in proof.reason


def test_numbers_that_the_file_holds_rounded_are_told() -> None:
    norm = TARGETS["blend of samples"]
    proof = proof_of(*converted(norm), norm)
    assert proof.holds and proof.rounded == {Fraction(1, 3), Fraction(2, 3)}


GROUPED = {
    "GroupNormalization": "y = GroupNormalization <num_groups = 4, epsilon = 1e-5> (a, scale, bias)",
    "InstanceNormalization of the groups": """
      to = Constant <value = int64[3] {0, 4, -1}> ()
      ones = Constant <value = float[4] {1, 1, 1, 1}> ()
      zeros = Constant <value = float[4] {0, 0, 0, 0}> ()
      f = Reshape (a, to)
      n = InstanceNormalization <epsilon = 1e-5> (f, ones, zeros)
      sh = Shape (a)
      back = Reshape (n, sh)
      axes = Constant <value = int64[2] {1, 2}> ()
      s3 = Unsqueeze (scale, axes)
      b3 = Unsqueeze (bias, axes)
      w = Mul (back, s3)
      y = Add (w, b3)""",
}


@pytest.mark.parametrize("name", GROUPED)
def test_statistics_of_groups_are_proved_for_the_channels_that_there_are(name: str) -> None:
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    grouped (float[{DIMS}] x) => (float[{DIMS}] y) <float[{CHANNELS}] scale, float[{CHANNELS}] bias> {{
      a = Relu (x)
      {GROUPED[name]}
    }}"""
    graph = GraphView(OnnxModel(built(text)))
    claim = Claim(
        x=((), "a"),
        y=((), "y"),
        rank=4,
        weight=((), "scale"),
        bias=((), "bias"),
        mean=None,
        var=None,
        eps=Fraction(float(np.float32(1e-5))),
        over=("channel", "spatial"),
        groups=4,
        channels=CHANNELS,
    )
    proof = prove(graph, claim)
    assert proof.holds and proof.channels == CHANNELS, proof.reason
    assert not prove(graph, replace(claim, groups=3)).holds
    assert not prove(graph, replace(claim, groups=None)).holds
    assert not prove(graph, replace(claim, over=("spatial",), groups=None)).holds
