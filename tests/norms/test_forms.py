"""Every form of every target, on every small model: what is written verifies, and is what was asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.models.cases import CASES, build
from support.models.targets import TARGETS
from support.oracles.mutants import MUTANTS, Mutant

import normswap
from normswap import NORMS, Norm
from normswap.backends import backend_for, onnx_graph
from normswap.norms.base import Form
from normswap.norms.rounding import rounding_bound
from normswap.plan import Choice, Plan, make_plan
from normswap.verify.probes import probe_layers

FORMS = [
    pytest.param(norm, form, id=f"{norm.name}-{form.name}") for norm in TARGETS.values() for form in norm.forms.values()
]
OPERATORS = {  # one that each form has, and one that it must not have
    "InstanceNormalization": ("InstanceNormalization", "ReduceMean"),
    "InstanceNormalization in float32": ("Cast", "ReduceMean"),
    "two-pass primitives": ("ReduceMean", "InstanceNormalization"),
    "transposed InstanceNormalization": ("Transpose", "ReduceMean"),
    "BatchNormalization": ("BatchNormalization", "Sqrt"),
    "primitives": ("Sqrt", "BatchNormalization"),
    "two-pass primitives, each sample": ("ReduceMean", "Pow"),  # which reads N
    "InstanceNormalization of groups": ("InstanceNormalization", "GroupNormalization"),  # which cancels
    "two-pass primitives of groups": ("ReduceMean", "InstanceNormalization"),
    "two-pass primitives, batch": ("Pow", "BatchNormalization"),
}


def in_form(norm: Norm, form: Form, before: onnx_graph.OnnxModel) -> Plan:
    """Plan what can be written in a form, and nothing else."""
    plan = make_plan(norm, onnx_graph.find(before))
    layers = tuple(layer for layer in plan.layers if form.takes(layer))
    bodies = {layer.body for layer in plan.layers if layer.body and layer not in layers}
    layers = tuple(layer for layer in layers if layer.body not in bodies)
    return replace(plan, layers=layers, forms={layer.name: Choice(form.name, "asked for") for layer in layers})


@pytest.mark.parametrize(("norm", "form"), FORMS)
def test_every_form_verifies(norm: Norm, form: Form) -> None:
    seen = 0
    for name, case in CASES.items():
        before = onnx_graph.prepare(onnx_graph.load(build(case.text)))
        plan = in_form(norm, form, before)
        if not plan.layers:
            continue
        seen += 1
        after = onnx_graph.rewrite(before, plan)
        only = [layer.name for layer in plan.layers]
        report = normswap.verify(
            before,
            after,
            norm.name,
            **norm.parameters,
            only=only,
            shapes=case.shapes,
            end_to_end=case.runs,
            allow_refusals=True,
        )
        assert report.ok, f"{name}\n{report.to_text()}"
        written = {node.op_type for node in after.proto.graph.node if "normswap/" in node.name}
        here, not_here = OPERATORS[form.name]
        assert not_here not in written
        if any(":" not in layer.name and not layer.body for layer in plan.layers):
            assert here in written or form.name == "BatchNormalization"
    assert seen >= (1 if form.dtypes == ("float16",) else 5 if norm.name == "population" else 20)


def test_the_first_form_is_the_default_and_the_last_takes_everything() -> None:
    (layer,) = onnx_graph.find(onnx_graph.load(build(CASES["float64"].text)))
    for norm in TARGETS.values():
        first, last = next(iter(norm.forms.values())), list(norm.forms.values())[-1]
        assert norm.form_of(replace(layer, dtype="float32")) is first
        unknown = replace(layer, num_features=None)
        least = layer if norm.refuse(unknown) else unknown
        for dtype in ("float32", "float16", "bfloat16", "float64"):
            assert norm.form_of(replace(least, dtype=dtype)).takes(replace(layer, dtype=dtype))
        assert any(form.takes(least) for form in norm.forms.values()), last.name


def test_a_form_that_needs_the_channels_is_not_taken_without() -> None:
    form = NORMS["batch-stat"].forms["transposed InstanceNormalization"]
    (layer,) = onnx_graph.find(onnx_graph.load(build(CASES["opset 18"].text)))
    assert form.takes(layer)
    assert not form.takes(replace(layer, num_features=None))
    assert not form.takes(replace(layer, dtype="float64"))


def test_the_bound_in_half_precision_is_wider_and_still_rejects_what_is_wrong() -> None:
    (layer,) = onnx_graph.find(onnx_graph.load(build(CASES["float16"].text)))
    norm = NORMS["population"]
    x = np.random.default_rng(0).standard_normal((2, 4, 5, 3))
    y = norm.reference(x, layer)
    fine, coarse = (rounding_bound(norm, x, layer, y, unit=unit) for unit in (None, 2.0**-11))
    assert (coarse > 2 * fine).all()
    assert layer.weight is not None
    wrong = norm.reference(x, replace(layer, weight=layer.weight + np.float16(0.2)))
    assert (np.abs(wrong - y) > coarse).mean() > 0.5


@pytest.mark.parametrize("name", ["eps dropped", "unbiased variance", "weight and bias swapped"])
def test_probes_hold_a_chosen_form_to_the_target(name: str) -> None:
    before = onnx_graph.load(build(CASES["opset 18"].text.replace("0.01", "1e-5")))
    plan = make_plan(NORMS["instance"], onnx_graph.find(before))
    mutant = Mutant(plan.norm, MUTANTS[name])
    chosen = {layer.name: Choice("mutant", "asked for") for layer in plan.layers}
    after = onnx_graph.rewrite(before, replace(plan, norm=mutant, forms=chosen))
    checks, _ = probe_layers(backend_for(before), before, after, plan, 0, lambda *_: None)
    assert not any(check.ok for check in checks)
