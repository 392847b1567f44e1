"""Report: what was compared, how it came out, and what was not compared."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar, get_args

from normswap.layer import Array
from normswap.plan import Choice
from normswap.words import visible

__all__ = [
    "WITNESSES",
    "Check",
    "Difference",
    "Picture",
    "Progress",
    "Report",
    "Witness",
    "counted",
    "described",
    "grouped",
    "plain",
    "recalibration_checks",
    "remarks",
    "some",
    "spelled_forms",
    "structure_checks",
    "summary",
]

_SHOWN = 12  # failures that a person is shown
_NAMED = 3  # layers that a person is named for one reason

_Reason = TypeVar("_Reason")
Progress: TypeAlias = Callable[[str, int, int], None]  # (stage, done, total)
Witness: TypeAlias = Literal["structure", "probes", "end to end"]
WITNESSES: tuple[Witness, ...] = get_args(Witness)


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        witness: Which of the three it belongs to.
        name: What was compared: a layer, an output, the graph.
        ok: Whether it held.
        error: Largest deviation, in units of the output; None where nothing numerical was compared.
        bound: What was allowed there, in the same units.
        index: Where the deviation is largest relative to its bound.
        detail: One sentence that says what was done or what went wrong.
        wrong: How many elements are off by more than is allowed; None where they were not compared one by one.
        size: How many elements were compared.
        cause: What the deviation looks like, where it fits a known mistake.
    """

    witness: Witness
    name: str
    ok: bool
    error: float | None = None
    bound: float | None = None
    index: tuple[int, ...] | None = None
    detail: str = ""
    wrong: int | None = None
    size: int | None = None
    cause: str = ""

    @property
    def ratio(self) -> float:
        """Error as a multiple of the bound: above 1 is a failure."""
        if self.error is None or self.bound is None:
            return 0.0 if self.ok else math.inf
        if self.bound == 0:
            return 0.0 if self.error == 0 else math.inf
        return self.error / self.bound


class Difference(NamedTuple):
    """One thing in which two models differ.

    Attributes:
        sentence: What it is.
        layer: Name of the planned layer that it is confined to; empty where it is not.
    """

    sentence: str
    layer: str = ""


@dataclass(frozen=True, eq=False)
class Picture:
    """An output that is an image, for reports that can show it.

    Attributes:
        name: Of the output.
        how: How the converted model was run.
        expected: What the original computes under the target's meaning, shape (N, 1 or 3, H, W); some samples.
        found: What the converted model computes, the same samples.
        bound: What was allowed of each element, in units of the output; None where that was not compared.
    """

    name: str
    how: str
    expected: Array
    found: Array
    bound: float | None


@dataclass(frozen=True)
class Report:
    """All comparisons of one verification.

    Attributes:
        target: Name of the target.
        meaning: What the target equals.
        planned: Names of the layers that had to be seen.
        checks: Every comparison made.
        notes: What was not compared, could not run, or was left as it was.
        inputs: Where the end-to-end inputs come from.
        left: Why each BatchNorm that was not converted was left as it is, by its name.
        forms: The form that was chosen for each layer, by its name; empty where no choice was asked for.
        needed: The witnesses without which nothing is shown; between frameworks only the last can be had.
        may_differ: Names of the planned layers whose own checks may fail without the verdict failing.
        pictures: The outputs of the end-to-end runs that are images.
        parameters: What the target was given beside its name.
    """

    target: str
    meaning: str
    planned: tuple[str, ...]
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()
    inputs: str = ""
    left: Mapping[str, str] = field(default_factory=dict)
    forms: Mapping[str, Choice] = field(default_factory=dict)
    needed: tuple[Witness, ...] = ("structure", "probes")
    may_differ: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = field(default=(), repr=False, compare=False)
    parameters: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """True if every needed witness was heard, the probes on every planned layer, and every check held.

        Layers that may differ are excepted; if no other is left, nothing was shown.
        """
        probed = Counter(check.name for check in self.checks if check.witness == "probes")
        seen = "probes" not in self.needed or not Counter(self.planned) - probed
        shown = bool(set(self.planned) - set(self.differing))
        return seen and shown and all(map(self.of, self.needed)) and not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that did not hold, and had to."""
        return tuple(check for check in self.checks if not check.ok and not self._may_fail(check))

    @property
    def allowed(self) -> tuple[Check, ...]:
        """The checks that did not hold, of layers that may differ."""
        return tuple(check for check in self.checks if not check.ok and self._may_fail(check))

    @property
    def differing(self) -> tuple[str, ...]:
        """The layers that differ, as they may."""
        names = {check.name for check in self.allowed}
        return tuple(name for name in self.may_differ if name in names)

    def _may_fail(self, check: Check) -> bool:
        return check.witness != "end to end" and check.name in self.may_differ

    def of(self, witness: Witness) -> tuple[Check, ...]:
        """Return the checks of one witness."""
        return tuple(check for check in self.checks if check.witness == witness)

    @property
    def unheard(self) -> tuple[Witness, ...]:
        """The witnesses that were not run."""
        return tuple(witness for witness in WITNESSES if not self.of(witness))

    def worst(self, witness: Witness) -> Check | None:
        """Return the check that comes nearest to failing, or fails most, of those that have to hold."""
        checks = [check for check in self.of(witness) if check.ok or not self._may_fail(check)]
        return max(checks, key=lambda check: (not check.ok, check.ratio), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data; numbers that JSON has no name for become strings.

        ``$defs/report`` of ``normswap/formats/schema.json`` describes it; ``--json`` prints one for each pair.
        """
        return {
            "ok": self.ok,
            "verdict": self.verdict,
            "target": self.target,
            "parameters": dict(self.parameters),
            "meaning": self.meaning,
            "planned": list(self.planned),
            "inputs": self.inputs,
            "needed": list(self.needed),
            "left": dict(self.left),
            "forms": {name: {"form": choice.form, "why": choice.why} for name, choice in self.forms.items()},
            "may_differ": list(self.may_differ),
            "notes": list(self.notes),
            "checks": [
                {
                    "witness": check.witness,
                    "name": check.name,
                    "ok": check.ok,
                    "may_fail": self._may_fail(check),
                    "error": plain(check.error),
                    "bound": plain(check.bound),
                    "index": None if check.index is None else list(check.index),
                    "detail": check.detail,
                    "wrong": check.wrong,
                    "size": check.size,
                    "cause": check.cause,
                }
                for check in self.checks
            ],
        }

    def to_text(self) -> str:
        """Return the report for people: a line for each witness, then failures, then notes."""
        lines = [f"{witness:<11} {summary(self, witness)}" for witness in WITNESSES]
        lines.append(f"{'inputs':<11} {self.inputs}")
        for word, checks in (("FAILED", self.failed), ("allowed to differ:", self.allowed)):
            lines += [f"  {word} {check.witness}: {described(check)}" for check in checks[:_SHOWN]]
            if len(checks) > _SHOWN:
                lines.append(f"  ... and {len(checks) - _SHOWN} more; --format json has them all")
        lines += [f"  {line}" for line in spelled_forms(self.forms)]
        lines += [f"  left as they are: {described}" for described in grouped(self.left)]
        lines += [f"  note: {note}" for note in self.notes]
        lines.append(f"{'PASS' if self.ok else 'FAIL'}: {self.verdict}")
        return "\n".join(map(visible, lines))  # so that no name can begin a line, a verdict of its own, say

    @property
    def verdict(self) -> str:
        """What was shown, as one phrase, with what it rests on where that is less than all three witnesses."""
        if not self.ok:
            return f"NOT shown equal to {self.meaning}"
        if self.needed == ("structure",):
            return f"the weights of a model that is to equal {self.meaning}; no model was run"
        but = f", but for {counted(len(self.differing), 'layer')} allowed to differ" if self.differing else ""
        if "probes" not in self.needed:
            return f"equal to {self.meaning}, end to end on these inputs alone"
        if not self.of("end to end"):
            return f"equal to {self.meaning}{but}, by structure and probes alone"
        return f"equal to {self.meaning}{but}"


def summary(report: Report, witness: Witness) -> str:
    """Say what one witness said, in one line."""
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
    """Name the layers that share a reason together, and not more than a person reads."""
    return [f"{names} ({reason})" for names, reason in _together(left)]


def spelled_forms(forms: Mapping[str, Choice]) -> list[str]:
    """Say which layers were written in which form, and why."""
    by_choice = _together({name: (choice.form, choice.why) for name, choice in forms.items()})
    return [
        f"written as {form}: {names if len(by_choice) > 1 else f'all of {len(forms)}'} ({why})"
        for names, (form, why) in by_choice
    ]


def _together(reasons: Mapping[str, _Reason]) -> list[tuple[str, _Reason]]:
    names: dict[_Reason, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return [(some(found), reason) for reason, found in names.items()]


def some(names: Sequence[str]) -> str:
    """Name the first of many, and say how many more there are."""
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def described(check: Check) -> str:
    """Say in one line what was compared, how far off it was, what was allowed, and what there is to say of it."""
    return "; ".join(filter(None, (_measured(check), check.cause)))


def _measured(check: Check) -> str:
    if check.witness == "structure":
        return check.detail
    parts = [check.name]
    if check.error is not None and check.bound is not None:
        at = f" at {list(check.index)}" if check.index is not None else ""
        parts.append(f"error {check.error:.2g}, allowed {check.bound:.2g}{at}")
    if said := "; ".join(filter(None, (_elements(check), check.detail))):
        parts.append(said)
    return ": ".join(parts[:2]) + (f" ({parts[2]})" if len(parts) > 2 else "")


def remarks(check: Check) -> str:
    """Say what there is to say of a check beside its name and numbers."""
    return "; ".join(filter(None, (_elements(check), check.detail, check.cause)))


def _elements(check: Check) -> str:
    return "" if check.size is None else f"{check.wrong or 'all'} of {check.size} elements"


def plain(value: float | None) -> float | str | None:
    """Return a number as JSON can have it: as a string where it is not finite."""
    return value if value is None or math.isfinite(value) else str(value)


def structure_checks(
    name: str, differences: Sequence[Difference], compared: str, layers: Collection[str], more: str = ""
) -> list[Check]:
    """Return the first witness: a check for each difference, and one that says what is identical if all the rest is.

    Args:
        name: What was compared as a whole.
        differences: What differs.
        compared: What was compared outside the layers, with its number.
        layers: Names of the planned layers.
        more: What was not compared, to follow in the same sentence.
    """
    while name in layers:  # or it would be taken for what is confined to that layer
        name = f"the {name}"
    checks = [Check("structure", of.layer or name, ok=False, detail=of.sentence) for of in differences]
    if not any(not of.layer for of in differences):
        kind = "planned layer" if differences else "converted layer"
        said = f"{compared} outside the {counted(len(layers), kind)} are identical{more}"
        checks.append(Check("structure", name, ok=True, detail=said))
    return checks


def recalibration_checks(
    name: str, differences: Sequence[Difference], compared: str, layers: int, more: str = ""
) -> list[Check]:
    """Return what shows that a recalibration changed nothing but statistics; arguments as of ``structure_checks``."""
    if differences:
        return [Check("structure", name, ok=False, detail=of.sentence) for of in differences]
    said = f"nothing but the statistics of {counted(layers, 'layer')} changed: {compared} are identical{more}"
    return [Check("structure", name, ok=True, detail=said)]


def counted(number: int, what: str) -> str:
    """Say how many there are of a thing, as ``1 tensor`` or ``2 tensors``."""
    return f"{number} {what}{'s' * (number != 1)}"
