"""The documents of recalibrate: how far each layer's statistics moved, or what one shard of the data gave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from normswap.reports.blocks import Block, Code, Column, Fold, Items, Row, Table, Text
from normswap.reports.checks import grouped
from normswap.reports.document import Case, Document, Section
from normswap.reports.outcome import DIFFERENT, EQUAL
from normswap.words import counted, inert, json_number

if TYPE_CHECKING:  # a Recalibration words itself through this file, which therefore knows it by its shape alone
    from normswap.recalibration.report import Collected, Recalibration

__all__ = ["collected", "data_of", "lines_of", "recalibrated"]

_ABOUT = (
    "gives the BatchNorm layers of a network new stored statistics, those of some data, and shows that nothing else "
    "changed."
)


def recalibrated(found: Recalibration, model: str) -> Document:
    """Return the document of a recalibration.

    Args:
        found: What came of it.
        model: The model, as it was named.
    """
    code = EQUAL if found.ok else DIFFERENT
    failures = [check.detail for check in found.checks if not check.ok]
    section = Section(
        name=model,
        models=(model,) if found.written is None else (model, str(found.written)),
        exit_code=code,
        word="PASS" if found.ok else "FAIL",
        tone="pass" if found.ok else "fail",
        verdict=_verdict(found),
        lines=lines_of(found),
        file="" if found.written is None else str(found.written),
        facts=_facts(found, model),
        summary=_blocks(found, failures),
        page=lambda: _blocks(found, failures),
        cases=_cases(found),
        properties={"model": model},
        log=[f"note: {note}" for note in found.notes],
        failures=failures,
    )
    return Document("recalibrate", section.verdict, code, [section], _ABOUT, data_of(found))


def _verdict(found: Recalibration) -> str:
    return found.checks[0].detail if found.ok else "more or less than the statistics changed"


def _origin(found: Recalibration) -> str:
    how = "layer by layer, each as in eval mode" if found.sequential else "under the statistics of each batch"
    passes = f" in {found.passes} passes" if found.passes > 1 else ""
    return f"{counted(found.samples, 'sample')}, collected {how}{passes}"


def _facts(found: Recalibration, model: str) -> list[tuple[str, Text]]:
    facts: list[tuple[str, Text]] = [("model", Code(model)), ("data", _origin(found)), ("variance", found.variance)]
    if found.momentum is not None:
        facts.append(("momentum", f"{found.momentum:g}"))
    return facts if found.written is None else [*facts, ("written", Code(str(found.written)))]


def _blocks(found: Recalibration, failures: Sequence[str]) -> list[Block]:
    columns = [Column("layer"), Column("samples", "number"), Column("mean moved by, std", "number")]
    columns += [Column("variance times", "number"), Column("was stale by, nats", "number")]
    rows = [
        Row(
            (
                Code(of.name),
                str(of.samples),
                f"{of.shift:.2g}",
                f"{of.least:.2g} to {of.most:.2g}",
                f"{of.staleness:.2g}",
            )
        )
        for of in found.moved
    ]
    blocks: list[Block] = [Items(failures, "What failed", failed=True)] if failures else []
    blocks.append(Table("layers", columns, rows, "Layers"))
    others = [*(f"left as they are: {group}" for group in grouped(found.left)), *found.notes]
    return [*blocks, Fold("What was left, and notes", [Items(others)])] if others else blocks


def _cases(found: Recalibration) -> list[Case]:
    cases = [Case(check.witness, check.name, "held" if check.ok else "failure", check.detail) for check in found.checks]
    if found.ok is False and all(check.ok for check in found.checks):
        cases.append(Case("verdict", "recalibrate", "failure", _verdict(found)))
    return [*cases, *(Case("left as it is", name, "skipped", reason) for name, reason in found.left.items())]


def lines_of(found: Recalibration) -> list[str]:
    """Return a recalibration for people: a line for each layer, then what was checked, then notes."""
    wide = max([5, *(len(moved.name) for moved in found.moved)])
    lines = [
        f"{counted(len(found.moved), 'BatchNorm layer')} recalibrated from {_origin(found)}",
        f"{'layer':<{wide}}  samples  mean moved by   variance times  was stale by",
    ]
    for moved in found.moved:
        ratio = f"{moved.least:.2g} to {moved.most:.2g}"
        figures = f"{moved.samples:>7}  {moved.shift:>9.2g} std  {ratio:>15}  {moved.staleness:>7.2g} nats"
        lines.append(inert(f"{moved.name:<{wide}}  {figures}"))
    lines += [f"  FAILED: {check.detail}" for check in found.checks if not check.ok]
    lines += [f"  left as they are: {group}" for group in grouped(found.left)]
    lines += [f"  note: {note}" for note in found.notes]
    return [*lines, f"{'PASS' if found.ok else 'FAIL'}: {_verdict(found)}"]


def data_of(found: Recalibration) -> dict[str, Any]:
    """Return a recalibration as plain data, without the model; numbers that are NaN or infinite are strings."""
    return {
        "ok": found.ok,
        "samples": found.samples,
        "variance": found.variance,
        "momentum": found.momentum,
        "sequential": found.sequential,
        "passes": found.passes,
        "written": None if found.written is None else str(found.written),
        "layers": [
            {
                "name": moved.name,
                "samples": moved.samples,
                "elements": moved.elements,
                "mean_shift": json_number(moved.shift),
                "variance_ratio": [json_number(moved.least), json_number(moved.most)],
                "staleness_nats": json_number(moved.staleness),
            }
            for moved in found.moved
        ],
        "left": dict(found.left),
        "checks": [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in found.checks],
        "notes": list(found.notes),
    }


def collected(found: Collected, model: str) -> Document:
    """Return the document of one shard of the data.

    Args:
        found: What it gave.
        model: The model, as it was named.
    """
    samples = max(found.samples.values(), default=0)
    verdict = f"moments of {counted(len(found.samples), 'layer')} from {counted(samples, 'sample')}"
    written = str(found.written)
    rows = [Row((Code(name), str(count))) for name, count in found.samples.items()]
    blocks: list[Block] = [Table("layers", (Column("layer"), Column("samples", "number")), rows, "Layers")]
    if found.notes:
        blocks.append(Items(found.notes, "Notes"))
    section = Section(
        name=f"{model}, shard {found.shard}",
        models=(model, written),
        exit_code=EQUAL,
        word="PASS",
        tone="pass",
        verdict=verdict,
        lines=[f"shard {found.shard}: {verdict}", *(f"  note: {note}" for note in found.notes)],
        file=written,
        facts=[("model", Code(model)), ("shard", found.shard), ("written", Code(written))],
        summary=blocks,
        page=lambda: blocks,
        cases=[Case("shard", found.shard, "held", verdict)],
        properties={"model": model, "shard": found.shard},
        log=[f"note: {note}" for note in found.notes],
    )
    data = {
        "ok": True,
        "shard": found.shard,
        "samples": dict(found.samples),
        "written": written,
        "notes": list(found.notes),
    }
    return Document("recalibrate", verdict, EQUAL, [section], _ABOUT, data)
