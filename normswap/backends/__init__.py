"""The backend boundary: what a framework must offer, and which backend a model belongs to."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from normswap.errors import ModelReadError
from normswap.layer import Array, NormLayer
from normswap.plan import Plan
from normswap.report import Check

__all__ = ["Backend", "CutLayer", "Feed", "Run", "Writing", "backend_for", "interrupts_held_back"]


@dataclass(frozen=True, eq=False)
class Feed:
    """End-to-end inputs.

    Attributes:
        arrays: By input name.
        source: Where they come from, for the report.
    """

    arrays: Mapping[str, Array]
    source: str


@dataclass(frozen=True, eq=False)
class Run:
    """What running a model gave.

    Attributes:
        outputs: By name.
        calls: How often each planned layer ran, for those of which it is known.
        notes: What a reader of the result must know.
    """

    outputs: Mapping[str, Array]
    calls: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class CutLayer(Protocol):
    """One converted layer as a function of its input alone."""

    layer: NormLayer
    rank: int
    trouble: str

    def __call__(self, x: Array, layer: NormLayer) -> dict[str, Array]:
        """Run on x; return the output by how it was run."""
        ...


class Writing(Protocol):
    """A model on its way to a file."""

    def commit(self) -> Path:
        """Put it in place."""
        ...


class Backend(Protocol):
    """A framework's side of the tool; only NormLayer, Plan, Run and arrays cross this boundary."""

    WAYS: Sequence[str]

    def load(self, source: Any) -> Any:
        """Read a model; a model that is one already is taken as it is."""
        ...

    def find(self, model: Any) -> tuple[NormLayer, ...]:
        """Return every BatchNorm of the model."""
        ...

    def remarks(self, model: Any, layers: Sequence[NormLayer]) -> list[str]:
        """Say what a person should know of the model beside its layers."""
        ...

    def notes(self, model: Any) -> list[str]:
        """Say what was done to the model when it was prepared."""
        ...

    def without_statistics(self, model: Any) -> Any:
        """Return the model without outputs that carry nothing but running statistics."""
        ...

    def prepare(self, model: Any) -> Any:
        """Return the model in a form that targets can be written in, itself where it is already."""
        ...

    def rewrite(self, model: Any, plan: Plan) -> Any:
        """Return a converted copy."""
        ...

    def compare_structure(self, before: Any, after: Any, plan: Plan) -> Iterable[Check]:
        """Compare everything outside the plan."""
        ...

    def cut_layers(self, before: Any, after: Any, plan: Plan, *, free: tuple[str, ...] = ()) -> Iterator[CutLayer]:
        """Cut each planned layer out of the converted model."""
        ...

    def run(self, model: Any, arrays: Mapping[str, Array], *, how: str) -> Run:
        """Run a model in one of WAYS."""
        ...

    def run_reference(self, model: Any, plan: Plan, arrays: Mapping[str, Array], *, noise: float, seed: int) -> Run:
        """Run the original with its planned layers under the target's stated meaning."""
        ...

    def feeds(
        self,
        model: Any,
        inputs: Mapping[str, Array] | str | os.PathLike[str] | None,
        shapes: Mapping[str, tuple[int, ...]],
        seed: int,
    ) -> list[Feed]:
        """Return end-to-end inputs: those given, else generated ones to try in turn."""
        ...

    def check_target(self, model: Any, path: str | os.PathLike[str], *, force: bool) -> None:
        """Raise ModelWriteError if the path must not be written."""
        ...

    def Writing(  # noqa: N802  # a class in the backend
        self, model: Any, path: str | os.PathLike[str], *, force: bool
    ) -> AbstractContextManager[Writing]:
        """Begin to write a model aside."""
        ...

    def save(self, model: Any, path: str | os.PathLike[str], *, force: bool = False) -> Any:
        """Write a model whole or not at all."""
        ...


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Let Ctrl-C wait while extension modules load: in the middle of that it kills, or becomes an ImportError."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield  # signals are none of ours here
        return
    came: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if came:
        signal.raise_signal(signal.SIGINT)


def backend_for(model: Any) -> Backend:
    """Return the backend that a model, or the path of one, belongs to.

    Raises:
        ModelReadError: If no backend takes it.
    """
    module = type(model).__module__.partition(".")[0]
    if isinstance(model, (str, os.PathLike)) or module in ("onnx", "normswap"):
        with interrupts_held_back():
            from normswap.backends import onnx_graph

        return cast(Backend, onnx_graph)
    raise ModelReadError(
        f"{type(model).__module__}.{type(model).__qualname__}: expected the path of an .onnx file or an "
        "onnx.ModelProto; export the model to ONNX with its BatchNorms kept"
    )
