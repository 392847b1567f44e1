"""A target is one class and one entry: this one, of pairs of channels over the batch, is all that is added here."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from support.models.cases import CASES, build
from support.models.modules import MODULES

import normswap
from normswap import NORMS, NormLayer, SelectionError
from normswap.backends import backend_for
from normswap.cli import main
from normswap.norms import Norm, make_norm
from normswap.norms.base import Form, by_name
from normswap.norms.formula import Formula
from normswap.norms.onnx import OnnxOps, emit_two_pass
from normswap.norms.parameters import Parameter, whole_number_from
from normswap.norms.torch import Kernel
from normswap.norms.torch.export import two_pass
from normswap.plan import make_plan

CASE = "opset 17, training_mode=0"
NEIGHBOURS = Parameter(
    name="neighbours",
    type=int,
    expected="a whole number, 1 or more",
    read=whole_number_from(1),
    help="For together: how many channels share statistics.",
    metavar="S",
    default=2,
)


def pool(ops: OnnxOps, value: str, rank: int, *, size: int) -> str:
    """Average over the batch, then over neighbours, and give each channel the average of its neighbours."""
    assert ops.channels is not None, "refused otherwise"
    parts = ops.op("Reshape", ops.reduce_mean(value, [0]), ops.ints([1, -1, size]))
    repeated = ops.op("Concat", *[ops.reduce_mean(parts, [2])] * size, axis=2)
    return ops.op("Reshape", repeated, ops.ints([1, ops.channels, *[1] * (rank - 2)]))


def pool_in_aten(value: Any, rank: int, *, size: int) -> Any:
    aten = torch.ops.aten
    parts = aten.unflatten.int(aten.mean.dim(value, [0], True), 1, [-1, size])
    repeated = aten.expand.default(aten.mean.dim(parts, [2], True), [-1, -1, size, *[-1] * (rank - 2)])
    return aten.flatten.using_ints(repeated, 1, 2)


class Together(Norm):
    """Statistics of the batch over neighbouring channels."""

    name = "together"
    takes = (NEIGHBOURS,)

    def __init__(self, neighbours: int = 2, wrong: bool = False) -> None:
        self.neighbours: int = NEIGHBOURS.value(neighbours)
        self.meaning = f"BatchNorm whose channels share statistics, {neighbours} together"
        self.formula = Formula(
            over=("batch", "channel", "spatial"), groups=lambda channels: channels // self.neighbours
        )
        self.used = 1 if wrong else self.neighbours  # a mutant gives each channel statistics of its own
        self.forms = by_name(Form("together", lambda ops: emit_two_pass(ops, pool=partial(pool, size=self.used))))

    def refuse(self, layer: NormLayer) -> str | None:
        if layer.num_features is None or layer.num_features % self.neighbours:
            return f"its {layer.num_features} channels are not divided by {self.neighbours}"
        return None

    def torch_kernel(self) -> Kernel:
        export = partial(two_pass, pool=partial(pool_in_aten, size=self.used))
        kernel = Kernel({}, export)
        return replace(kernel, eager={"native": kernel._exported})


@pytest.fixture(autouse=True)
def _entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NORMS, "together", Together())


def model_of(kind: str) -> tuple[Any, Any]:
    """A model, and inputs for it; for ONNX they are generated."""
    if kind == "onnx":
        return build(CASES[CASE].text), None
    return MODULES["BatchNorm2d"].build(), MODULES["BatchNorm2d"].inputs()


@pytest.mark.parametrize("kind", ["onnx", "module"])
def test_it_converts_and_passes_every_witness(kind: str) -> None:
    model, inputs = model_of(kind)
    report = normswap.convert(model, Together(), inputs=inputs).report
    assert report.ok, report.to_text()
    assert {check.witness for check in report.checks} >= {"structure", "probes", "end to end"}
    assert report.verdict.startswith("equal to BatchNorm whose channels share statistics, 2 together")
    assert report.parameters == {"neighbours": 2}


@pytest.mark.parametrize("kind", ["onnx", "module"])
def test_its_mutant_fails_with_probes_and_end_to_end_and_is_explained(kind: str) -> None:
    model, inputs = model_of(kind)
    backend = backend_for(model)
    before = backend.load(model)
    plan = make_plan(Together(), backend.find(before))
    wrong = backend.rewrite(before, replace(plan, norm=Together(wrong=True)))
    report = normswap.verify(before, wrong, Together(), inputs=inputs)
    assert not any(check.ok for check in (*report.of("probes"), *report.of("end to end")))
    causes = {check.cause for check in report.of("probes")}
    assert causes == {"looks as if the statistics were taken over each channel by itself"}
    for other in ("instance", "batch-stat"):  # and it is not taken for another target
        right = backend.rewrite(before, plan)
        assert not normswap.verify(before, right, other, inputs=inputs).ok


def test_it_is_made_by_name_and_its_parameter_is_its_own() -> None:
    made = make_norm("together", neighbours="4")
    assert isinstance(made, Together)
    assert made.parameters == {"neighbours": 4}
    with pytest.raises(SelectionError, match="neighbours: belongs to the target together and does nothing with"):
        make_norm("instance", neighbours=4)


def test_the_commands_know_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(build(CASES[CASE].text), "a.onnx")
    assert main(["convert", "a.onnx", "--to", "together", "-o", "b.onnx", "--format", "json"]) == 0
    assert '"target": "together"' in capsys.readouterr().out
    assert main(["inspect", "a.onnx", "--to", "together"]) == 0
    assert "share statistics" in " ".join(capsys.readouterr().out.split())
    Path("normswap.toml").write_text(
        '[[pairs]]\nbefore = "a.onnx"\nafter = "b.onnx"\nto = "together"\nneighbours = 2\n'
    )
    assert main(["verify"]) == 0
    assert "share statistics" in " ".join(capsys.readouterr().out.split())
    assert main(["inspect", "a.onnx", "--to", "togather"]) == 2
    assert "the nearest is 'together'" in capsys.readouterr().err
