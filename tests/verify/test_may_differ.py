"""Layers that may differ: their own checks may fail, everything else has to hold, and every report says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from support import Refused
from support.models.cases import CASES, build
from support.models.everything import exported
from support.models.modules import seeded, shaped
from support.models.small_models import LOWLIGHT
from torch import nn
from torch.export import ExportedProgram

import normswap
from normswap import Report, SelectionError
from normswap.cli import main
from normswap.reports.formats import FORMATS, render
from normswap.reports.outcome import Outcome
from normswap.reports.verification import verification

INPUTS = shaped((2, 3, 6, 5))
TEXT = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,4,6,5] x) => (float[N,4,6,5] out) {
  a = BatchNormalization<epsilon=1e-5>(x, s1, b1, m1, v1) t = Relu(a)
  b = BatchNormalization<epsilon=1e-5>(t, s2, b2, m2, v2) u = Conv(b, w)
  c = BatchNormalization<epsilon=1e-5>(u, s3, b3, m3, v3) out = Tanh(c) }"""


def network() -> nn.Module:
    def make() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        )

    return seeded(make)()


MODELS: dict[str, tuple[Callable[[], Any], Any]] = {  # a model with three layers, and inputs
    "onnx": (lambda: build(TEXT), None),
    "module": (network, INPUTS()),
    "fx": (lambda: torch.fx.symbolic_trace(network()), INPUTS()),
    "GraphModule of ATen": (
        cache(exported(network, INPUTS, module=True)),
        INPUTS(),
    ),  # each export has hooks of its own
    "program": (exported(network, INPUTS), INPUTS()),
}
MEANING = "train-mode BatchNorm fed one sample at a time"
BUT = f"equal to {MEANING}, but for 1 layer allowed to differ"


def names(label: str) -> tuple[str, str, str]:
    return ("a", "b", "c") if label == "onnx" else ("1", "3", "5")


def converted(model: Any, to: str, *only: str) -> Any:
    return normswap.convert(model, to, only=only, end_to_end=False).model


def left(label: str, *which: int) -> tuple[Any, Any, Report]:
    """Convert a model but for some of its layers, and verify that with the second one allowed to differ."""
    make, inputs = MODELS[label]
    rest = [name for number, name in enumerate(names(label)) if number not in which]
    before, after = make(), converted(make(), "instance", *rest)
    return before, after, normswap.verify(before, after, "instance", inputs=inputs, may_differ=[names(label)[1]])


@pytest.mark.parametrize("label", MODELS)
def test_a_layer_left_as_it_was_is_allowed(label: str) -> None:
    before, after, report = left(label, 1)
    name = names(label)[1]
    assert report.ok, report.to_text()
    assert report.verdict == BUT
    assert (report.may_differ, report.differing) == ((name,), (name,))
    assert [(check.witness, check.name) for check in report.allowed] == [("structure", name), ("probes", name)]
    assert f"end to end was judged with layers as in the original, as they may be: {name}" in report.notes
    assert "allowed to differ: structure: " in report.to_text()
    assert report.of("end to end")
    assert not normswap.verify(before, after, "instance", inputs=MODELS[label][1]).ok


@pytest.mark.parametrize("label", MODELS)
def test_another_layer_is_not(label: str) -> None:
    _, _, report = left(label, 1, 2)
    assert not report.ok
    assert {check.name for check in report.failed} == {names(label)[2]}
    assert report.verdict == f"NOT shown equal to {MEANING}"
    assert "end to end was not run, because the structure differs" in report.notes


@pytest.mark.parametrize("label", MODELS)
def test_a_layer_that_is_something_else_is_allowed_and_end_to_end_is_not_judged(label: str) -> None:
    make, inputs = MODELS[label]
    first, second, third = names(label)
    after = converted(converted(make(), "batch-stat", second), "instance", first, third)
    report = normswap.verify(make(), after, "instance", inputs=inputs, may_differ=[second])
    assert report.ok, report.to_text()
    assert report.verdict == f"{BUT}, by structure and probes alone"
    assert report.notes[-1].startswith("end to end was not judged, because of layers that are neither as before nor")
    (check,) = report.allowed
    assert (check.witness, check.name) == ("probes", second)
    assert check.cause == "looks as if the statistics were taken over the whole batch, not over each sample"


@pytest.mark.parametrize("label", MODELS)
def test_an_allowance_that_is_not_needed_changes_nothing(label: str) -> None:
    make, inputs = MODELS[label]
    after = normswap.convert(make(), "instance", end_to_end=False).model
    report = normswap.verify(make(), after, "instance", inputs=inputs, may_differ=["*"])
    assert report.ok
    assert report.verdict == f"equal to {MEANING}"
    assert f"allowed to differ, but equal: {', '.join(names(label))}" in report.notes


@pytest.mark.parametrize("label", MODELS)
def test_if_all_layers_differ_nothing_was_shown(label: str) -> None:
    make, inputs = MODELS[label]
    report = normswap.verify(make(), make(), "instance", inputs=inputs, may_differ=["*"])
    assert not report.ok
    assert not report.failed
    assert "every converted layer differs, as allowed, so that nothing was shown" in report.notes
    xml = render("junit", verification([Outcome("n", "b", "a", "instance", report)]), datetime.now(timezone.utc))
    assert [case.get("message") for case in ElementTree.fromstring(xml).iter("failure")] == [report.verdict]


def another_byte(model: Any) -> None:
    if hasattr(model, "state_dict"):
        state = model.state_dict if isinstance(model, ExportedProgram) else model.state_dict()
        state["4.bias"].data[0] += 1
    else:
        tensor = next(t for t in model.proto.graph.initializer if t.name == "w")
        raw = bytearray(tensor.raw_data)
        raw[0] ^= 1
        tensor.raw_data = bytes(raw)


@pytest.mark.parametrize("label", ["onnx", "module", "program"])
def test_what_is_outside_of_the_layers_is_not_allowed(label: str) -> None:
    before, after, report = left(label, 1)
    assert report.ok
    another_byte(after)
    report = normswap.verify(before, after, "instance", inputs=MODELS[label][1], may_differ=[names(label)[1]])
    assert not report.ok
    assert [check.name in names(label) for check in report.failed] == [False]


def test_a_layer_may_be_called_what_the_whole_is_called() -> None:
    text = TEXT.replace("b = ", "graph = ").replace("Conv(b", "Conv(graph")
    before = build(text)
    after = converted(before, "instance", "a", "c")
    assert normswap.verify(before, after, "instance", may_differ=["graph"]).ok
    another_byte(after)
    assert not normswap.verify(before, after, "instance", may_differ=["graph"]).ok


def test_an_allowed_layer_that_is_gone_takes_its_readers_along() -> None:
    before = build(TEXT)
    after = converted(before, "instance", "a", "c")
    proto = after.proto
    node = next(node for node in proto.graph.node if "b" in node.output)
    reader = next(node for node in proto.graph.node if "b" in node.input)
    reader.input[0] = node.input[0]
    proto.graph.node.remove(node)
    report = normswap.verify(before, after, "instance", may_differ=["b"])
    assert not report.ok
    assert any("Conv" in check.detail for check in report.failed)


def test_calls_of_one_function_differ_together() -> None:
    before = build(CASES["local function, called three times"].text)
    layers = [layer.name for layer in normswap.plan(before, "instance").layers]
    shared = [layer.name for layer in normswap.find(before) if layer.body]
    assert len(shared) > 1
    for allowed in ([shared[0]], [shared[-1]]):
        assert not normswap.verify(before, before, "instance", may_differ=allowed).ok
    assert not normswap.verify(before, before, "instance", may_differ=layers).ok


# What cannot be asked.


def test_a_glob_has_to_match_a_layer_that_is_to_be_converted() -> None:
    before = build(TEXT)
    after = converted(before, "instance", "a", "b")
    with pytest.raises(SelectionError, match=r"no BatchNorm layer matches 'aa' among the 3 that are .*nearest is 'a'"):
        normswap.verify(before, after, "instance", may_differ=["aa"])
    with pytest.raises(SelectionError, match="no BatchNorm layer matches 'c' among the 2 that are to be converted"):
        normswap.verify(before, after, "instance", skip=["c"], may_differ=["c"])


def test_between_frameworks_there_are_no_layers_to_allow() -> None:
    with pytest.raises(SelectionError, match=r"different frameworks and .* leave out may_differ"):
        normswap.verify(network(), build(TEXT), "instance", may_differ=["1"])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_checkpoint_has_no_layers_to_allow(folder: Path, refused: Refused) -> None:
    for name in ("a.pth", "b.pth"):
        torch.save(network().state_dict(), name)
    said = refused("verify", "a.pth", "b.pth", "--to", "instance", "--may-differ", "1")
    assert "--may-differ does nothing with a checkpoint" in said


# Reports.

STEM = "/stem/stem.1/BatchNormalization_output_0"


@pytest.fixture(scope="module")
def lowlight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture, converted but for its first layer."""
    path = tmp_path_factory.mktemp("lowlight") / "partly.onnx"
    normswap.convert(LOWLIGHT, "instance", skip=[STEM], end_to_end=False, output=path)
    return path


def test_the_command_line(lowlight: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["verify", str(LOWLIGHT), str(lowlight), "--to", "instance"]
    assert main(command) == 1
    capsys.readouterr()
    assert main([*command, "--may-differ", "/stem/*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("structure   34 nodes and 36 tensors")  # the layer's statistics are still there
    assert lines[0].endswith("outside the 9 planned layers are identical, 1 allowed to differ")
    assert lines[1].startswith("probes      8 of 9 hold, 1 allowed to differ; worst ")
    assert lines[2].startswith("end to end  2 of 2 hold")
    assert lines[4] == f"  allowed to differ: structure: {STEM}: the layer was left as it was"
    assert lines[5].startswith(f"  allowed to differ: probes: {STEM}: error ")
    assert lines[5].endswith("looks as if the running statistics were used (eval mode)")
    assert lines[-1] == f"PASS: {BUT}"


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_says_so(form: str, lowlight: Path) -> None:
    report = normswap.verify(LOWLIGHT, lowlight, "instance", end_to_end=False, may_differ=["/stem/*"])
    assert report.ok
    text = render(
        form, verification([Outcome("pair", "before", "after", "instance", report)]), datetime.now(timezone.utc)
    )
    assert "allowed to differ" in text
    assert STEM in text
    if form == "json":
        data = json.loads(text)["outcomes"][0]["report"]
        assert data["may_differ"] == [STEM]
        assert {(check["name"], check["ok"]) for check in data["checks"] if check["may_fail"]} == {(STEM, False)}
    if form == "junit":
        (suite,) = ElementTree.fromstring(text)
        assert (suite.get("failures"), suite.get("skipped")) == ("0", "3")  # with end to end, which was not run
    if form == "github":
        assert text.count("::warning ") == 2
        assert "::error " not in text
