"""The document of verify and convert: a section for each pair of models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from normswap.files import is_factory
from normswap.reports.blocks import Block, Code, Column, Fold, Items, Row, Table, Text
from normswap.reports.checks import described, grouped, lines_of, remarks, spelled_forms, summary
from normswap.reports.document import Case, Document, Section, Tone
from normswap.reports.outcome import Outcome, worst
from normswap.reports.verification_page import page_of
from normswap.words import counted

if TYPE_CHECKING:
    from normswap.report import Check, Report

__all__ = ["tally", "verification"]

_TONES: tuple[Tone, ...] = ("pass", "fail", "trouble")  # by exit code
_WORDS = ("PASS", "FAIL", "TROUBLE")
_ABOUT = (
    "rewrites the BatchNorm layers of a trained network to another normalization and proves that the result computes "
    "what was meant. This page shows what was compared and how it came out."
)


def verification(outcomes: Sequence[Outcome], command: str = "verify") -> Document:
    """Return the document of some outcomes.

    Args:
        outcomes: One for each pair of models.
        command: ``verify`` or ``convert``.
    """
    verdict = outcomes[0].verdict if len(outcomes) == 1 else tally(outcomes)
    data = {"outcomes": [_data(outcome) for outcome in outcomes]}
    return Document(command, verdict, worst(outcomes), [_section(outcome) for outcome in outcomes], _ABOUT, data)


def tally(outcomes: Sequence[Outcome]) -> str:
    """Return how many outcomes came out in which way."""
    counts = Counter(outcome.exit_code for outcome in outcomes)
    words = enumerate(("equal", "different", "in trouble"))
    listed = ", ".join(f"{counts[code]} {word}" for code, word in words if counts[code])
    return f"{counted(len(outcomes), 'pair')}: {listed}"


def _data(outcome: Outcome) -> dict[str, object]:
    return {
        "name": outcome.name,
        "before": outcome.before,
        "after": outcome.after,
        "to": outcome.to,
        "ok": outcome.ok,
        "verdict": outcome.verdict,
        "trouble": outcome.trouble,
        "written": outcome.written,
        "report": None if outcome.report is None else outcome.report.to_dict(),
    }


def _section(outcome: Outcome) -> Section:
    report, code = outcome.report, outcome.exit_code
    return Section(
        name=outcome.name,
        models=(outcome.before, outcome.after),
        exit_code=code,
        word=_WORDS[code],
        tone=_TONES[code],
        verdict=outcome.verdict,
        lines=[f"TROUBLE: {outcome.trouble}"] if report is None else lines_of(report),
        to=outcome.to,
        file="" if is_factory(outcome.after) else outcome.after,
        facts=_facts(outcome),
        summary=() if report is None else _summary(report),
        page=lambda: page_of(report),
        cases=list(_cases(outcome)),
        properties={"before": outcome.before, "after": outcome.after, "to": outcome.to},
        log=() if report is None else _log(report),
        failures=() if report is None else [_sentence(check) for check in report.failed],
        warnings=() if report is None else [f"allowed to differ: {_sentence(check)}" for check in report.allowed],
    )


def _sentence(check: Check) -> str:
    return f"{check.witness}: {described(check)}"


def _facts(outcome: Outcome) -> list[tuple[str, Text]]:
    report = outcome.report
    written = ", written" if outcome.written is not None else ""
    facts: list[tuple[str, Text]] = [
        ("original", Code(outcome.before)),
        ("converted", (Code(outcome.after), written)),
    ]
    if report is None:
        return [*facts, ("target", Code(outcome.to))]
    layers = counted(len(report.planned), "BatchNorm layer")
    meaning = f": {layers} of the original, meant as {report.meaning}"
    return [*facts, ("target", (Code(outcome.to), meaning)), ("inputs", report.inputs)]


def _summary(report: Report) -> list[Block]:
    rows = [Row((witness, summary(report, witness))) for witness in report.by_witness()]
    columns = (Column("witness"), Column("result"))
    blocks: list[Block] = [Table("witnesses", columns, [*rows, Row(("inputs", report.inputs))])]
    for word, checks in (("failed", report.failed), ("allowed to differ", report.allowed)):
        if checks:
            heads = (Column(word), Column("where"), Column("error", "number"), Column("allowed", "number"), Column(""))
            blocks.append(Table("checks", heads, [_row(check) for check in checks]))
    left = (f"left as they are: {group}" for group in grouped(report.left))
    if items := [*spelled_forms(report.forms), *left, *report.notes]:
        blocks.append(Fold("What was left or not compared", [Items(items)]))
    return blocks


def _row(check: Check) -> Row:
    numbers = ("" if number is None else f"{number:.2g}" for number in (check.error, check.bound))
    return Row((check.witness, Code(check.name), *numbers, remarks(check)), failed=True)


def _log(report: Report) -> list[str]:
    return [f"inputs: {report.inputs}", *spelled_forms(report.forms), *(f"note: {note}" for note in report.notes)]


def _cases(outcome: Outcome) -> Iterator[Case]:
    """Give a case for each check, for each planned layer and witness without one, and for each layer left."""
    report = outcome.report
    if report is None:
        yield Case("trouble", "verify", "error", outcome.trouble)
        return
    failed = False
    for check in report.checks:
        allowed = not check.ok and check not in report.failed
        failed |= not check.ok and not allowed
        message = f"allowed to differ: {described(check)}" if allowed else described(check)
        yield Case(check.witness, check.name, "held" if check.ok else "skipped" if allowed else "failure", message)
    probed = Counter(check.name for check in report.of("probes"))
    for name in (Counter(report.planned) - probed).elements():
        if "probes" in report.needed:
            failed = True
            yield Case("probes", name, "failure", "no probe saw this layer")
        else:
            yield Case("probes", name, "skipped", "layers were not probed")
    for witness in report.unheard:
        if witness != "probes":
            yield Case(witness, "not run", "skipped", "this witness was not run")
    for name, reason in report.left.items():
        yield Case("left as it is", name, "skipped", reason)
    if not report.ok and not failed:  # for example, a needed witness was not run
        yield Case("verdict", outcome.to, "failure", report.verdict)
