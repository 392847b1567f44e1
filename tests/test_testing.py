"""assert_equivalent: what it returns, what it raises, and what its messages say."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from support import ROOT
from support.models.cases import CASES, build
from support.models.modules import MODULES
from support.models.small_models import LOWLIGHT
from support.oracles.mutants import MUTANTS
from support.oracles.mutated import BODIES, made
from torch import nn

import normswap
from normswap.backends.torch import factory
from normswap.testing import assert_equivalent

MEANING = "train-mode BatchNorm fed one sample at a time"
HEAD = f"The models are not equivalent: NOT shown equal to {MEANING}\n\n"


def message(before: Any, after: Any, **options: Any) -> str:
    """Return what the assertion says, numbers that rounding may move left out."""
    with pytest.raises(AssertionError) as caught:
        assert_equivalent(before, after, "instance", **options)
    text = re.sub(r"(Mismatched elements:) \d+ / (\d+) \(.*\)", r"\1 N / \2 (P)", str(caught.value))
    text = re.sub(r"N / \d+ \(P\)\n(.*\n) +input [^:\n]+$", r"N / M (P)\n\1    input S, way", text, flags=re.MULTILINE)
    text = re.sub(
        r"difference: \S+ at index \(.*?\) \(up to \S+ allowed\)", "difference: E at index (I) (up to E allowed)", text
    )
    return re.sub(r"(noise floor|largest output) [\d.e+-]+", r"\1 E", text)


LEFT = """\
structure: 9 failed
  /stem/stem.1/BatchNormalization_output_0: the layer was left as it was
  /down.0/down.0.1/down.0.1.1/BatchNormalization_output_0: the layer was left as it was
  /down.1/down.1.1/down.1.1.1/BatchNormalization_output_0: the layer was left as it was
  ... and 6 more

probes: 9 of 9 failed
  /stem/stem.1/BatchNormalization_output_0
    Mismatched elements: N / M (P)
    Worst difference: E at index (I) (up to E allowed)
    input S, way
    Likely cause: it looks as if the running statistics were used (eval mode)
  /down.0/down.0.1/down.0.1.1/BatchNormalization_output_0
    Mismatched elements: N / M (P)
    Worst difference: E at index (I) (up to E allowed)
    input S, way
    Likely cause: it looks as if the running statistics were used (eval mode)
  /down.1/down.1.1/down.1.1.1/BatchNormalization_output_0
    Mismatched elements: N / M (P)
    Worst difference: E at index (I) (up to E allowed)
    input S, way
    Likely cause: it looks as if the running statistics were used (eval mode)
  ... and 6 more: 6 look as if the running statistics were used (eval mode)

inputs: none: end to end was not run
note: end to end was not run, because the structure differs"""

ACROSS = """\
end to end: 2 of 2 failed
  output (as written)
    Mismatched elements: N / 24576 (P)
    Worst difference: E at index (I) (up to E allowed)
    noise floor E, largest output E
    Likely cause: it looks as if population was computed instead (eval-mode BatchNorm)
  output (optimized)
    Mismatched elements: N / 24576 (P)
    Worst difference: E at index (I) (up to E allowed)
    noise floor E, largest output E
    Likely cause: it looks as if population was computed instead (eval-mode BatchNorm)

inputs: generated, seed 0: dark 2x3x64x64, as the converted model declares them
note: the two models are of different frameworks: only outputs were compared, paired by their order
"""


def test_what_holds_returns_its_report() -> None:
    before = build(CASES["opset 9"].text)
    after = normswap.convert(before, "instance").model
    assert assert_equivalent(before, after, "instance").verdict == f"equal to {MEANING}"
    report = assert_equivalent(before, after, "instance", end_to_end=False)
    assert report.verdict == f"equal to {MEANING}, by structure and probes alone"
    assert report.unheard == ("end to end",)


def test_left_in_eval_mode() -> None:
    assert message(LOWLIGHT, LOWLIGHT) == HEAD + LEFT


def test_left_in_eval_mode_by_an_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    generator = factory.build("fixtures.lowlight:Generator", "fixtures/lowlight.safetensors")
    assert message(generator, LOWLIGHT).startswith(HEAD + ACROSS)


MUTANT = """\
probes: 1 of 1 failed
  LAYER
    Mismatched elements: N / M (P)
    Worst difference: E at index (I) (up to E allowed)
    input S, way
    Likely cause: it looks as if CAUSE

inputs: none: end to end was not run
note: end to end was left out on request: the model as a whole was not run"""


@pytest.mark.parametrize(
    ("body", "mutant", "cause"),
    [
        ("onnx", "eps dropped", "eps was dropped"),
        ("onnx", "weight and bias swapped", "weight and bias were swapped"),
        ("module, BatchNorm2d", "unbiased variance", "the variance was divided by n - 1, not by n"),
        ("program", "eps 1 % larger", "eps was 1.01e-05, not 1e-05"),
    ],
)
def test_a_mutant(body: str, mutant: str, cause: str) -> None:
    _, before, after, plan = made(BODIES[body], "instance", MUTANTS[mutant])
    said = MUTANT.replace("LAYER", plan.layers[0].name).replace("CAUSE", cause)
    assert message(before, after, inputs=BODIES[body].inputs(), end_to_end=False) == HEAD + said


class Wrong(nn.Module):
    """Stands in a layer's place."""

    def __init__(self, shape: tuple[int, ...] | None) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x, torch.nan) if self.shape is None else x.flatten(*self.shape)


def with_norm(norm: nn.Module) -> tuple[nn.Module, nn.Module, Any]:
    case = MODULES["BatchNorm2d"]
    before = case.build()
    after = copy.deepcopy(before)
    after.norm = norm
    return before, after, case.inputs()


def test_another_shape() -> None:
    before, after, inputs = with_norm(Wrong((2, 3)))
    text = message(before, after, inputs=inputs)
    probe = "  norm\n    input 2x4x5x3, as it runs, contiguous: expected shape (2, 4, 5, 3), found (2, 4, 15)\n"
    assert text.startswith(f"{HEAD}probes: 1 of 1 failed\n{probe}")
    assert "    expected float32(2, 4, 6, 5), found float32(2, 4, 30)\n" in text
    assert "cause" not in text


def test_nan() -> None:
    before, after, inputs = with_norm(Wrong(None))
    text = message(before, after, inputs=inputs)
    assert "Worst difference: E at index (I) (up to E allowed)" in text
    assert "elements are NaN or infinite on one side only" in text
    assert "cause" not in text


def test_what_was_left_and_what_may_differ_is_said() -> None:
    text = message(LOWLIGHT, LOWLIGHT, skip=["/down*"], may_differ=["/stem/*"])
    assert "structure: 4 failed" in text
    assert "allowed to differ: /stem/stem.1/BatchNormalization_output_0: the layer was left as it was" in text
    assert re.search("left as they are: /down.0/.* and 1 more \\(not selected\\)", text)


@pytest.mark.parametrize("name", ["missing.onnx", "text.onnx"])
def test_trouble_is_no_failed_assertion(name: str, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(normswap.ModelReadError):
        assert_equivalent(LOWLIGHT, tmp_path / name, to="instance")
    with pytest.raises(normswap.ModelReadError):
        assert_equivalent(tmp_path / name, LOWLIGHT, to="instance")


def test_no_layers_and_refused_layers_are_trouble() -> None:
    bare = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }'
    )
    with pytest.raises(normswap.NothingToConvertError, match="no BatchNorm was found"):
        assert_equivalent(bare, bare, to="instance")
    with pytest.raises(normswap.RefusedLayersError):
        assert_equivalent(build(CASES["rank 2"].text), build(CASES["rank 2"].text), to="instance")
    with pytest.raises(normswap.SelectionError):
        assert_equivalent(bare, bare, to="instanse")


def test_inputs_are_used() -> None:
    before = build(CASES["opset 9"].text)
    after = normswap.convert(before, "instance").model
    x = np.ones((1, 4, 6, 5), np.float32)
    assert assert_equivalent(before, after, "instance", inputs={"x": x}).inputs == "given by the caller"


def test_a_traceback_ends_in_the_test(tmp_path: Path) -> None:
    test = tmp_path / "test_file.py"
    call = f"assert_equivalent({str(LOWLIGHT)!r}, {str(LOWLIGHT)!r}, to='instance', only=['/stem/*'])"
    test.write_text(
        f"from normswap.testing import assert_equivalent\n\n\ndef test_file():\n    {call}\n", encoding="utf-8"
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(test)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stderr
    assert "AssertionError: The models are not equivalent: NOT shown equal" in ran.stdout
    assert "Likely cause: it looks as if the running statistics were used" in ran.stdout
    assert "_message(report)" not in ran.stdout
