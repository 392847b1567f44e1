"""JSON of outcomes: every document is valid by the schema in the package, which rejects everything else."""

from __future__ import annotations

import copy
import json
import math
from importlib.resources import files
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from support.models.outcomes import CREATED, NUMBERS, OUTCOMES, rendered
from support.readers.documents import Place, at, changed, general, places

from normswap.reports.formats.json import VERSION, enveloped
from normswap.reports.outcome import Outcome, worst
from normswap.reports.verification import verification

SCHEMA = json.loads(files("normswap.reports.schemas").joinpath("verify.json").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER)
WHOLE = enveloped(verification(OUTCOMES["several"] + OUTCOMES["numbers"]), CREATED)


def strict(text: str) -> Any:
    """Parse JSON as the standard has it: no NaN, no Infinity, no name twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    return json.loads(text, object_pairs_hook=once, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["version"]["const"] == VERSION
    assert SCHEMA["title"].endswith(f"version {VERSION}")


@pytest.mark.parametrize("outcomes", OUTCOMES.values(), ids=OUTCOMES)
def test_every_document_is_valid(outcomes: tuple[Outcome, ...]) -> None:
    found = strict(rendered("json", outcomes))
    VALIDATOR.validate(found)
    assert found["exit_code"] == worst(outcomes)
    assert [(o["name"], o["ok"], o["verdict"]) for o in found["outcomes"]] == [
        (o.name, o.ok, o.verdict) for o in outcomes
    ]


# One of each kind of place, with the types that are seen there; names of layers are keys that anybody may choose.
def named_by_a_model(path: Place) -> bool:
    """Whether a key is the name of a layer, which may be there or not."""
    return "left" in path[:-1] or path[-2:-1] == ("forms",)


KINDS = {general(path): path for path in places(WHOLE) if path and not named_by_a_model(path)}
SEEN = {kind: {type(at(WHOLE, path)) for path in places(WHOLE) if general(path) == kind} for kind in KINDS}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind[-1] != "*"], ids=".".join)
def test_a_document_without_one_of_its_keys_is_turned_down(kind: Place) -> None:
    assert not VALIDATOR.is_valid(changed(WHOLE, KINDS[kind]))


@pytest.mark.parametrize("kind", KINDS, ids=".".join)
def test_a_document_with_a_value_of_another_type_is_turned_down(kind: Place) -> None:
    for wrong in (7, 7.5, "neither", True, [None], {"a": 1}, None):
        if type(wrong) not in SEEN[kind] and not (type(wrong) is int and float in SEEN[kind]):
            assert not VALIDATOR.is_valid(changed(WHOLE, KINDS[kind], wrong)), wrong


WRONG = [
    ("version", VERSION + 1),
    ("exit_code", 3),
    ("command", "diagnose"),
    ("outcomes", [None]),
    ("outcomes.*", {}),
    ("outcomes.*.report", {}),
    ("outcomes.*.report.planned", [1]),
    ("outcomes.*.report.needed", ["neither"]),
    ("outcomes.*.report.needed", ["probes", "probes"]),
    ("outcomes.*.report.notes", [None]),
    ("outcomes.*.report.left", {"a": 1}),
    ("outcomes.*.report.checks", [{}]),
    ("outcomes.*.report.checks.*.witness", "neither"),
    ("outcomes.*.report.checks.*.error", "large"),
    ("outcomes.*.report.checks.*.bound", "Infinity"),
    ("outcomes.*.report.checks.*.index", [-1]),
    ("outcomes.*.report.checks.*.index", [0.5]),
]


@pytest.mark.parametrize(("place", "wrong"), WRONG, ids=str)
def test_a_document_with_a_value_that_is_never_written_is_turned_down(place: str, wrong: Any) -> None:
    assert not VALIDATOR.is_valid(changed(WHOLE, KINDS[tuple(place.split("."))], wrong))


def test_trouble_and_a_report_exclude_each_other() -> None:
    for change in ({"trouble": "some"}, {"report": None}, {"report": None, "trouble": "some", "ok": True}):
        other = copy.deepcopy(WHOLE)
        other["outcomes"][0].update(change)
        assert not VALIDATOR.is_valid(other), change


def test_numbers_that_json_has_no_name_for_can_be_had_back() -> None:
    found = strict(rendered("json", OUTCOMES["numbers"]))
    for outcome, bound in zip(found["outcomes"], NUMBERS, strict=True):
        checks = outcome["report"]["checks"][1 : 1 + len(NUMBERS)]
        assert [float(check["error"]) for check in checks] == pytest.approx(NUMBERS, rel=0, abs=0, nan_ok=True)
        assert float(checks[0]["bound"]) == bound or math.isnan(bound)


def test_a_reader_of_this_version_may_meet_new_keys() -> None:
    other = copy.deepcopy(WHOLE)
    for part in (other, other["outcomes"][0], other["outcomes"][0]["report"]):
        part["new"] = 1
    VALIDATOR.validate(other)
