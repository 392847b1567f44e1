"""A report of comparisons in words: its verdict, a line for each witness, for each check, and as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from normswap.words import counted, json_number, shared, some

if TYPE_CHECKING:  # a Report words itself through this file, which therefore knows it by its shape alone
    from normswap.plan import Choice
    from normswap.report import Check, Report, Witness

__all__ = ["data_of", "described", "grouped", "lines_of", "remarks", "spelled_forms", "summary", "verdict_of"]

_SHOWN = 12  # failures that a person is shown


def verdict_of(report: Report) -> str:
    """Return what was shown, as one phrase, with what it rests on where that is less than all witnesses."""
    if not report.ok:
        return f"NOT shown equal to {report.meaning}"
    if report.needed == ("structure",):
        return f"the weights of a model that is to equal {report.meaning}; no model was run"
    if "probes" not in report.needed:
        return f"equal to {report.meaning}, end to end on these inputs alone"
    differing = len(report.differing)
    but = f", but for {counted(differing, 'layer')} allowed to differ" if differing else ""
    basis = "" if report.of("end to end") else ", by structure and probes alone"
    return f"equal to {report.meaning}{but}{basis}"


def lines_of(report: Report) -> list[str]:
    """Return the report for people: a line for each witness, then failures, then notes, then the verdict."""
    lines = [f"{witness:<11} {summary(report, witness)}" for witness in report.by_witness()]
    lines.append(f"{'inputs':<11} {report.inputs}")
    for word, checks in (("FAILED", report.failed), ("allowed to differ:", report.allowed)):
        lines += [f"  {word} {check.witness}: {described(check)}" for check in checks[:_SHOWN]]
        if len(checks) > _SHOWN:
            lines.append(f"  ... and {len(checks) - _SHOWN} more; --format json has them all")
    lines += [f"  {line}" for line in spelled_forms(report.forms)]
    lines += [f"  left as they are: {group}" for group in grouped(report.left)]
    lines += [f"  note: {note}" for note in report.notes]
    return [*lines, f"{'PASS' if report.ok else 'FAIL'}: {report.verdict}"]


def summary(report: Report, witness: Witness) -> str:
    """Return what one witness found, in one line."""
    checks = report.of(witness)
    if not checks:
        return "not run"
    worst = report.worst(witness)
    failed, allowed = (sum(check.witness == witness for check in of) for of in (report.failed, report.allowed))
    but = f", {allowed} allowed to differ" if allowed else ""
    if witness == "structure":
        return counted(failed, "difference") if failed or worst is None else f"{worst.detail}{but}"
    nearest = f"; worst {_measured(worst)}" if worst is not None and worst.error is not None else ""
    return f"{len(checks) - failed - allowed} of {len(checks)} hold{but}{nearest}"


def grouped(left: Mapping[str, str]) -> list[str]:
    """Return a line for each reason, with the first of the layers that share it."""
    return [f"{some(names)} ({reason})" for names, reason in shared(left)]


def spelled_forms(forms: Mapping[str, Choice]) -> list[str]:
    """Return a line for each form: which layers were written in it, and why."""
    by_choice = shared({name: (choice.form, choice.why) for name, choice in forms.items()})
    return [
        f"written as {form}: {some(names) if len(by_choice) > 1 else f'all of {len(forms)}'} ({why})"
        for names, (form, why) in by_choice
    ]


def described(check: Check) -> str:
    """Return one line: what was compared, its deviation, the deviation that was allowed, and the likely cause."""
    return "; ".join(filter(None, (_measured(check), check.cause)))


def remarks(check: Check) -> str:
    """Return what a check has to say other than its name and numbers."""
    return "; ".join(filter(None, (_elements(check), check.detail, check.cause)))


def _measured(check: Check) -> str:
    if check.witness == "structure":
        return check.detail
    parts = [check.name]
    if check.error is not None and check.bound is not None:
        at = f" at {list(check.index)}" if check.index is not None else ""
        parts.append(f"error {check.error:.2g}, allowed {check.bound:.2g}{at}")
    if circumstances := "; ".join(filter(None, (_elements(check), check.detail))):
        parts.append(circumstances)
    return ": ".join(parts[:2]) + (f" ({parts[2]})" if len(parts) > 2 else "")


def _elements(check: Check) -> str:
    return "" if check.size is None else f"{check.wrong or 'all'} of {check.size} elements"


def data_of(report: Report) -> dict[str, Any]:
    """Return the report as plain data; numbers that are NaN or infinite are strings."""
    return {
        "ok": report.ok,
        "verdict": report.verdict,
        "target": report.target,
        "parameters": dict(report.parameters),
        "meaning": report.meaning,
        "planned": list(report.planned),
        "inputs": report.inputs,
        "needed": list(report.needed),
        "left": dict(report.left),
        "forms": {name: {"form": choice.form, "why": choice.why} for name, choice in report.forms.items()},
        "may_differ": list(report.may_differ),
        "notes": list(report.notes),
        "checks": [
            {
                "witness": check.witness,
                "name": check.name,
                "ok": check.ok,
                "may_fail": report.may_fail(check),
                "error": json_number(check.error),
                "bound": json_number(check.bound),
                "index": None if check.index is None else list(check.index),
                "detail": check.detail,
                "wrong": check.wrong,
                "size": check.size,
                "cause": check.cause,
            }
            for check in report.checks
        ],
    }
