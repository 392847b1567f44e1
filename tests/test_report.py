"""Report: its golden text, its plain data, and when it is ok."""

from __future__ import annotations

from normswap import Check, Report

CHECKS = (
    Check("structure", "graph", True, detail="3 nodes and 2 tensors (160 bytes) outside the 2 converted layers"),
    Check("probes", "a", True, 1e-7, 4e-7, (0, 1, 2), "input 2x4x5, as written"),
    Check("probes", "b", False, 0.25, 5e-7, (1, 0, 0), "input 1x4x9, optimized", 3, 36, "looks as if eps was dropped"),
    Check("end to end", "y (as written)", True, 0.0, 1e-6, (0,), "noise floor 6e-08", 0, 8),
)

GOLDEN = """\
structure   3 nodes and 2 tensors (160 bytes) outside the 2 converted layers
probes      1 of 2 hold; worst b: error 0.25, allowed 5e-07 at [1, 0, 0] (3 of 36 elements; input 1x4x9, optimized)
end to end  1 of 1 hold; worst y (as written): error 0, allowed 1e-06 at [0] (all of 8 elements; noise floor 6e-08)
inputs      generated, seed 0: x 2x4x5
  FAILED probes: b: error 0.25, allowed 5e-07 at [1, 0, 0] (3 of 36 elements; input 1x4x9, optimized); \
looks as if eps was dropped
  left as they are: c, d, e and 1 more (not selected)
  left as they are: g (REFUSED: rank 2)
  note: somebody should know
FAIL: NOT shown equal to train-mode BatchNorm fed one sample at a time"""


def report(checks: tuple[Check, ...] = CHECKS, planned: tuple[str, ...] = ("a", "b")) -> Report:
    meaning = "train-mode BatchNorm fed one sample at a time"
    left = dict.fromkeys("cdef", "not selected") | {"g": "REFUSED: rank 2"}
    notes = ("somebody should know",)
    return Report("instance", meaning, planned, checks, notes, "generated, seed 0: x 2x4x5", left)


def test_text() -> None:
    assert report().to_text() == GOLDEN


def test_plain_data_holds_all_of_it() -> None:
    data = report().to_dict()
    assert (data["ok"], data["target"], data["planned"]) == (False, "instance", ["a", "b"])
    assert len(data["checks"]) == len(CHECKS)
    assert data["checks"][2] == {
        "witness": "probes",
        "name": "b",
        "ok": False,
        "may_fail": False,
        "error": 0.25,
        "bound": 5e-7,
        "index": [1, 0, 0],
        "detail": "input 1x4x9, optimized",
        "wrong": 3,
        "size": 36,
        "cause": "looks as if eps was dropped",
    }


def test_infinite_errors_have_a_name_in_json() -> None:
    infinite = Check("probes", "a", False, float("inf"), 1.0, (0,))
    assert report((infinite,)).to_dict()["checks"][0]["error"] == "inf"


def test_ok_needs_every_planned_layer_and_the_structure() -> None:
    held = tuple(check for check in CHECKS if check.ok)
    assert report(held, ("a",)).ok
    assert not report(held, ("a", "b")).ok
    assert not report(held[1:], ("a",)).ok
    assert not report(held, ()).ok


def test_a_verdict_without_the_third_witness_says_so() -> None:
    held = tuple(check for check in CHECKS if check.ok and check.witness != "end to end")
    assert report(held, ("a",)).to_text().endswith("one sample at a time, by structure and probes alone")


def test_many_failures_are_cut_short_for_people_alone() -> None:
    failures = tuple(Check("probes", f"layer{i}", False, 1.0, 0.1, (0,)) for i in range(40))
    text = report(failures).to_text()
    assert text.count("FAILED") == 12
    assert "... and 28 more; --format json has them all" in text
