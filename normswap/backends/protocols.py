"""The backend boundary: protocols that a framework implements; a capability is a protocol, not a flag.

Every backend implements Backend. What only some can do is a protocol of its own, which ``isinstance`` asks for.
NormLayer, Plan, arrays and normswap.backends.values cross the boundary; a model is whatever ``load`` returned.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from normswap.backends.values import Collector, CutLayer, Feed, Inputs, Model, Run, Variance
from normswap.layer import Floats, NormLayer
from normswap.plan import Plan
from normswap.report import Check

__all__ = [
    "Backend",
    "Collects",
    "Exported",
    "Observes",
    "RewritesInPlace",
    "RunsElsewhere",
    "Writes",
    "Writing",
]


class Backend(Protocol):
    """A framework, as the tool needs it.

    Attributes:
        WAYS: How its models can be run; the first is the plainest.
    """

    WAYS: Sequence[str]

    def load(self, source: Any, *, drop_statistics: bool = False) -> Model:
        """Read a model; a model that was loaded already is taken as it is.

        Args:
            source: A path, or a model of the framework.
            drop_statistics: Drop outputs that carry nothing but running statistics.
        """
        ...

    def inputs(self, model: Any) -> Inputs:
        """Return the inputs of a model."""
        ...

    def find(self, model: Any) -> tuple[NormLayer, ...]:
        """Return every BatchNorm of the model."""
        ...

    def remarks(self, model: Any, layers: Sequence[NormLayer]) -> list[str]:
        """Return what a person should know of the model besides its layers, the most important first."""
        ...

    def prepare(self, model: Any) -> Model:
        """Return the model in a form that targets can be written in, itself where it is already."""
        ...

    def rewrite(self, model: Any, plan: Plan) -> Model:
        """Return a converted copy."""
        ...

    def compare(self, before: Any, after: Any, plan: Plan) -> Iterable[Check]:
        """Compare everything outside the plan."""
        ...

    def cut(self, before: Any, after: Any, plan: Plan, *, free: tuple[str, ...] = ()) -> Iterator[CutLayer]:
        """Cut each planned layer out of the converted model.

        Args:
            before: The original.
            after: The converted model.
            plan: The layers.
            free: Parameters that each call gives, instead of those that are stored.
        """
        ...

    def run(self, model: Any, arrays: Mapping[str, Any], *, how: str) -> Run:
        """Run a model in one of WAYS."""
        ...

    def run_reference(self, model: Any, plan: Plan, arrays: Mapping[str, Any], *, noise: float, seed: int) -> Run:
        """Run the original with its planned layers under the target's stated meaning."""
        ...


@runtime_checkable
class Observes(Protocol):
    """A backend whose models show some of their layers only when they are run."""

    def observe(self, model: Any, feeds: Callable[[Any], Sequence[Feed]], *, given: bool) -> Model:
        """Run a copy of a model once and return the model with what that shows.

        Args:
            model: The model.
            feeds: Makes the inputs to try.
            given: Whether they are the caller's, so that they have to fit.
        """
        ...


@runtime_checkable
class RewritesInPlace(Protocol):
    """A backend whose models have an identity that others hold on to."""

    def check_in_place(self, model: Any, plan: Plan) -> None:
        """Raise UnsupportedModelError if ``rewrite_in_place`` cannot be done."""
        ...

    def rewrite_in_place(self, model: Any, plan: Plan) -> None:
        """Convert the caller's own model."""
        ...


@runtime_checkable
class RunsElsewhere(Protocol):
    """A backend whose models other runtimes (normswap.runtimes) take as files."""

    def opset(self, model: Any) -> int:
        """Return the version of the operator set, which decides the forms that a runtime takes."""
        ...

    def run_elsewhere(self, model: Any, arrays: Mapping[str, Any], *, runtime: str) -> Run:
        """Run a model in one of normswap.runtimes.RUNTIMES."""
        ...


@dataclass(frozen=True, eq=False)
class Exported:
    """A file that holds more than the model's own bytes, read back so that it is run as well.

    Attributes:
        model: The file, as its backend holds it.
        backend: What runs it; None for the backend of the model that was written.
    """

    model: Any
    backend: Backend | None = None


class Writing(Protocol):
    """A model on its way to a file.

    Attributes:
        exported: What was written aside; None where it is the model's own bytes, which need not be run again.
    """

    exported: Exported | None

    def commit(self) -> Path:
        """Put it in place."""
        ...


@runtime_checkable
class Writes(Protocol):
    """A backend that writes its models to files, whole or not at all."""

    def check_target(self, model: Any, path: str | os.PathLike[str], *, force: bool) -> None:
        """Raise ModelWriteError if the path must not be written."""
        ...

    def writing(
        self, model: Any, path: str | os.PathLike[str], *, force: bool = False, feeds: Sequence[Feed] | None = None
    ) -> AbstractContextManager[Writing]:
        """Begin to write a model aside.

        Args:
            model: What to write.
            path: The file to write.
            force: Replace an existing file.
            feeds: Inputs to trace an export with.
        """
        ...


@runtime_checkable
class Collects(Backend, Protocol):
    """A backend that collects the statistics of its layers' inputs, and stores new ones.

    Attributes:
        VARIANCE: The variance that its layers store: divided by the number of elements, or by one less.
    """

    VARIANCE: Variance

    def collector(self, model: Any, plan: Plan, names: Sequence[str]) -> Collector:
        """Rewrite a copy by the plan, and make the inputs of these layers seen, planned or not."""
        ...

    def cannot_store(self, model: Any) -> dict[str, str]:
        """Return why a layer cannot be given new running statistics, by its name."""
        ...

    def recalibrated(self, model: Any, statistics: Mapping[str, tuple[Floats, Floats]]) -> Model:
        """Return a copy whose layers, by name, have other running means and variances."""
        ...

    def compare_recalibrated(self, before: Any, after: Any, names: Sequence[str]) -> list[Check]:
        """Compare everything but the running statistics of the layers named."""
        ...
