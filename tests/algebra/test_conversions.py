"""Conversions of models that nobody here wrote, and of our own fixtures, are proved layer by layer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import ROOT
from support.models.cases import CASES, build
from support.models.targets import TARGETS

from normswap.backends import onnx_graph
from normswap.backends.onnx_graph.formula import LayerProof, proofs
from normswap.backends.onnx_graph.graph.model import OnnxModel
from normswap.errors import UnsupportedModelError
from normswap.plan import make_plan

CORPUS = Path(os.environ.get("NORMSWAP_CORPUS", ROOT.parent / "shared" / "corpus"))
FILES = sorted(
    path
    for folder in (CORPUS, CORPUS.parent / "tf", ROOT / "fixtures")
    for path in folder.glob("*.onnx")
    if not path.name.startswith("onnx_light_")  # large, of layers like those of the others
)


def proved(model: OnnxModel, to: str) -> list[LayerProof]:
    before = onnx_graph.prepare(model)
    plan = make_plan(TARGETS[to], onnx_graph.find(before))
    if not plan.layers:
        return []
    return list(proofs(before, onnx_graph.rewrite(before, plan), plan))


def wrong(found: list[LayerProof], to: str) -> dict[str, str]:
    """Return why layers are not proved; for group only of those whose operators the algebra reads.

    It has no rule for the Concat of averages in group's two-pass form, nor for whole numbers cast to others.
    """
    return {
        each.layer.name: each.proof.reason
        for each in found
        if not each.proof.holds and (each.proof.readable or to != "group")
    }


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("case", CASES)
def test_every_layer_of_every_case_is_proved(case: str, to: str) -> None:
    try:
        found = proved(OnnxModel(build(CASES[case].text)), to)
    except UnsupportedModelError:
        return
    assert not wrong(found, to)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_layer_of_every_file_is_proved(path: Path) -> None:
    large = path.stat().st_size > 200_000
    for to in ("batch-stat",) if large else TARGETS:
        try:
            found = proved(onnx_graph.load(path), to)
        except UnsupportedModelError:
            continue
        assert not wrong(found, to), to
