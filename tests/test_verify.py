"""Mutants: a verifier is worth what it rejects.

Every wrong rewrite below fails, with every witness, or with the ones that can see it; the right ones, made by
the same code with nothing wrong in it, pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx
import pytest
from cases import CASES, build

import normswap
from normswap import NORMS, Norm, Report, Tolerance
from normswap.backends import backend_for, onnx_graph
from normswap.end_to_end import end_to_end
from normswap.layer import Floats, NormLayer
from normswap.norms.base import OnnxOps
from normswap.plan import Plan
from normswap.probes import probe_layers

BACKEND = backend_for("model.onnx")


@dataclass(frozen=True)
class Wrong:
    """What a hand-written normalization does; with no argument it is right."""

    eps: float = 1.0  # factor
    weight: str = "scale"
    bias: str = "bias"
    unbiased: bool = False
    over: str = ""  # "batch": pools over the batch, "sample": does not, "channel": over channels too
    one_pass: bool = False  # E[x^2] - E[x]^2
    eps_outside: bool = False  # added to the standard deviation
    running: bool = False
    no_mean: bool = False


MUTANTS: dict[str, Wrong] = {
    "eps dropped": Wrong(eps=0.0),
    "eps 1 % larger": Wrong(eps=1.01),
    "eps 1 % smaller": Wrong(eps=0.99),
    "eps added to the standard deviation": Wrong(eps_outside=True),
    "weight dropped": Wrong(weight="none"),
    "bias dropped": Wrong(bias="none"),
    "weight and bias swapped": Wrong(weight="bias", bias="scale"),
    "weight is the running variance": Wrong(weight="var"),
    "bias is the running mean": Wrong(bias="mean"),
    "unbiased variance": Wrong(unbiased=True),
    "batch axis added": Wrong(over="batch"),
    "batch axis lost": Wrong(over="sample"),
    "statistics over the channels too": Wrong(over="channel"),
    "variance by E[x^2] - E[x]^2": Wrong(one_pass=True),
    "running statistics": Wrong(running=True),
    "mean not subtracted": Wrong(no_mean=True),
}


class Mutant(Norm):
    """A norm whose meaning is right and whose operators are wrong."""

    def __init__(self, right: Norm, wrong: Wrong) -> None:
        self.name, self.meaning, self.equals = right.name, right.meaning, right.equals
        self.right, self.wrong = right, wrong

    def refuse(self, layer: NormLayer) -> str | None:
        return self.right.refuse(layer)

    def moments(self, x: Floats, layer: NormLayer) -> tuple[Floats, Floats]:
        return self.right.moments(x, layer)

    def count(self, shape: tuple[int, ...]) -> int:
        return self.right.count(shape)

    def emit_onnx(self, ops: OnnxOps) -> None:
        emit(ops, self.wrong, self.name)


def emit(ops: OnnxOps, wrong: Wrong, name: str) -> None:
    """Normalize by primitives, as ``wrong`` says."""
    compute = "float64" if ops.dtype == "float64" else "float32"
    rank = ops.rank or 4
    spatial = list(range(2, rank))
    batch = (name == "batch-stat" or wrong.over in ("batch", "channel")) and wrong.over != "sample"
    axes = [*([0] if batch else []), *([1] if wrong.over == "channel" else []), *spatial]

    def column(parameter: str) -> str:
        value = ops.cast(getattr(ops, parameter), ops.param_dtype, compute)
        return ops.op("Reshape", value, ops.ints([1, -1] + [1] * (rank - 2)))

    def mean(value: str) -> str:
        return ops.reduce_mean(value, axes) if axes else value

    x = ops.cast(ops.x, ops.dtype, compute)
    mu = column("mean") if wrong.running or name == "population" else mean(x)
    d = x if wrong.no_mean else ops.op("Sub", x, mu)
    if wrong.running or name == "population":
        var = column("var")
    elif wrong.one_pass:
        var = ops.op("Sub", mean(ops.op("Mul", x, x)), ops.op("Mul", mu, mu))
    else:
        c = ops.op("Sub", x, mu)
        var = mean(ops.op("Mul", c, c))
    if wrong.unbiased:  # times n / (n - 1), n = size of x / size of mu
        n = ops.op("Div", *(ops.cast(ops.op("Size", v), "int64", compute) for v in (x, mu)))
        one = ops.op("Div", n, n)
        var = ops.op("Div", ops.op("Mul", var, n), ops.op("Sub", n, one))
    eps = ops.eps_constant(compute)
    factor = ops.cast(ops.op("Constant", value_float=float(wrong.eps)), "float32", compute)
    eps = ops.op("Mul", eps, factor)
    steps = ("Sqrt", "Add") if wrong.eps_outside else ("Add", "Sqrt")
    std = var
    for step in steps:
        std = ops.op(step, *((std, eps) if step == "Add" else (std,)))
    y = ops.op("Div", d, std)
    if wrong.weight != "none":
        y = ops.op("Mul", y, column(wrong.weight))
    if wrong.bias != "none":
        y = ops.op("Add", y, column(wrong.bias))
    ops.cast(y, compute, ops.dtype, output=ops.y)


BODIES = ["opset 17, training_mode=0", "rank 3", "float16", "float64", "opset 14, training_mode=1",
          "If and Loop, parameters in outer scopes", "local function, called three times"]  # fmt: skip
SMALL = {"a": 1}


def is_mutant(wrong: Wrong, to: str) -> bool:
    """Whether the change makes a difference for this target at all."""
    if to == "population":
        return not (wrong.unbiased or wrong.over or wrong.one_pass or wrong.running)
    return wrong.over != {"instance": "sample", "batch-stat": "batch"}[to]


def made(case: str, to: str, wrong: Wrong) -> tuple[onnx_graph.OnnxModel, onnx_graph.OnnxModel, Plan]:
    before = onnx_graph.load(build(CASES[case].text.replace("0.01", "1e-5")))
    plan = normswap.plan(before, to)
    return before, onnx_graph.rewrite(before, replace(plan, norm=Mutant(plan.norm, wrong))), plan


def targets_of(case: str) -> list[str]:
    return ["population"] if "training_mode=1" in case else ["instance", "batch-stat"]


MADE = [
    pytest.param(case, to, wrong, id=f"{name}-{case}-{to}")
    for case in BODIES
    for to in targets_of(case)
    for name, wrong in MUTANTS.items()
    if is_mutant(wrong, to)
]


@pytest.mark.parametrize("case", BODIES)
def test_the_right_operators_pass(case: str) -> None:
    for to in targets_of(case):
        before, after, _ = made(case, to, Wrong())
        report = normswap.verify(before, after, to)
        assert report.ok, report.to_text()


@pytest.mark.parametrize(("case", "to", "wrong"), MADE)
def test_probes_reject_a_wrong_rewrite_of_every_layer(case: str, to: str, wrong: Wrong) -> None:
    before, after, plan = made(case, to, wrong)
    checks, _ = probe_layers(BACKEND, before, after, plan, 0, lambda *_: None)
    assert [check.name for check in checks] == [layer.name for layer in plan.layers]
    assert not any(check.ok for check in checks)
    assert not normswap.verify(before, after, to, end_to_end=False).ok


# What a whole network can show with ordinary inputs: not a variance or an eps that is off by a little.
GROSS = ["weight dropped", "bias dropped", "weight and bias swapped", "unbiased variance", "running statistics",
         "batch axis added", "batch axis lost", "statistics over the channels too", "mean not subtracted"]  # fmt: skip


@pytest.mark.parametrize("name", GROSS)
@pytest.mark.parametrize("to", ["instance", "batch-stat"])
def test_end_to_end_rejects_it_by_itself(name: str, to: str) -> None:
    if not is_mutant(MUTANTS[name], to):
        return
    before, after, plan = made("opset 17, training_mode=0", to, MUTANTS[name])
    feeds = onnx_graph.feeds(before, None, {}, 0)
    checks, _, _ = end_to_end(BACKEND, before, after, plan, feeds, Tolerance(), 0, lambda *_: None)
    assert not any(check.ok for check in checks)


Edit = Callable[[onnx.ModelProto], None]


def node(proto: onnx.ModelProto, output: str) -> onnx.NodeProto:
    found: onnx.NodeProto
    (found,) = (n for n in proto.graph.node if output in n.output)
    return found


def left_as_it_was(proto: onnx.ModelProto) -> None:
    proto.CopyFrom(build(CASES["shared parameters"].text))


def one_left_as_it_was(proto: onnx.ModelProto) -> None:
    original = node(build(CASES["shared parameters"].text), "y2")
    node(proto, "y2").CopyFrom(original)
    proto.graph.initializer.extend(t for t in build(CASES["shared parameters"].text).graph.initializer if t.name == "m")


def one_bit(proto: onnx.ModelProto) -> None:
    tensor = next(t for t in proto.graph.initializer if t.name == "s")
    raw = bytearray(tensor.raw_data)
    raw[0] ^= 1
    tensor.raw_data = bytes(raw)


def one_bit_outside(proto: onnx.ModelProto) -> None:
    tensor = next(t for t in proto.graph.initializer if t.name == "column")
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.array([1, 4, 1, 1 + 0], np.int64), "column"))
    tensor.raw_data = tensor.raw_data[:-1] + b"\1"


def nan(proto: onnx.ModelProto) -> None:
    tensor = next(t for t in proto.graph.initializer if t.name == "b")
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[1] = np.nan
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, "b"))


def never_reached(proto: onnx.ModelProto) -> None:
    """The layer is there, but what read it reads its input instead."""
    for inner in proto.graph.node:
        inner.input[:] = ["y1" if name == "y2" else name for name in inner.input]


def gone(proto: onnx.ModelProto) -> None:
    never_reached(proto)
    proto.graph.node.remove(node(proto, "y2"))


def reads_another_value(proto: onnx.ModelProto) -> None:
    node(proto, "y2").input[0] = "x"


def extra_node(proto: onnx.ModelProto) -> None:
    proto.graph.node.add(op_type="Neg", input=["y1"], output=["extra"])


def another_operator(proto: onnx.ModelProto) -> None:
    node(proto, "q").op_type = "Div"


def another_attribute(proto: onnx.ModelProto) -> None:
    node(proto, "out").attribute.append(onnx.helper.make_attribute("alpha", 1.0))


def another_output_type(proto: onnx.ModelProto) -> None:
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5


def another_opset(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = 18


def another_domain(proto: onnx.ModelProto) -> None:
    proto.opset_import.add(domain="acme", version=1)


def metadata(proto: onnx.ModelProto) -> None:
    proto.metadata_props.add(key="author", value="somebody else")


def tensor_gone(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.remove(next(t for t in proto.graph.initializer if t.name == "column"))


def tensor_new(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(3, np.float32), "new"))


def eps_of_another(proto: onnx.ModelProto) -> None:
    for attribute in node(proto, "y2").attribute:
        attribute.f = 0.01


EDITS: list[Edit] = [left_as_it_was, one_left_as_it_was, one_bit, one_bit_outside, nan, never_reached, gone,
                     reads_another_value, extra_node, another_operator, another_attribute, another_output_type,
                     another_opset, another_domain, metadata, tensor_gone, tensor_new, eps_of_another]  # fmt: skip


def verified(edit: Edit | None) -> Report:
    before = build(CASES["shared parameters"].text)
    after = normswap.convert(before, "instance").model.proto
    if edit is not None:
        edit(after)
    return normswap.verify(before, after, "instance")


def test_an_unedited_conversion_passes() -> None:
    assert verified(None).ok


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_an_edited_conversion_fails(edit: Edit) -> None:
    assert not verified(edit).ok


def test_a_change_inside_a_local_function_fails() -> None:
    before = build(CASES["local function, called three times"].text)
    after = normswap.convert(before, "instance").model.proto
    after.functions[0].node[-1].op_type = "Sigmoid"
    report = normswap.verify(before, after, "instance")
    assert any("pkg::norm" in check.detail for check in report.of("structure") if not check.ok)


def test_a_change_inside_a_branch_that_does_not_run_fails() -> None:
    before = build(CASES["If and Loop, parameters in outer scopes"].text)
    after = normswap.convert(before, "instance").model.proto
    branch = node(after, "y").attribute[1].g
    branch.node[-1].op_type = "Abs"
    assert not normswap.verify(before, after, "instance").ok


def test_layers_that_the_inputs_do_not_reach_are_named() -> None:
    before = build(CASES["If and Loop, parameters in outer scopes"].text)
    x = np.ones((2, 4, 6, 5), np.float32)
    conversion = normswap.convert(before, "instance", inputs={"x": x, "flag": np.array(True)})
    assert any("did not reach y:else_branch/ya" in note for note in conversion.report.notes)


def test_zero_layers_is_no_pass() -> None:
    before = build(CASES["opset 9"].text)
    with pytest.raises(normswap.NothingToConvertError):
        normswap.verify(before, before, "population")
    assert not Report("instance", "", (), ()).ok
    assert not Report("instance", "", ("y",), ()).ok


def test_the_verdict_does_not_depend_on_the_record_in_the_metadata() -> None:
    before = build(CASES["opset 9"].text)
    after = normswap.convert(before, "instance").model.proto
    del after.metadata_props[:]
    assert normswap.verify(before, after, "instance").ok


def test_a_random_model_is_compared_with_its_randomness_fixed() -> None:
    before = build(CASES["seeded dropout"].text)
    for seed in range(5):
        report = normswap.convert(before, "instance", seed=seed).report
        assert report.ok, report.to_text()
        assert any("random operators (Dropout, RandomNormalLike)" in note for note in report.notes)


@pytest.mark.slow
@pytest.mark.parametrize("to", NORMS)
def test_no_false_alarm_over_twenty_seeds(to: str) -> None:
    for name, case in CASES.items():
        model = build(case.text)
        try:
            for seed in range(20):
                report = normswap.convert(
                    model, to, seed=seed, end_to_end=case.runs, shapes=case.shapes, allow_refusals=True
                ).report
                assert report.ok, f"{name}, seed {seed}: {report.to_text()}"
        except normswap.NothingToConvertError:
            continue


SINGLE = [
    (to, dtype, x, factor)
    for to in ("instance", "batch-stat")
    for dtype in ("float", "float16", "double")
    for x in ("[N,1]", "[N,1,7]", "[N,1,6,5]")
    for factor in (0.5, 0.99, 1.01, 2.0)
    if (to, x) != ("instance", "[N,1]")  # refused
    and (dtype != "float16" or factor in (0.5, 2.0))  # 1 % is finer than float16 resolves with so few values
]


@pytest.mark.parametrize(("to", "dtype", "x", "factor"), SINGLE)
def test_a_wrong_eps_of_a_single_channel_is_rejected(to: str, dtype: str, x: str, factor: float) -> None:
    suffix = {"float": "", "float16": "h", "double": "d"}[dtype]
    text = f"""<ir_version: 8, opset_import: ["" : 17]> g ({dtype}{x} x) => ({dtype}{x} y)
    {{ y = BatchNormalization<epsilon=1e-5>(x, s{suffix}, b{suffix}, m{suffix}, v{suffix}) }}"""
    source = build(text)
    for tensor in source.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)[:1]
        tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    before = onnx_graph.load(source)
    plan = normswap.plan(before, to)
    right = onnx_graph.rewrite(before, replace(plan, norm=Mutant(plan.norm, Wrong())))
    wrong = onnx_graph.rewrite(before, replace(plan, norm=Mutant(plan.norm, Wrong(eps=factor))))
    assert normswap.verify(before, right, to, end_to_end=False).ok
    assert not normswap.verify(before, wrong, to, end_to_end=False).ok


def test_layers_of_one_name_do_not_hide_each_other() -> None:
    before = build(CASES["two layers of one name"].text)
    after = normswap.convert(before, "instance").model.proto
    (attribute,) = node(after, "a/r").attribute
    attribute.f *= 10
    report = normswap.verify(before, after, "instance", end_to_end=False)
    assert [check.ok for check in report.of("probes")].count(False) == 1
    assert not report.ok
