"""group: GroupNorm in every kind of model, what is refused, and what is wrong with one that is off a little."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from support.models.cases import CASES, build
from support.models.modules import MODULES
from torch import nn

import normswap
from normswap import NORMS, RefusedLayersError, SelectionError
from normswap.backends import backend_for, onnx_graph
from normswap.cli import main
from normswap.layer import NormLayer
from normswap.norms import Group, make_norm
from normswap.norms.base import Form, by_name
from normswap.norms.onnx import OnnxOps
from normswap.plan import Choice, make_plan

CASE = "opset 17, training_mode=0"
FORMS = list(Group(2).forms)
MEANING = (
    "GroupNorm of 2 groups with the BatchNorm's weight, bias and eps, which equals no mode of the trained BatchNorm "
    "and is a start for fine-tuning"
)


def model_of(kind: str) -> tuple[Any, Any]:
    """A model, and inputs for it; for ONNX they are generated."""
    if kind == "onnx":
        return build(CASES[CASE].text), None
    return MODULES["BatchNorm2d"].build(), MODULES["BatchNorm2d"].inputs()


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("kind", ["onnx", "module"])
def test_it_converts_and_passes_every_witness(kind: str, groups: int) -> None:
    model, inputs = model_of(kind)
    report = normswap.convert(model, "group", groups=groups, inputs=inputs).report
    assert report.ok, report.to_text()
    assert {check.witness for check in report.checks} >= {"structure", "probes", "end to end"}
    assert "which equals no mode of the trained BatchNorm and is a start for fine-tuning" in report.verdict
    assert report.parameters == {"groups": groups}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", ["opset 17, training_mode=0", "float16", "opset 18"])
def test_every_form_verifies(case: str, form: str) -> None:
    before = onnx_graph.load(build(CASES[case].text))
    plan = make_plan(Group(2), onnx_graph.find(before))
    chosen = {layer.name: Choice(form, "asked for") for layer in plan.layers}
    after = onnx_graph.rewrite(before, replace(plan, forms=chosen))
    assert normswap.verify(before, after, Group(2), shapes=CASES[case].shapes).ok
    assert "GroupNormalization" not in {node.op_type for node in after.proto.graph.node}, "it cancels"


def test_a_module_computes_what_torchs_group_norm_does() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).eval()
    x = torch.randn(2, 3, 9, 7)
    converted = normswap.convert(model, Group(4), inputs=x).model
    oracle = nn.GroupNorm(4, 8)  # of the same eps
    oracle.load_state_dict({"weight": model[1].weight, "bias": model[1].bias})
    torch.testing.assert_close(converted(x), oracle(model[0](x)), rtol=1e-5, atol=1e-5)


def test_a_checkpoint_loses_its_statistics() -> None:
    weights = {f"bn.{name}": np.ones(4) for name in ("weight", "bias", "running_mean", "running_var")}
    assert list(normswap.convert_state_dict(weights, "group", groups=2)) == ["bn.weight", "bn.bias"]


def without_eps(form: Form) -> Form:
    def emit(ops: OnnxOps) -> None:
        zero = partial(ops.number, 0)
        form.emit(_Without(ops, zero))

    return replace(form, emit=emit)


class _Without:
    """OnnxOps whose eps is 0."""

    def __init__(self, ops: OnnxOps, zero: Any) -> None:
        self._ops, self.eps_constant = ops, zero

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ops, name)


MUTANTS = {
    "twice the groups": by_name(*Group(4).forms.values()),
    "half the groups": by_name(*Group(1).forms.values()),
    "statistics of each channel alone": NORMS["instance"].forms,
    "statistics of the batch": NORMS["batch-stat"].forms,
    "eps dropped": by_name(without_eps(Group(2).forms["two-pass primitives of groups"])),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_fail_every_probe(name: str) -> None:
    before = onnx_graph.load(build(CASES[CASE].text))
    right = Group(2)
    plan = make_plan(right, onnx_graph.find(before))
    wrong = copy(right)
    wrong.forms = MUTANTS[name]
    after = onnx_graph.rewrite(before, replace(plan, norm=wrong))
    report = normswap.verify(before, after, right, end_to_end=name != "eps dropped")
    assert not any(check.ok for check in report.of("probes")), report.to_text()
    assert not any(check.ok for check in report.of("end to end")), report.to_text()


def test_a_module_of_other_groups_fails() -> None:
    model, inputs = model_of("module")
    backend = backend_for(model)
    before = backend.load(model)
    wrong = backend.rewrite(before, make_plan(Group(4), backend.find(before)))
    report = normswap.verify(before, wrong, Group(2), inputs=inputs)
    assert not any(check.ok for check in (*report.of("probes"), *report.of("end to end")))


@pytest.mark.parametrize(("groups", "nearest"), [(3, 2), (32, 4), (5, 4)])
def test_channels_that_are_not_divided_are_refused_with_the_nearest_number(groups: int, nearest: int) -> None:
    with pytest.raises(RefusedLayersError, match=f"4 channels cannot be divided into {groups} groups; .* {nearest}"):
        normswap.convert(build(CASES[CASE].text), "group", groups=groups)


def test_channels_that_are_not_known_are_refused() -> None:
    (layer,) = onnx_graph.find(onnx_graph.load(build(CASES["opset 18"].text)))
    assert "known at run time only" in (Group(2).refuse(replace(layer, num_features=None)) or "")
    assert Group(2).refuse(layer) is None


def test_a_layer_without_stored_statistics_is_taken_and_an_instance_norm_in_disguise_is_not() -> None:
    (layer,) = onnx_graph.find(onnx_graph.load(build(CASES["opset 18"].text)))
    layer = replace(layer, running_mean=None, running_var=None)
    assert Group(2).refuse(replace(layer, role="batch-stat")) is None
    assert "may hold samples where channels are" in (Group(2).refuse(replace(layer, role="instance")) or "")


@pytest.mark.parametrize("groups", [0, -1, 2.5, "many"])
def test_groups_are_a_whole_number(groups: Any) -> None:
    with pytest.raises(SelectionError, match="groups: expected a whole number, 1 or more"):
        make_norm("group", groups=groups)


def test_the_command_line_takes_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(build(CASES[CASE].text), "a.onnx")
    assert main(["convert", "a.onnx", "--to", "group", "-o", "b.onnx"]) == 2
    assert "the target group needs one" in capsys.readouterr().err
    assert main(["convert", "a.onnx", "--to", "group", "--groups", "2", "-o", "b.onnx"]) == 0
    assert MEANING in capsys.readouterr().out
    assert main(["verify", "a.onnx", "b.onnx", "--to", "group", "--groups", "2"]) == 0
    assert main(["verify", "a.onnx", "b.onnx", "--to", "group", "--groups", "4"]) == 1
    assert main(["convert", "a.onnx", "--to", "group", "--groups", "3", "-o", "c.onnx"]) == 2
    assert "the nearest is 2" in capsys.readouterr().err


def test_groups_of_one_element_are_refused() -> None:
    ones = np.ones(4, np.float32)
    layer = NormLayer("n", "eval", 4, 1e-5, ones, ones, ones, ones, shape=("N", 4))
    reason = Group(4).refuse(layer)
    assert reason is not None and "only the bias would be left" in reason
    assert Group(2).refuse(layer) is None
    assert Group(4).refuse(replace(layer, shape=("N", 4, 3, 3))) is None
