"""What crosses the backend boundary: models, their inputs, results of a run, layers cut out, statistics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from normswap.data.declared import Declared
from normswap.layer import Array, NormLayer

__all__ = ["Collector", "CutLayer", "Feed", "Inputs", "Model", "Run", "SampleStatistics", "Variance"]

Variance: TypeAlias = Literal["biased", "unbiased"]


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
    """Result of running a model.

    Attributes:
        outputs: By name.
        calls: How often each planned layer ran, for those of which it is known.
        notes: What a reader of the result must know.
    """

    outputs: Mapping[str, Array]
    calls: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class SampleStatistics:
    """The statistics of each sample at a layer's input, in one call of the layer.

    Attributes:
        mean: Shape (N, C).
        var: Shape (N, C), divided by ``elements``.
        elements: Number of elements of one channel of one sample: the product of the spatial dimensions.
    """

    mean: Array
    var: Array
    elements: int


class Model(Protocol):
    """A model as its backend holds it; never changed."""

    @property
    def notes(self) -> Sequence[str]:
        """What was done to it since it was read, and what of it is taken on trust."""
        ...

    @property
    def public(self) -> Any:
        """The model as its user knows it."""
        ...


class Inputs(Protocol):
    """The inputs of one model: what it declares, what is given to it, and what is generated for it."""

    @property
    def declared(self) -> Sequence[Declared]:
        """What the model declares of the inputs that a caller gives; empty if nothing."""
        ...

    def bind(self, values: Any) -> Mapping[str, Any]:
        """Take the caller's values, in any of the ways that the framework passes them.

        Raises:
            CannotRunError: If they do not fit.
        """
        ...

    def fit(self, arrays: Mapping[str, Array]) -> Mapping[str, Any]:
        """Take arrays from elsewhere: by name where the names are the model's own, else by order.

        Raises:
            CannotRunError: If they do not fit.
        """
        ...

    def generate(self, shapes: Mapping[str, tuple[int, ...]], seed: int, batch: int) -> Iterable[Feed]:
        """Generate inputs to try in turn, of ``batch`` samples where their number is open.

        Raises:
            CannotRunError: If a shape names no input, or none can be generated.
        """
        ...

    def to_arrays(self, values: Mapping[str, Any]) -> dict[str, Array]:
        """Return values that were bound as arrays in their order, for another framework."""
        ...


class CutLayer(Protocol):
    """One converted layer as a function of its input alone."""

    @property
    def layer(self) -> NormLayer:
        """The original layer."""
        ...

    @property
    def rank(self) -> int:
        """Rank of the input that it takes."""
        ...

    @property
    def trouble(self) -> str:
        """Why it cannot be run alone; empty where it can."""
        ...

    def __call__(self, x: Array, layer: NormLayer) -> dict[str, Array]:
        """Run on x; return the output by how it was run."""
        ...


class Collector(Protocol):
    """A model that is run on batch after batch, and returns the statistics of its layers' inputs."""

    @property
    def unobserved(self) -> Mapping[str, str]:
        """Why a layer's input cannot be seen, by its name."""
        ...

    def __call__(self, arrays: Mapping[str, Any]) -> tuple[Run, dict[str, list[SampleStatistics]]]:
        """Run on one batch; return the outputs, and the calls of each layer, in the order in which they run."""
        ...
