"""Report: what was compared, how it came out, and what was not compared."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from normswap.layer import Array
from normswap.plan import Choice

__all__ = [
    "WITNESSES",
    "Check",
    "Picture",
    "Progress",
    "Report",
    "Witness",
    "counted",
    "described",
    "grouped",
    "recalibration_checks",
    "spelled_forms",
    "structure_checks",
    "summary",
]

_SHOWN = 12  # failures that a person is shown
_NAMED = 3  # layers that a person is named for one reason

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
    """

    witness: Witness
    name: str
    ok: bool
    error: float | None = None
    bound: float | None = None
    index: tuple[int, ...] | None = None
    detail: str = ""

    @property
    def ratio(self) -> float:
        """Error as a multiple of the bound: above 1 is a failure."""
        if self.error is None or self.bound is None:
            return 0.0 if self.ok else math.inf
        if self.bound == 0:
            return 0.0 if self.error == 0 else math.inf
        return self.error / self.bound


@dataclass(frozen=True, eq=False)
class Picture:
    """An output that is an image, for reports that can show it.

    Attributes:
        name: Of the output, and how it was run.
        expected: What the original computes under the target's meaning, shape (N, 1 or 3, H, W); some samples.
        found: What the converted model computes, the same samples.
        bound: What was allowed there, in units of the output; None where nothing numerical was compared.
    """

    name: str
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
        pictures: The outputs of the end-to-end runs that are images.
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
    pictures: tuple[Picture, ...] = field(default=(), repr=False, compare=False)

    @property
    def ok(self) -> bool:
        """True if every needed witness was heard, the probes on every planned layer, and every check held."""
        probed = Counter(check.name for check in self.checks if check.witness == "probes")
        seen = bool(self.planned) and ("probes" not in self.needed or not Counter(self.planned) - probed)
        return seen and all(map(self.of, self.needed)) and all(check.ok for check in self.checks)

    def of(self, witness: Witness) -> tuple[Check, ...]:
        """Return the checks of one witness."""
        return tuple(check for check in self.checks if check.witness == witness)

    @property
    def unheard(self) -> tuple[Witness, ...]:
        """The witnesses that were not run."""
        return tuple(witness for witness in WITNESSES if not self.of(witness))

    def worst(self, witness: Witness) -> Check | None:
        """Return the check that comes nearest to failing, or fails most."""
        return max(self.of(witness), key=lambda check: (not check.ok, check.ratio), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data; numbers that JSON has no name for become strings."""
        return {
            "ok": self.ok,
            "verdict": self.verdict,
            "target": self.target,
            "meaning": self.meaning,
            "planned": list(self.planned),
            "inputs": self.inputs,
            "needed": list(self.needed),
            "left": dict(self.left),
            "forms": {name: {"form": choice.form, "why": choice.why} for name, choice in self.forms.items()},
            "notes": list(self.notes),
            "checks": [
                {
                    "witness": check.witness,
                    "name": check.name,
                    "ok": check.ok,
                    "error": _plain(check.error),
                    "bound": _plain(check.bound),
                    "index": None if check.index is None else list(check.index),
                    "detail": check.detail,
                }
                for check in self.checks
            ],
        }

    def to_text(self) -> str:
        """Return the report for people: a line for each witness, then failures, then notes."""
        lines = [f"{witness:<11} {summary(self, witness)}" for witness in WITNESSES]
        lines.append(f"{'inputs':<11} {self.inputs}")
        failed = [check for check in self.checks if not check.ok]
        lines += [f"  FAILED {check.witness}: {described(check)}" for check in failed[:_SHOWN]]
        if len(failed) > _SHOWN:
            lines.append(f"  ... and {len(failed) - _SHOWN} more; --format json has them all")
        lines += [f"  {line}" for line in spelled_forms(self.forms)]
        lines += [f"  left as they are: {described}" for described in grouped(self.left)]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join([*lines, f"{'PASS' if self.ok else 'FAIL'}: {self.verdict}"])

    @property
    def verdict(self) -> str:
        """What was shown, as one phrase, with what it rests on where that is less than all three witnesses."""
        if not self.ok:
            return f"NOT shown equal to {self.meaning}"
        if self.needed == ("structure",):
            return f"the weights of a model that is to equal {self.meaning}; no model was run"
        if "probes" not in self.needed:
            return f"equal to {self.meaning}, end to end on these inputs alone"
        if not self.of("end to end"):
            return f"equal to {self.meaning}, by structure and probes alone"
        return f"equal to {self.meaning}"


def summary(report: Report, witness: Witness) -> str:
    """Say what one witness said, in one line."""
    checks = report.of(witness)
    if not checks:
        return "not run"
    failed = sum(not check.ok for check in checks)
    worst = report.worst(witness)
    assert worst is not None, "there are checks"
    if witness == "structure":
        return worst.detail if not failed else counted(failed, "difference")
    nearest = f"; worst {described(worst)}" if worst.error is not None else ""
    return f"{len(checks) - failed} of {len(checks)} hold{nearest}"


def grouped(left: Mapping[str, str]) -> list[str]:
    """Name the layers that share a reason together, and not more than a person reads."""
    return [f"{names} ({reason})" for names, reason in _together(left)]


def spelled_forms(forms: Mapping[str, Choice]) -> list[str]:
    """Say which layers were written in which form, and why."""
    said = {name: f"{choice.form}, {choice.why}" for name, choice in forms.items()}
    if len(forms) > _NAMED and len(set(said.values())) == 1:
        return [f"all {len(forms)} layers: written as {next(iter(said.values()))}"]
    return [f"{names}: written as {form}" for names, form in _together(said)]


def _together(reasons: Mapping[str, str]) -> list[tuple[str, str]]:
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return [
        (", ".join(found[:_NAMED]) + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""), reason)
        for reason, found in names.items()
    ]


def described(check: Check) -> str:
    """Say in one line what was compared, how far off it was, what was allowed, and what there is to say of it."""
    if check.witness == "structure":
        return check.detail
    parts = [check.name]
    if check.error is not None and check.bound is not None:
        at = f" at {list(check.index)}" if check.index is not None else ""
        parts.append(f"error {check.error:.2g}, allowed {check.bound:.2g}{at}")
    if check.detail:
        parts.append(check.detail)
    return ": ".join(parts[:2]) + (f" ({parts[2]})" if len(parts) > 2 else "")


def _plain(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)


def structure_checks(name: str, differences: Sequence[str], compared: str, layers: int, more: str = "") -> list[Check]:
    """Return the first witness: a check for each difference, or one that says what was compared.

    Args:
        name: What was compared as a whole.
        differences: One sentence each.
        compared: What is identical, with its number.
        layers: How many layers were converted.
        more: What was not compared, to follow in the same sentence.
    """
    if differences:
        return [Check("structure", name, ok=False, detail=difference) for difference in differences]
    said = f"{compared} outside the {counted(layers, 'converted layer')} are identical{more}"
    return [Check("structure", name, ok=True, detail=said)]


def recalibration_checks(
    name: str, differences: Sequence[str], compared: str, layers: int, more: str = ""
) -> list[Check]:
    """Return what shows that a recalibration changed nothing but statistics; arguments as of ``structure_checks``."""
    if differences:
        return [Check("structure", name, ok=False, detail=difference) for difference in differences]
    said = f"nothing but the statistics of {counted(layers, 'layer')} changed: {compared} are identical{more}"
    return [Check("structure", name, ok=True, detail=said)]


def counted(number: int, what: str) -> str:
    """Say how many there are of a thing, as ``1 tensor`` or ``2 tensors``."""
    return f"{number} {what}{'s' * (number != 1)}"
