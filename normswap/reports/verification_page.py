"""The page of one verification: its witnesses, a bar for each layer and output, and the outputs that are images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from normswap.reports.blocks import Bar, Block, Code, Column, Facts, Items, Paragraph, Row, State, Table, Text
from normswap.reports.checks import described, remarks, spelled_forms, summary
from normswap.reports.output_images import galleries_of
from normswap.words import shared, short_number

if TYPE_CHECKING:
    from normswap.report import Check, Report, Witness

__all__ = ["page_of"]

_FAILURES = 3  # of a witness that are named on top; the tables below have all
_MEANS: dict[Witness, str] = {
    "structure": "Outside the converted layers nothing may change: every other operator, attribute and tensor is "
    "compared, byte for byte.",
    "probes": "Each converted layer is cut out and run alone on crafted inputs (a variance near eps, a mean far above "
    "the spread, a constant channel, NaN, ...). Its output is compared with float64 arithmetic, within a derived "
    "rounding bound.",
    "end to end": "The whole converted model is compared with the original, whose BatchNorms compute the stated "
    "meaning by other kernels. The allowed deviation is a multiple of what rounding alone changes in the original.",
}


def page_of(report: Report | None) -> list[Block]:
    """Return all that a report holds; without one, that nothing is known."""
    if report is None:
        return [Paragraph("Nothing was compared, so nothing is known about this pair.")]
    failed = {
        witness: [check for check in checks if check in report.failed]
        for witness, checks in report.by_witness().items()
    }
    blocks: list[Block] = [*_failures(failed), _witnesses(report)]
    if items := [*spelled_forms(report.forms), *report.notes]:
        blocks.append(Items(items, "Notes"))
    if report.allowed:
        blocks.append(Items([f"{check.witness}: {described(check)}" for check in report.allowed], "Allowed to differ"))
    if len(failed["structure"]) > _FAILURES:
        blocks.append(Items([check.detail for check in failed["structure"]], "Differences of structure"))
    layers = _layers(report)
    if layers:
        blocks.append(_bars(layers, "layers", "Layers", _LAYERS))
    outputs = [_Line.of(check, report) for check in report.of("end to end")]
    if outputs:
        blocks.append(_bars(outputs, "outputs", "Outputs, end to end", _OUTPUTS))
    blocks += galleries_of(report)
    if report.left:
        blocks.append(
            Facts([(reason, _named(names)) for names, reason in shared(report.left)], "Layers left as they are")
        )
    return blocks


def _failures(failed: dict[Witness, list[Check]]) -> list[Block]:
    items: list[Text] = []
    for witness, checks in failed.items():
        items += [f"{witness}: {described(check)}" for check in checks[:_FAILURES]]
        if len(checks) > _FAILURES:
            items.append(f"{witness}: {len(checks) - _FAILURES} more, listed below")
    return [Items(items, "What failed", failed=True)] if items else []


def _named(names: Sequence[str]) -> Text:
    parts: list[str | Code] = []
    for name in names:
        parts += [", "] * bool(parts) + [Code(name)]
    return tuple(parts)


def _witnesses(report: Report) -> Table:
    rows = []
    for witness, checks in report.by_witness().items():
        if checks:
            failed = any(check in report.failed for check in checks)
            state = State("failed", "failed") if failed else State("held", "held")
        elif witness in report.needed:
            state = State("not run, though needed", "failed")
        else:
            state = State("not run", "silent")
        rows.append(Row((witness, state, summary(report, witness), _MEANS[witness]), state.tone == "failed"))
    columns = (Column("witness"), Column("result", "result"), Column("found"), Column("what it compares", "where"))
    return Table("witnesses", columns, rows, "Witnesses")


class _Line(NamedTuple):
    """A line of a table of bars: one comparison, or a layer without one."""

    name: str
    state: State
    check: Check | None = None

    @classmethod
    def of(cls, check: Check, report: Report) -> _Line:
        if check.ok:
            state = State("held", "held")
        elif check in report.allowed:
            state = State("allowed to differ", "silent")
        else:
            state = State("failed", "failed")
        return cls(check.name, state, check)

    @property
    def ratio(self) -> float | None:
        """Error as a multiple of what was allowed; None where nothing numerical was compared."""
        if self.check is None or self.check.error is None or self.check.bound is None:
            return None
        return math.inf if math.isnan(self.check.ratio) else self.check.ratio

    def rank(self) -> tuple[int, float]:
        """Where it stands: failures first, the worst of them on top, then what was not seen or may differ."""
        if self.check is not None and self.state.tone == "failed":
            return 0, -math.inf if self.ratio is None else -self.ratio
        return (1 if self.state.word in ("not seen", "allowed to differ") else 2), 0.0


def _layers(report: Report) -> list[_Line]:
    """Return a line for each planned layer: first those that failed, then in the order of the model."""
    waiting: dict[str, list[Check]] = {}
    for check in report.of("probes"):
        waiting.setdefault(check.name, []).append(check)
    needed = "probes" in report.needed
    unseen = State("not seen", "failed") if needed else State("not probed", "silent")
    lines = [
        _Line.of(waiting[name].pop(0), report) if waiting.get(name) else _Line(name, unseen) for name in report.planned
    ]
    not_planned = [check for checks in waiting.values() for check in checks]
    lines += [_Line.of(check, report) for check in not_planned]
    return sorted(lines, key=_Line.rank)


_LAYERS = (
    "The worst element of each layer in all of its probes. A bar beyond the mark is an error beyond what is allowed."
)
_OUTPUTS = "The worst element of each output, for each way in which the converted model was run."


def _bars(lines: Sequence[_Line], name: str, heading: str, caption: str) -> Table:
    numerical = any(line.ratio is not None for line in lines)
    remarked = any(line.check or line.state.word == "not seen" for line in lines)
    columns = [Column(name.removesuffix("s")), Column("result", "result")]
    if numerical:
        columns += [Column("error", "number"), Column("allowed", "number"), Column("error ÷ allowed", "number")]
        columns.append(Column("the same, log scale", "ratio"))
    if remarked:
        columns.append(Column("where", "where"))
    rows = []
    for line in lines:
        numbers = _numbers(line) if numerical else ()
        where = (_where(line),) if remarked else ()
        rows.append(Row((Code(line.name), line.state, *numbers, *where), line.state.tone == "failed"))
    if not numerical and name == "layers":
        caption = "The layers that had to be converted. The probes have no number for any of them."
    return Table(name, columns, rows, heading, caption)


def _numbers(line: _Line) -> tuple[str, str, str, Bar | None]:
    check, ratio = line.check, line.ratio
    error, bound = (None, None) if check is None else (check.error, check.bound)
    times = "" if ratio is None else f"{short_number(ratio)} \N{MULTIPLICATION SIGN}"
    return short_number(error), short_number(bound), times, None if ratio is None else Bar(ratio)


def _where(line: _Line) -> str:
    if line.check is None:
        return "no probe saw this layer" if line.state.word == "not seen" else ""
    at = "" if line.check.index is None else f"at {list(line.check.index)}"
    return "; ".join(filter(None, (at, remarks(line.check))))
