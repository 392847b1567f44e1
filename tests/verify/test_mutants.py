"""Mutants: a verifier is worth what it rejects.

Every wrong rewrite below fails, with every witness, or with the ones that can see it; the right ones, made by
the same code with nothing wrong in it, pass.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from support.models.cases import CASES, build
from support.models.modules import MODULES
from support.models.targets import TARGETS, asked
from support.oracles.mutants import GROSS, MUTANTS, Mutant, Wrong, is_mutant
from support.oracles.mutated import BODIES, Body, made

import normswap
from normswap import NORMS, Report, Tolerance
from normswap.backends import onnx_graph
from normswap.backends.candidates import candidates_of
from normswap.backends.inputs import feeds_of
from normswap.verify.end_to_end import end_to_end
from normswap.verify.probes import probe_layers

MADE = [
    # Blends of each sample are rejected as those of the batch are, and take as long as all other targets together.
    pytest.param(body, to, wrong, id=f"{name}-{label}-{to}", marks=[pytest.mark.slow] * (to == "blend of samples"))
    for label, body in BODIES.items()
    for to in body.targets
    for name, wrong in MUTANTS.items()
    if is_mutant(wrong, TARGETS[to])
]


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_the_right_operators_pass(body: Body) -> None:
    for to in body.targets:
        _, before, after, _ = made(body, to, Wrong())
        norm = TARGETS[to]
        report = normswap.verify(before, after, norm.name, **norm.parameters, inputs=body.inputs())
        assert report.ok, report.to_text()


CAUSES = {  # of mutants, by their names: what the report says of them
    "eps dropped": "eps was dropped",
    "eps 1 % larger": "eps was {larger:.3g}, not {eps:.3g}",
    "eps 1 % smaller": "eps was {smaller:.3g}, not {eps:.3g}",
    "eps added to the standard deviation": "eps was added to the standard deviation, not to the variance",
    "weight dropped": "weight was dropped",
    "bias dropped": "bias was dropped",
    "weight and bias swapped": "weight and bias were swapped",
    "weight is the running variance": "the running variance was used as weight",
    "bias is the running mean": "the running mean was used as bias",
    "unbiased variance": "the variance was divided by n - 1, not by n",
    "batch axis added": "the statistics were taken over the whole batch, not over each sample",
    "batch axis lost": "the statistics were taken over each sample, not over the batch",
    "statistics over the channels too": "the statistics were taken over the channels of the batch too",
    "variance by E[x^2] - E[x]^2": "the variance was computed as E[x^2] - E[x]^2, which cancels",
    "running statistics": "the running statistics were used (eval mode)",
    "mean not subtracted": "the mean was not subtracted",
    "own statistics alone": "the running statistics were not counted",
    "a prior of 17 for 16": "",
    "a sample too many": "one sample too many was counted",
    "one sample, whatever the batch": "the batch was counted as one sample",
    "the samples of the batch beside each sample's statistics": "each sample was counted as the whole batch",
    "elements counted for samples": "elements were counted, not samples",
    "mean not blended": "",
    "variance not blended": "",
    "variance by the law of total variance": (
        "the variance was that of both together, with the distance of their means in it"
    ),
}
CAUSES_OF_BLENDS = CAUSES | {"unbiased variance": "the variance of the input was divided by n - 1, not by n"}


@pytest.mark.parametrize(("body", "to", "wrong"), MADE)
def test_probes_reject_a_wrong_rewrite_of_every_layer_and_name_the_mistake(body: Body, to: str, wrong: Wrong) -> None:
    backend, before, after, plan = made(body, to, wrong)
    checks, _ = probe_layers(backend, before, after, plan, 0, lambda *_: None)
    assert [check.name for check in checks] == [layer.name for layer in plan.layers]
    assert not any(check.ok for check in checks)
    (name,) = (name for name, mutant in MUTANTS.items() if mutant is wrong)
    for check, layer in zip(checks, plan.layers, strict=True):
        said = (CAUSES_OF_BLENDS if plan.norm.name == "blend" else CAUSES)[name]
        said = said.format(eps=layer.eps, larger=1.01 * layer.eps, smaller=0.99 * layer.eps)
        assert check.cause == (f"looks as if {said}" if said else "")
    assert not normswap.verify(before, after, plan.norm.name, **plan.norm.parameters, end_to_end=False).ok


@pytest.mark.parametrize("name", GROSS)
@pytest.mark.parametrize("to", ["instance", "batch-stat", "blend", "blend of samples"])
@pytest.mark.parametrize("body", ["onnx", "module, BatchNorm2d", "fx", "program"])
def test_end_to_end_rejects_it_by_itself(name: str, to: str, body: str) -> None:
    if not is_mutant(MUTANTS[name], TARGETS[to]):
        return
    backend, before, after, plan = made(BODIES[body], to, MUTANTS[name])
    feeds = feeds_of(backend, before, BODIES[body].inputs(), {}, 0)
    candidates = candidates_of(backend, after)
    checks = end_to_end(backend, before, candidates, plan, feeds, Tolerance(), 0, lambda *_: None).checks
    assert checks
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


def test_a_conversion_by_hand_to_torchs_own_module_passes() -> None:
    before, x = MODULES["BatchNorm2d"].build(), MODULES["BatchNorm2d"].inputs()
    after = copy.deepcopy(before)
    norm = after.get_submodule("norm")
    after.norm = torch.nn.InstanceNorm2d(4, eps=1e-5, affine=True)
    after.norm.load_state_dict({name: norm.state_dict()[name] for name in ("weight", "bias")})
    report = normswap.verify(before, after, "instance", inputs=x)
    assert report.ok, report.to_text()
    assert any("norm: raises where a statistic is of one element" in note for note in report.notes)
    after.norm = torch.nn.InstanceNorm2d(4, eps=1e-5)  # as the nearest tools do it: gamma and beta are dropped
    assert not normswap.verify(before, after, "instance", inputs=x).ok


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
                    model, to, **asked(to), seed=seed, end_to_end=case.runs, shapes=case.shapes, allow_refusals=True
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


@pytest.mark.parametrize("case", ["float16", "bfloat16", "float64", "opset 17, training_mode=0"])
@pytest.mark.parametrize("eps", ["0.0", "1e-45", "1e30"])
def test_an_eps_of_any_size_is_probed_in_silence(case: str, eps: str) -> None:
    """Warnings are errors here; users would see them on their terminals."""
    text = CASES[case].text.replace("epsilon=0.01", f"epsilon={eps}")
    for to in NORMS:
        with contextlib.suppress(normswap.NothingToConvertError):
            normswap.convert(build(text), to, **asked(to), end_to_end=False)
