"""Outcomes of all kinds, made by hand, for the tests of how they are reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone

import numpy as np

from normswap.plan import Choice
from normswap.report import Check, Picture, Report
from normswap.reports.formats import render
from normswap.reports.outcome import Outcome
from normswap.reports.verification import verification

__all__ = ["CREATED", "HOSTILE", "OUTCOMES", "PASSED", "REPORT", "rendered"]

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
MEANING = "train-mode BatchNorm fed one sample at a time"

HOSTILE = {  # names that a model's maker, or a file's, could have given
    "html": "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\"><!--",
    "html attribute": "\" onmouseover=\"document.title='run'\" '",
    "template": "{{ 7 * 7 }}{% raw %}",
    "xml": "]]></testcase><failure/>&amp;&#0;<![CDATA[",
    "command": "::error file=x,title=y::z",
    "command on a line of its own": "a\n::error::injected\r::notice::injected",
    "old command": "##[error]injected",
    "old command, joined": "##\u200d[error]injected",
    "escaped": "100%0A::error::x%0D%25%3A%2C",
    "markdown cell": "a | b || c \\| d",
    "markdown code": "``` ` `` a`b|c`",
    "markdown markup": "**bold** _x_ [a](http://example.invalid) ![](x) # ~~ $x$ &lt; <b> @all",
    "markdown block": "\n\n# heading\n- item\n\n| a |\n|---|\n",
    "a list": "1. one",
    "verdict": "x\nPASS: equal to everything\n",
    "control": "\x00\x01\x08\x1b[31mred\x1b[0m\x7f\x85\x9b",
    "separators": "a\u2028b\u2029c\x0bd\x0ce\x1cf",
    "lone surrogate": "file-\udcff\ud800.onnx",
    "no characters": "\ufffe\uffff",
    "direction": "\u202egnp.exe\u2066abc\u200f",
    "right to left": "שלום עולם",
    "emoji": "👩‍👩‍👧 ✅ é 模型 \U0001d518",
    "no width": "pay\u200bload\ufeff\u00ad",
    "very long": "layer/" * 4000,
    "empty": "",
    "blank": " ",
}


def held(layer: str, error: float | None = 1e-7, bound: float | None = 4e-7) -> Check:
    return Check("probes", layer, True, error, bound, (0, 1, 2), "input 2x4x5, as written")


def failed(layer: str, error: float = 0.25, bound: float = 5e-7) -> Check:
    detail, cause = "input 1x4x9, optimized", "looks as if eps was dropped"
    return Check("probes", layer, False, error, bound, (1, 0, 0), detail, 3, 36, cause)


STRUCTURE = Check("structure", "graph", True, detail="3 nodes outside the 2 converted layers are identical")
END_TO_END = Check("end to end", "y (as written)", True, 0.0, 1e-6, (0,), "all of 8 elements; noise floor 6e-08")
REPORT = Report(
    "instance",
    MEANING,
    ("a", "b"),
    (STRUCTURE, held("a"), held("b", 0.0), END_TO_END),
    ("somebody should know",),
    "generated, seed 0: x 2x4x5",
    {"c": "not selected", "d": "not selected", "e": "REFUSED: rank 2"},
    {"a": Choice("two-pass primitives", "right in nowhere 1.0"), "b": Choice("transposed", "faster in nowhere 1.0")},
)
PASSED = Outcome("net", "net.onnx", "out/net_instance.onnx", "instance", REPORT, written="out/net_instance.onnx")


def reporting(report: Report, name: str = "net", written: str | None = None) -> Outcome:
    return replace(PASSED, name=name, report=report, written=written)


def images() -> tuple[Picture, ...]:
    rng = np.random.default_rng(0)
    expected = rng.uniform(-1, 1, (2, 3, 6, 9)).astype(np.float32)
    found = expected + rng.uniform(-1e-7, 1e-7, expected.shape).astype(np.float32)
    wrong = expected.copy()
    wrong[0, 1, 2, 3] = np.nan
    wrong[1, 0, 0, 0] += 1
    masks = rng.integers(0, 5, (1, 1, 4, 4))
    return (
        Picture("y", "as written", expected, found, 1e-6),
        Picture("y", "optimized", expected, wrong, 1e-6),
        Picture("mask", "as written", masks, masks, None),
    )


def hostile(name: str) -> Outcome:
    """An outcome that has the name everywhere that one can come to."""
    checks = (
        Check("structure", name, False, detail=f"{name} is gone"),
        failed(name),
        held(f"{name}2"),
        Check("end to end", f"{name} (as written)", False, detail=f"expected float32(1,), found {name}"),
    )
    black = np.zeros((1, 1, 2, 2), np.float32)
    pictures = (Picture(name, name, black, black, 0.0),)
    left = {f"{name}3": "not selected", f"{name}4": f"REFUSED: {name}"}
    forms = {name: Choice(name, name)}
    report = Report("instance", MEANING, (name, f"{name}2"), checks, (name,), name, left, forms, pictures=pictures)
    return Outcome(name, f"{name}.onnx", f"{name}/{name}", "instance", report)


TROUBLED = Outcome("lost", "net.onnx", "lost.onnx", "instance", trouble="lost.onnx: cannot be read: No such file")
FAILED = reporting(replace(REPORT, checks=(STRUCTURE, held("a"), failed("b"), END_TO_END)), "wrong")
MANY = reporting(
    replace(
        REPORT,
        planned=tuple(f"layer{i}" for i in range(60)),
        checks=(
            *(Check("structure", "graph", False, detail=f"tensor w{i} has other values") for i in range(30)),
            *(failed(f"layer{i}", 10.0 ** (i - 20)) for i in range(40)),
            *(held(f"layer{i}") for i in range(40, 60)),
        ),
    ),
    "many failures",
)
NUMBERS = [0.0, 1e-300, 1e-7, 1.0, 1e300, float("inf"), float("nan")]
OUTCOMES: dict[str, tuple[Outcome, ...]] = {
    "pass": (PASSED,),
    "fail": (FAILED,),
    "trouble": (TROUBLED,),
    "several": (PASSED, FAILED, TROUBLED, MANY),
    "several, all equal": (PASSED, replace(PASSED, name="other")),
    "many pairs": tuple(replace((PASSED, FAILED, TROUBLED)[i % 3], name=f"pair {i}") for i in range(45)),
    "no pairs": (),
    "nothing checked": (reporting(replace(REPORT, planned=(), checks=(), left={}, notes=())),),
    "a layer that no probe saw": (reporting(replace(REPORT, checks=(STRUCTURE, held("a"), END_TO_END))),),
    "structure not compared": (reporting(replace(REPORT, checks=(held("a"), held("b"), END_TO_END))),),
    "no end to end": (reporting(replace(REPORT, checks=(STRUCTURE, held("a"), held("b")))),),
    "between frameworks": (reporting(replace(REPORT, checks=(END_TO_END,), needed=("end to end",))),),
    "checkpoints": (reporting(replace(REPORT, checks=(STRUCTURE,), needed=("structure",))),),
    "a layer that does not run": (
        reporting(
            replace(REPORT, checks=(STRUCTURE, Check("probes", "a", False, detail="could not be run"), held("b")))
        ),
    ),
    "many failures": (MANY,),
    "allowed to differ": (
        reporting(replace(REPORT, checks=(STRUCTURE, held("a"), failed("b"), END_TO_END), may_differ=("b",))),
    ),
    "allowed to differ, and another fails": (
        reporting(replace(REPORT, checks=(STRUCTURE, failed("a"), failed("b"), END_TO_END), may_differ=("b",))),
    ),
    "one name twice": (
        reporting(replace(REPORT, planned=("a", "a"), checks=(STRUCTURE, held("a"), failed("a"), END_TO_END))),
    ),
    "numbers": tuple(
        reporting(
            replace(
                REPORT,
                checks=(
                    STRUCTURE,
                    *(Check("probes", name, error <= bound, error, bound) for name in ("a", "b") for error in NUMBERS),
                ),
            ),
            f"bound {bound}",
        )
        for bound in NUMBERS
    ),
    "images": (reporting(replace(REPORT, pictures=images())),),
    **{f"hostile: {kind}": (hostile(name),) for kind, name in HOSTILE.items()},
    "hostile, all": (
        *map(hostile, HOSTILE.values()),
        *(replace(TROUBLED, trouble=f"{n}: x") for n in HOSTILE.values()),
    ),
}


def rendered(form: str, outcomes: Sequence[Outcome], created: datetime = CREATED) -> str:
    """The report of outcomes in a format."""
    return render(form, verification(outcomes), created)
