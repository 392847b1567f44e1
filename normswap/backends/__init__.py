"""The backend boundary: what a framework must offer, and which backend a model belongs to."""

from __future__ import annotations

import importlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from normswap.backends.inputs import BATCH
from normswap.errors import ModelReadError
from normswap.layer import Array, Floats, NormLayer
from normswap.plan import Plan
from normswap.report import Check
from normswap.runtimes import OWN

if TYPE_CHECKING:
    from normswap.data.declared import Declared

__all__ = [
    "Backend",
    "Candidate",
    "CutLayer",
    "Feed",
    "Gatherer",
    "Run",
    "SampleStatistics",
    "Writing",
    "backend_for",
    "interrupts_held_back",
    "runtimes_of",
]


@dataclass(frozen=True, eq=False)
class Feed:
    """End-to-end inputs.

    Attributes:
        arrays: By input name; what a backend takes as an input, an array or a tensor or a structure of them.
        source: Where they come from, for the report.
    """

    arrays: Mapping[str, Any]
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


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model that is held to the original, whatever framework it is of.

    Attributes:
        run: Runs it on inputs of the original.
        by_order: Whether its outputs are paired with the original's by their order, since names of two frameworks
            need not match.
    """

    run: Callable[[Mapping[str, Any]], Run]
    by_order: bool = False

    @classmethod
    def of(
        cls,
        backend: Backend,
        model: Any,
        how: str,
        plain: Callable[[Mapping[str, Any]], Mapping[str, Array]] | None = None,
    ) -> Candidate:
        """Make a candidate of a backend's model.

        Args:
            backend: Of the model.
            model: What to run.
            how: One of the backend's WAYS, or a runtime.
            plain: Turns the original's inputs into arrays, where the original is of another backend.
        """
        if plain is None:
            return cls(lambda arrays: backend.run(model, arrays, how=how))
        return cls(lambda arrays: backend.run(model, backend.fit(model, plain(arrays)), how=how), by_order=True)


def runtimes_of(backend: Backend, names: Sequence[str]) -> tuple[str, ...]:
    """Return which of the runtimes named are other ways to run a backend's models than its own WAYS."""
    return tuple(dict.fromkeys(name for name in names if name not in OWN)) if backend.RUNS_ELSEWHERE else ()


@dataclass(frozen=True, eq=False)
class SampleStatistics:
    """The statistics of each sample at a layer's input, as one call of the layer saw it.

    Attributes:
        mean: Shape (N, C).
        var: Shape (N, C), divided by ``elements``.
        elements: Of a channel of one sample: the product of the spatial dimensions.
    """

    mean: Array
    var: Array
    elements: int


class Gatherer(Protocol):
    """A model that is run on batch after batch, and tells what its layers are given.

    Attributes:
        unobserved: Why a layer's input cannot be seen, by its name.
    """

    unobserved: Mapping[str, str]

    def __call__(self, arrays: Mapping[str, Any]) -> tuple[Run, dict[str, list[SampleStatistics]]]:
        """Run on one batch; return the outputs, and the calls seen of each layer, in the order in which they run."""
        ...


class CutLayer(Protocol):
    """One converted layer as a function of its input alone."""

    layer: NormLayer
    rank: int
    trouble: str

    def __call__(self, x: Array, layer: NormLayer) -> dict[str, Array]:
        """Run on x; return the output by how it was run."""
        ...


class Writing(Protocol):
    """A model on its way to a file.

    Attributes:
        candidates: How to run the file itself, where it is more than the model's own bytes: an export.
    """

    candidates: Mapping[str, Candidate]

    def commit(self) -> Path:
        """Put it in place."""
        ...


class Backend(Protocol):
    """A framework's side of the tool; only NormLayer, Plan, Run and arrays cross this boundary.

    Attributes:
        WAYS: How its models can be run.
        DECLARES_INPUTS: Whether its models say what inputs they take.
        RUNS_ELSEWHERE: Whether other runtimes (normswap.runtimes) take its files, as further ways; its models then
            have an ``opset``.
        GATHERS: Whether it looks into its models' layers, and gives them new statistics: what is said of Gatherer and
            of recalibration below holds for these backends alone.
        VARIANCE: What its layers store as the variance of all elements: divided by their number, or by one less.
    """

    WAYS: Sequence[str]
    DECLARES_INPUTS: bool
    RUNS_ELSEWHERE: bool
    GATHERS: bool
    VARIANCE: Literal["biased", "unbiased"]

    def load(self, source: Any) -> Any:
        """Read a model; a model that is one already is taken as it is."""
        ...

    def public(self, model: Any) -> Any:
        """Return a model as its user knows it."""
        ...

    def observe(self, model: Any, feeds: Callable[[Any], Sequence[Feed]], *, given: bool) -> Any:
        """Return the model with what only running it tells, where its framework needs that.

        ``feeds`` makes the inputs to try, which have to fit if they are ``given`` by the caller.
        """
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

    def check_in_place(self, model: Any, plan: Plan) -> None:
        """Raise UnsupportedModelError if ``rewrite_in_place`` cannot be."""
        ...

    def rewrite_in_place(self, model: Any, plan: Plan) -> None:
        """Convert the caller's own model, where its framework has models that can be changed."""
        ...

    def compare_structure(self, before: Any, after: Any, plan: Plan) -> Iterable[Check]:
        """Compare everything outside the plan."""
        ...

    def cut_layers(self, before: Any, after: Any, plan: Plan, *, free: tuple[str, ...] = ()) -> Iterator[CutLayer]:
        """Cut each planned layer out of the converted model."""
        ...

    def run(self, model: Any, arrays: Mapping[str, Any], *, how: str) -> Run:
        """Run a model in one of WAYS, or in another runtime."""
        ...

    def Gatherer(self, model: Any, plan: Plan, names: Sequence[str]) -> Gatherer:  # noqa: N802  # a class in the backend
        """Rewrite a copy by the plan, and make the inputs of these layers seen, planned or not."""
        ...

    def cannot_store(self, model: Any) -> dict[str, str]:
        """Say why a layer cannot be given new running statistics, by its name."""
        ...

    def recalibrated(self, model: Any, statistics: Mapping[str, tuple[Floats, Floats]]) -> Any:
        """Return a copy whose layers, by name, have other running means and variances."""
        ...

    def compare_recalibrated(self, before: Any, after: Any, names: Sequence[str]) -> list[Check]:
        """Compare everything but the running statistics of the layers named."""
        ...

    def run_reference(self, model: Any, plan: Plan, arrays: Mapping[str, Any], *, noise: float, seed: int) -> Run:
        """Run the original with its planned layers under the target's stated meaning."""
        ...

    def declared(self, model: Any) -> Sequence[Declared]:
        """Return what the model says of the inputs that a caller gives, for the reading of data; empty if nothing."""
        ...

    def feeds(
        self,
        model: Any,
        inputs: Any,
        shapes: Mapping[str, tuple[int, ...]],
        seed: int,
        batch: int = BATCH,
    ) -> list[Feed]:
        """Return end-to-end inputs: those given, else generated ones of ``batch`` samples to try in turn."""
        ...

    def plain(self, model: Any, arrays: Mapping[str, Any]) -> dict[str, Array]:
        """Return inputs of the model as arrays in their order, for another framework."""
        ...

    def fit(self, model: Any, arrays: Mapping[str, Array]) -> Mapping[str, Any]:
        """Take arrays as the model's inputs: by name where the names are its own, else by order."""
        ...

    def check_target(self, model: Any, path: str | os.PathLike[str], *, force: bool) -> None:
        """Raise ModelWriteError if the path must not be written."""
        ...

    def Writing(  # noqa: N802  # a class in the backend
        self,
        model: Any,
        path: str | os.PathLike[str],
        *,
        force: bool,
        feeds: Sequence[Feed] | None = None,
        runtimes: Sequence[str] = (),
    ) -> AbstractContextManager[Writing]:
        """Begin to write a model aside.

        Args:
            model: What to write.
            path: The file to write.
            force: Replace an existing file.
            feeds: Inputs to trace an export with.
            runtimes: Where else the file of an export is to be run.
        """
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
    if isinstance(model, (str, os.PathLike)):
        name = _BY_SUFFIX.get(Path(model).suffix.lower(), "onnx_graph")
    else:
        name = next((_BY_CLASS[known] for known in _classes(model) if known in _BY_CLASS), "")
    if not name:
        cls = type(model)
        raise ModelReadError(
            f"{cls.__module__}.{cls.__qualname__}: expected the path of an .onnx or .pt2 file, an onnx.ModelProto, "
            "an nn.Module or an ExportedProgram"
        )
    with interrupts_held_back():
        try:
            return cast(Backend, importlib.import_module(f"normswap.backends.{name}"))
        except ImportError as error:
            raise ModelReadError(
                f"{model if isinstance(model, (str, os.PathLike)) else type(model).__name__}: reading it takes "
                f"{error.name}; pip install 'normswap[torch]'"
            ) from error


_BY_SUFFIX = {".pt2": "torch.program"}  # any other file is tried as ONNX
_BY_CLASS = {  # package and class, so that no framework is imported to ask
    "onnx.ModelProto": "onnx_graph",
    "normswap.OnnxModel": "onnx_graph",
    "torch.Module": "torch.module",
    "normswap.ModuleModel": "torch.module",
    "torch.ExportedProgram": "torch.program",
    "normswap.ProgramModel": "torch.program",
}


def _classes(model: Any) -> list[str]:
    return [f"{cls.__module__.partition('.')[0]}.{cls.__qualname__}" for cls in type(model).__mro__]
