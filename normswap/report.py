"""Report: what was compared, how it came out, and what was not compared. Data alone; ``reports`` words it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from normswap.layer import Array
from normswap.plan import Choice, Plan

__all__ = ["WITNESSES", "Check", "Picture", "Progress", "Report", "Witness"]

Progress: TypeAlias = Callable[[str, int, int], None]  # (stage, done, total)
Witness: TypeAlias = Literal["structure", "probes", "end to end"]
WITNESSES: tuple[Witness, ...] = get_args(Witness)


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        witness: The witness that it belongs to.
        name: What was compared: a layer, an output, the graph.
        ok: Whether it held.
        error: Largest deviation, in units of the output; None where nothing numerical was compared.
        bound: The deviation that is allowed there, in the same units.
        index: Where the deviation is largest relative to its bound.
        detail: One sentence about what was done or what went wrong.
        wrong: Number of elements that deviate by more than is allowed; None where elements were not compared singly.
        size: Number of elements that were compared.
        cause: The known mistake that the deviation looks like; empty where it fits none.
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


@dataclass(frozen=True, eq=False)
class Picture:
    """An output that is an image, for reports that can show it.

    Attributes:
        name: Name of the output.
        how: How the converted model was run.
        expected: What the original computes under the target's meaning, shape (N, 1 or 3, H, W); some samples.
        found: What the converted model computes for the same samples.
        bound: Deviation that is allowed of each element, in units of the output; None where elements have no bound.
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
        needed: The witnesses without which nothing is shown; between frameworks, end to end is the only one.
        may_differ: Names of the planned layers whose own checks may fail without the verdict failing.
        pictures: The outputs of the end-to-end runs that are images.
        parameters: Values of the target's parameters, by name.
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

    @classmethod
    def for_plan(
        cls,
        plan: Plan,
        checks: Sequence[Check],
        *,
        notes: Sequence[str],
        inputs: str,
        needed: tuple[Witness, ...] = ("structure", "probes"),
        may_differ: tuple[str, ...] = (),
        pictures: tuple[Picture, ...] = (),
    ) -> Report:
        """Make the report of a plan, which says the target, the layers and what was left; the rest is as above."""
        return cls(
            target=plan.norm.name,
            meaning=plan.norm.meaning,
            planned=tuple(layer.name for layer in plan.layers),
            checks=tuple(checks),
            notes=tuple(notes),
            inputs=inputs,
            left=plan.left,
            forms=plan.forms,
            needed=needed,
            may_differ=may_differ,
            pictures=pictures,
            parameters=plan.norm.parameters,
        )

    @property
    def ok(self) -> bool:
        """Whether every needed witness was heard, the probes saw every planned layer, and every check held.

        Checks of layers that may differ do not count. If there are no other layers, nothing was shown.
        """
        probed = Counter(check.name for check in self.checks if check.witness == "probes")
        seen = "probes" not in self.needed or not Counter(self.planned) - probed
        shown = bool(set(self.planned) - set(self.differing))
        return seen and shown and all(map(self.of, self.needed)) and not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that had to hold and did not."""
        return tuple(check for check in self.checks if not check.ok and not self.may_fail(check))

    @property
    def allowed(self) -> tuple[Check, ...]:
        """The checks that did not hold and did not have to: those of layers that may differ."""
        return tuple(check for check in self.checks if not check.ok and self.may_fail(check))

    @property
    def differing(self) -> tuple[str, ...]:
        """The layers that may differ and do."""
        names = {check.name for check in self.allowed}
        return tuple(name for name in self.may_differ if name in names)

    def may_fail(self, check: Check) -> bool:
        """Whether the verdict stands even if this check does not hold: it is of a layer that may differ."""
        return check.witness != "end to end" and check.name in self.may_differ

    def of(self, witness: Witness) -> tuple[Check, ...]:
        """Return the checks of one witness."""
        return tuple(check for check in self.checks if check.witness == witness)

    def by_witness(self) -> dict[Witness, tuple[Check, ...]]:
        """Return the checks of each witness, strongest witness first."""
        return {witness: self.of(witness) for witness in WITNESSES}

    @property
    def unheard(self) -> tuple[Witness, ...]:
        """The witnesses that were not run."""
        return tuple(witness for witness in WITNESSES if not self.of(witness))

    def worst(self, witness: Witness) -> Check | None:
        """Return, of the checks that have to hold, the one that fails most or comes nearest to failing."""
        checks = [check for check in self.of(witness) if check.ok or not self.may_fail(check)]
        return max(checks, key=lambda check: (not check.ok, check.ratio), default=None)

    @property
    def verdict(self) -> str:
        """What was shown, as one phrase, with what it rests on where that is less than all witnesses."""
        from normswap.reports.checks import verdict_of

        return verdict_of(self)

    def to_text(self) -> str:
        """Return the report for people: a line for each witness, then failures, then notes."""
        from normswap.reports.checks import lines_of
        from normswap.words import written

        return written(lines_of(self))

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data; numbers that are NaN or infinite are strings.

        ``$defs/report`` of ``normswap/reports/schemas/verify.json`` describes it.
        """
        from normswap.reports.checks import data_of

        return data_of(self)
