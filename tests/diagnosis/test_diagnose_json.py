"""JSON of a diagnosis: valid by the schema in the package, which rejects everything else."""

from __future__ import annotations

import json
from importlib.resources import files

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from support import ROOT
from support.models.diagnoses import diagnosis
from support.readers.documents import changed, general, places

import normswap
from normswap import Diagnosis
from normswap.reports.diagnosis import diagnosed
from normswap.reports.formats import render
from normswap.reports.formats.json import VERSION

SCHEMA = json.loads(files("normswap.reports.schemas").joinpath("diagnose.json").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)


def of_nan() -> Diagnosis:
    images = np.load(ROOT / "fixtures/lowlight_images.npz")["dark"]
    return normswap.diagnose(ROOT / "fixtures/lowlight.onnx", np.where(images > 0.5, np.nan, images).astype(np.float32))


DOCUMENTS = {
    "lowlight": lambda: diagnosis("lowlight"),
    "studio": lambda: diagnosis("studio"),
    "without targets": lambda: diagnosis("lowlight", targets=False),
    "NaN": of_nan,
}


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["version"]["const"] == VERSION
    assert SCHEMA["title"].endswith(f"version {VERSION}")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_diagnosis_is_valid(name: str) -> None:
    found = json.loads(render("json", diagnosed(DOCUMENTS[name](), "model.onnx")))
    VALIDATOR.validate(found)
    assert found.items() >= DOCUMENTS[name]().to_dict().items()


def test_a_diagnosis_without_a_key_or_with_a_value_of_another_type_is_turned_down() -> None:
    whole = json.loads(render("json", diagnosed(diagnosis("lowlight"), "model.onnx")))
    for place in {general(place): place for place in places(whole) if place}.values():
        if isinstance(place[-1], str):
            assert not VALIDATOR.is_valid(changed(whole, place)), place
        assert not VALIDATOR.is_valid(changed(whole, place, {"a": 1})), place
        assert not VALIDATOR.is_valid(changed(whole, place, True)) or place == ("complete",), place
    for wrong in ({"exit_code": 1}, {"command": "verify"}, {"verdict": None}):
        assert not VALIDATOR.is_valid(whole | wrong), wrong
