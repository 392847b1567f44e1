"""What a model says of an input or output, and batches held to it: shape, type, and what had to be done to them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, TypeVar

import ml_dtypes
import numpy as np

from normswap.errors import DataError
from normswap.layer import Array, Dim
from normswap.words import counted

__all__ = [
    "INPUT",
    "TARGET",
    "Declared",
    "Named",
    "Scale",
    "Side",
    "Tally",
    "check_fits",
    "chosen",
    "dictated_batch",
    "element_type",
    "fitted",
    "is_sample",
    "scaled",
    "spelled_shape",
    "turns_into_float",
]

Scale: TypeAlias = tuple[float, float]  # what 0 and 255 of a pixel become
T = TypeVar("T")
INPUT, TARGET = "input", "target"


class Declared(Protocol):
    """An input or output, as far as its model says; an ONNX graph's ``Signature`` is one."""

    @property
    def name(self) -> str:
        """What the model calls it."""
        ...

    @property
    def dtype(self) -> str | None:
        """Element type as NumPy or ml_dtypes spells it, None where the model does not say."""
        ...

    @property
    def dims(self) -> tuple[Dim, ...] | None:
        """Shape, the samples first; a string or None is open, None for the whole an unknown rank."""
        ...


@dataclass(frozen=True)
class Named:
    """An input or output of which the name alone is known, of an nn.Module's forward, say."""

    name: str
    dtype: str | None = None
    dims: tuple[Dim, ...] | None = None


@dataclass(frozen=True)
class Side:
    """The side of a model that data are for: its inputs, or targets for its outputs.

    Attributes:
        word: INPUT or TARGET; also the name of data that have none, where nothing is declared.
        declared: What the model says of them; empty where it says nothing, so that data are passed on as they are.
        others: Names of the other side, which the same file may hold.
    """

    word: str
    declared: tuple[Declared, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """What the model calls them."""
        return [value.name for value in self.declared]

    @property
    def listed(self) -> str:
        """The same, for a sentence."""
        return ", ".join(self.names)

    def of(self, name: str) -> Declared:
        """Return what is declared under a name, nothing but the name where nothing is."""
        return next((value for value in self.declared if value.name == name), Named(name))


@dataclass
class Tally:
    """What was done to the data of one pass, and was found in them, for the notes of a report.

    Attributes:
        counts: How often, by a sentence that has ``{image}`` where it is to say ``3 images``.
    """

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, what: str, number: int = 1) -> None:
        """Count something."""
        self.counts[what] = self.counts.get(what, 0) + number

    def notes(self) -> tuple[str, ...]:
        """Return one sentence for each thing counted."""
        return tuple(
            re.sub(r"\{(\w+)\}", lambda thing, number=number: counted(number, thing[1]), what)  # type: ignore[misc]
            for what, number in self.counts.items()
        )


def dictated_batch(declared: Sequence[Declared]) -> int | None:
    """Return the batch size that the model dictates, None where it takes any.

    Raises:
        DataError: If an input has no axis of samples, or two have different numbers of them.
    """
    sizes: dict[str, int] = {}
    for value in declared:
        if value.dims == ():
            raise DataError(
                f"input {value.name!r}: expected samples as its first axis, found a scalar; make it a constant of "
                "the model, since data are read sample by sample"
            )
        if value.dims is not None and isinstance(value.dims[0], int):
            sizes[value.name] = value.dims[0]
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{name} takes {size}" for name, size in sizes.items())
        raise DataError(
            f"expected inputs with one number of samples, found that {found}; data are read sample by sample, "
            "so that this model cannot be fed with them"
        )
    return next(iter(sizes.values()), None)


def chosen(found: Mapping[str, T], side: Side, where: str) -> dict[str, T]:
    """Choose what a side needs from what is there: by name, or the only one there is.

    Args:
        found: Anything, by name; the name is empty for what has none.
        side: What is needed.
        where: Where they are, for a sentence.

    Raises:
        DataError: If something is missing.
    """
    own = {name: value for name, value in found.items() if name not in side.others}
    if not side.declared and own:
        if len(own) > 1 and side.word == TARGET:
            raise DataError(f"{where}: expected one array of targets, found {', '.join(own)}; give a file with one")
        return {name or side.word: value for name, value in own.items()}
    names = side.names
    if names and all(name in found for name in names):
        return {name: found[name] for name in names}
    if len(names) == 1 and len(own) == 1:
        return {names[0]: next(iter(own.values()))}
    verb = "takes" if side.word == INPUT else "gives"
    raise DataError(
        f"{where}: expected arrays by {side.word} name{f': the model {verb} {side.listed}' if names else ''}, found "
        f"{', '.join(name or 'one without a name' for name in found) or 'none'}; save them under these names"
    )


def check_fits(
    shape: tuple[int, ...], dtype: np.dtype[np.generic], declared: Declared, where: str, scale: Scale | None
) -> None:
    """Hold the shape and type of a batch to what the model says, before its values are read.

    Raises:
        DataError: If ``fitted`` would not take it.
    """
    what = f"{where}: {declared.name!r}"
    if declared.dims is not None and not _matches(shape, declared.dims):
        missing = "; the first axis is samples, also of a single one" if len(shape) == len(declared.dims) - 1 else ""
        raise DataError(
            f"{what}: expected shape {spelled_shape(declared.dims)}, found {spelled_shape(shape)}"
            f"{missing or '; give data of the shape that the model takes'}"
        )
    if not shape:
        raise DataError(f"{what}: expected samples as its first axis, found a scalar; give an array of samples")
    if not _is_number(dtype):
        raise DataError(f"{what}: expected numbers, found {dtype.name}; save floats as float32, which are cast")
    wanted = element_type(declared)
    if wanted is None or wanted == dtype.newbyteorder("=") or (_is_float(wanted) and _is_float(dtype)):
        return
    if turns_into_float(dtype, declared):
        if scale is None:
            raise DataError(
                f"{what}: expected {wanted.name}, found uint8; say what 0 and 255 become with --scale 0,1 or -1,1 or "
                "0,255, as the model was trained"
            )
        return
    if _is_float(wanted) or _is_float(dtype) or not np.can_cast(dtype, wanted, "safe"):
        raise DataError(
            f"{what}: expected {wanted.name}, found {dtype.name}, which is not cast since values could change their "
            f"meaning; save it as {wanted.name}"
        )


def fitted(array: Array, declared: Declared, where: str, tally: Tally, scale: Scale | None = None) -> Array:
    """Hold a batch to what the model says, and bring it to the type that it takes.

    Floats become floats of another width, integers wider ones that hold them all, and uint8 becomes floats by
    ``scale``; no other cast is made. What was done is counted, and so are samples with NaN or infinity.

    Args:
        array: The batch, its first axis the samples.
        declared: What the model says.
        where: Where the batch is from, for a sentence.
        tally: Counts.
        scale: What 0 and 255 of uint8 become where the model takes floats.

    Raises:
        DataError: If it does not fit.
    """
    check_fits(array.shape, array.dtype, declared, where, scale)
    wanted = element_type(declared) or array.dtype.newbyteorder("=")
    if turns_into_float(array.dtype, declared):
        assert scale is not None, "check_fits has asked for it"
        array = scaled(array, scale, wanted)
    elif array.dtype != wanted:
        if array.dtype.newbyteorder("=") != wanted:
            tally.add(f"{declared.name}: {array.dtype.name} was cast to {wanted.name}, which the model takes")
        with np.errstate(over="ignore"):  # infinity is counted below
            array = array.astype(wanted)
    if _is_float(array.dtype):
        broken = ~np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
        if broken.any():
            tally.add(f"{declared.name}: NaN or infinity in {{sample}}", int(broken.sum()))
    return array


def scaled(pixels: Array, scale: Scale, dtype: np.dtype[np.generic]) -> Array:
    """Turn pixels, uint8, into floats: 0 and 255 become the two ends of the scale, rounded once."""
    low, high = scale
    table: Array = (low + np.arange(256) / 255 * (high - low)).astype(dtype)
    return table[pixels]


def element_type(declared: Declared) -> np.dtype[np.generic] | None:
    """Return the element type that a model declares, None where it does not say."""
    if declared.dtype is None:
        return None
    return np.dtype(getattr(ml_dtypes, declared.dtype, declared.dtype))


def turns_into_float(dtype: np.dtype[np.generic], declared: Declared) -> bool:
    """Whether arrays of a type are pixels that a scale turns into the floats that the model takes."""
    wanted = element_type(declared)
    return dtype == np.uint8 and wanted is not None and _is_float(wanted)


def is_sample(shape: tuple[int, ...], declared: Declared) -> bool:
    """Whether an array is one sample by its rank, its first axis left out."""
    return declared.dims is not None and len(shape) == len(declared.dims) - 1


def spelled_shape(dims: Sequence[Dim]) -> str:
    """Spell a shape as the command line does: ``batchx3x64x64``, ? for what is open."""
    return "x".join("?" if dim is None else str(dim) for dim in dims) or "scalar"


def _matches(shape: tuple[int, ...], dims: Sequence[Dim]) -> bool:
    """Whether samples of an array, of any number, are of the shape that is declared."""
    return len(shape) == len(dims) and all(
        not isinstance(dim, int) or dim == size for dim, size in zip(dims[1:], shape[1:], strict=True)
    )


def _is_float(dtype: np.dtype[np.generic]) -> bool:
    return dtype.kind == "f" or (hasattr(ml_dtypes, dtype.name) and "float" in dtype.name)


def _is_number(dtype: np.dtype[np.generic]) -> bool:
    return dtype.kind in "biu" or _is_float(dtype)
