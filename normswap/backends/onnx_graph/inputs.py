"""End-to-end inputs: given by the user, or generated and seeded from the model's signature."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from normswap.backends.generated import drawn
from normswap.backends.onnx_graph.graph.model import OnnxModel
from normswap.backends.onnx_graph.graph.shapes import dims_of, spelled
from normswap.backends.values import Feed
from normswap.errors import CannotRunError
from normswap.layer import Array, Dim

__all__ = ["GraphInputs", "Signature", "signature"]

_EXTENTS = (32, 64, 16, 224, 128, 8, 48, 4)  # tried in turn for dimensions that the signature leaves open


@dataclass(frozen=True)
class Signature:
    """One input that a caller must give.

    Attributes:
        name: The graph input.
        dtype: As NumPy spells it, None for what is not a tensor of numbers.
        dims: Its shape, None for an unknown rank.
    """

    name: str
    dtype: str | None
    dims: tuple[Dim, ...] | None


def signature(model: OnnxModel) -> tuple[Signature, ...]:
    """List the inputs that have no default."""
    defaults = {tensor.name for tensor in model.proto.graph.initializer}
    return tuple(
        Signature(value.name, spelled(value.type), dims_of(value.type))
        for value in model.proto.graph.input
        if value.name not in defaults
    )


@dataclass(frozen=True, eq=False)
class GraphInputs:
    """The inputs of a graph: arrays by name."""

    model: OnnxModel

    @property
    def declared(self) -> tuple[Signature, ...]:
        """The inputs that have no default."""
        return signature(self.model)

    def bind(self, values: Any) -> dict[str, Array]:
        """Take arrays or tensors by name, one by itself, or a tuple or list of them in the order of the inputs.

        Raises:
            CannotRunError: If they are too few or too many, or of another type or shape.
        """
        if isinstance(values, Mapping):
            return _checked(self.model, {name: _as_array(value) for name, value in values.items()})
        values = values if isinstance(values, (tuple, list)) else (values,)
        return self.fit({f"[{index}]": _as_array(value) for index, value in enumerate(values)})

    def fit(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Take arrays by name where the names are the graph's own, else by order.

        Raises:
            CannotRunError: If they are too few or too many, or of another type or shape.
        """
        names = [value.name for value in self.declared]
        if set(names) <= set(arrays):  # arrays for inputs with a default, and expected outputs, may come with them
            known = {value.name for value in self.model.proto.graph.input}
            return _checked(self.model, {name: array for name, array in arrays.items() if name in known})
        if len(names) != len(arrays):
            raise CannotRunError(
                f"the inputs are {len(arrays)} arrays ({', '.join(arrays)}), where the graph takes {len(names)} "
                f"({', '.join(names)})"
            )
        return _checked(self.model, dict(zip(names, arrays.values(), strict=True)))

    def generate(self, shapes: Mapping[str, tuple[int, ...]], seed: int, batch: int) -> Iterator[Feed]:
        """Generate arrays of the declared shapes.

        Raises:
            CannotRunError: If a shape names no input, or an input takes no numbers.
        """
        return _generated(self.model, shapes, seed, batch)

    def to_arrays(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """Return arrays in the order of the graph's inputs."""
        order = [value.name for value in self.model.proto.graph.input]
        return {name: values[name] for name in sorted(values, key=order.index)}


def _checked(model: OnnxModel, feed: Mapping[str, Array]) -> dict[str, Array]:
    """Hold given arrays against the signature.

    Raises:
        CannotRunError: If an input is missing, unknown, or of another type or shape.
    """
    inputs = signature(model)
    known = {value.name for value in model.proto.graph.input}
    missing = [value.name for value in inputs if value.name not in feed]
    if missing:
        raise CannotRunError(
            f"the inputs have no array {missing[0]!r}; the model takes {', '.join(v.name for v in inputs)}, "
            f"found {', '.join(feed) or 'none'}"
        )
    unknown = [name for name in feed if name not in known]
    if unknown:
        raise CannotRunError(
            f"the inputs hold an array {unknown[0]!r}, which the model does not take; "
            f"it takes {', '.join(v.name for v in inputs)}"
        )
    for value in inputs:
        array = np.asarray(feed[value.name])
        if value.dtype is not None and array.dtype.name != value.dtype:
            raise CannotRunError(f"input {value.name!r}: expected {value.dtype}, found {array.dtype.name}")
        if value.dims is None:
            continue
        wrong = len(value.dims) != array.ndim or any(
            isinstance(dim, int) and dim != size for dim, size in zip(value.dims, array.shape, strict=True)
        )
        if wrong:
            raise CannotRunError(f"input {value.name!r}: expected shape {value.dims}, found {array.shape}")
    return dict(feed)


def _generated(model: OnnxModel, shapes: Mapping[str, tuple[int, ...]], seed: int, batch: int) -> Iterator[Feed]:
    """Yield feeds to try, most promising first.

    Args:
        model: Whose signature to fill.
        shapes: Shapes given by the user, by input name.
        seed: Seed of the random data. Samples differ in mean and spread, as they do in the wild.
        batch: Samples where the signature leaves their number open; one is tried after that.

    Raises:
        CannotRunError: If a shape names no input, or an input takes no numbers.
    """
    inputs = signature(model)
    for name in shapes:
        if name not in {value.name for value in inputs}:
            raise CannotRunError(
                f"--shape names {name!r}, which is not an input; the model takes "
                f"{', '.join(value.name for value in inputs)}"
            )
    for value in inputs:
        if value.dtype is None:
            raise CannotRunError(f"input {value.name!r} takes no numbers, so that none can be generated; give --inputs")
    free = any(_open(value, shapes) for value in inputs)
    for samples in (batch, 1):
        for extent in _EXTENTS if free else _EXTENTS[:1]:
            rng = np.random.default_rng(seed)
            feed = {
                value.name: drawn(rng, value.name, value.dtype or "", _shape(value, shapes, samples, extent))
                for value in inputs
            }
            shown = ", ".join(f"{name} {'x'.join(map(str, a.shape)) or 'scalar'}" for name, a in feed.items())
            yield Feed(feed, f"generated, seed {seed}: {shown}")
        if not any(value.dims and not isinstance(value.dims[0], int) for value in inputs):
            return


def _open(value: Signature, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    if value.name in shapes:
        return False
    return value.dims is None or any(not isinstance(dim, int) for dim in value.dims[1:])


def _shape(value: Signature, shapes: Mapping[str, tuple[int, ...]], batch: int, extent: int) -> tuple[int, ...]:
    if value.name in shapes:
        return shapes[value.name]
    dims = value.dims if value.dims is not None else (None, 3, None, None)
    return tuple(dim if isinstance(dim, int) else (batch if axis == 0 else extent) for axis, dim in enumerate(dims))


def _as_array(value: Any) -> Array:
    """Take an array, or a tensor without importing its framework."""
    return np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)
