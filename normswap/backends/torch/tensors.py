"""Tensors as arrays and back, and whatever a model returns as arrays by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import torch

from normswap.layer import Array

__all__ = [
    "CHANNELS_LAST",
    "NO_PARAMETER",
    "dtype_of",
    "flat_outputs",
    "form_difference",
    "same_bits",
    "spelled",
    "tensor_difference",
    "tensors_in",
    "to_array",
    "to_tensor",
]

NO_PARAMETER = "is a Parameter on one side only"
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # by rank

_FOREIGN = {torch.bfloat16: (torch.int16, ml_dtypes.bfloat16)}  # what NumPy has no type of its own for


def spelled(dtype: torch.dtype) -> str:
    """Name an element type as NumPy does: ``float32``, ``bfloat16``, ``bool``."""
    return str(dtype).removeprefix("torch.")


def dtype_of(name: str) -> torch.dtype:
    """Return torch's element type of NumPy's name."""
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype), name
    return dtype


def to_array(tensor: torch.Tensor) -> Array:
    """Copy a tensor to NumPy; bfloat16 keeps its bits, a complex number becomes a pair of real ones."""
    tensor = tensor.detach()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    tensor = tensor.cpu().resolve_neg()
    if tensor.dtype in _FOREIGN:
        bits, dtype = _FOREIGN[tensor.dtype]
        return np.array(tensor.contiguous().view(bits).numpy(), copy=True).view(dtype)
    return np.array(tensor.numpy(), copy=True)


def to_tensor(array: Array, device: torch.device | str = "cpu") -> torch.Tensor:
    """Copy an array into a tensor of the same element type."""
    array = np.ascontiguousarray(array).reshape(array.shape)
    for dtype, (bits, foreign) in _FOREIGN.items():
        if array.dtype == foreign:
            return torch.from_numpy(array.view(spelled(bits)).copy()).view(dtype).to(device)
    return torch.from_numpy(array.copy()).to(device)


def tensor_difference(old: torch.Tensor, new: torch.Tensor) -> str:
    """Say how two parameters, buffers or constants differ, to follow the name of one; nothing if they do not."""
    if difference := form_difference(old, new):
        return difference
    return "" if old is new or old.is_meta or same_bits(old, new) else "has other values"


def form_difference(old: torch.Tensor, new: torch.Tensor) -> str:
    """Say how two tensors differ in all but their values, as ``tensor_difference`` does."""
    for word in ("dtype", "shape", "device", "layout", "requires_grad"):
        if getattr(old, word) != getattr(new, word):
            return f"has {word} {getattr(new, word)}, had {getattr(old, word)}"
    if isinstance(old, torch.nn.Parameter) != isinstance(new, torch.nn.Parameter):
        return NO_PARAMETER
    return ""


def same_bits(old: torch.Tensor, new: torch.Tensor) -> bool:
    """Compare two tensors of one dtype, shape and layout bit for bit, NaN and -0 included."""
    old, new = old.detach(), new.detach()
    if old.layout is not torch.strided:
        old, new = old.to_dense(), new.to_dense()
    if old.is_quantized:
        return old.qscheme() == new.qscheme() and torch.equal(old, new)
    one, other = (tensor.resolve_conj().resolve_neg().contiguous().reshape(-1) for tensor in (old, new))
    return torch.equal(one.view(torch.uint8), other.view(torch.uint8)) if one.numel() else True


def tensors_in(value: Any) -> list[torch.Tensor]:
    """List the tensors of arguments or results, in torch's order of nested containers."""
    return [leaf for _, leaf in _leaves(value) if isinstance(leaf, torch.Tensor)]


def flat_outputs(value: Any) -> tuple[dict[str, Array], list[str]]:
    """Name every tensor and number of a model's result by its place in it.

    Returns:
        The arrays, called ``output`` where the result is a single one, else ``[0]``, ``['logits'][1]``, ``.hidden``;
        and the places of what is not a number, which cannot be compared.
    """
    arrays: dict[str, Array] = {}
    skipped: list[str] = []
    for place, leaf in _leaves(value):
        name = place or "output"
        if isinstance(leaf, torch.Tensor):
            arrays[name] = to_array(leaf)
        elif isinstance(leaf, (bool, int, float, np.ndarray, np.generic)):
            arrays[name] = np.asarray(leaf)
        elif leaf is not None:
            skipped.append(f"{name} ({type(leaf).__name__})")
    return arrays, skipped


def _leaves(value: Any) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for path, leaf in torch.utils._pytree.tree_flatten_with_path(value)[0]:
        place = torch.utils._pytree.keystr(path)
        inside = None
        if not isinstance(leaf, torch.Tensor):
            # Result classes that torch's pytree does not know: an open mapping, or a dataclass.
            inside = dict(leaf) if isinstance(leaf, Mapping) else getattr(leaf, "__dict__", None)
            if not hasattr(leaf, "__dataclass_fields__") and not isinstance(leaf, Mapping):
                inside = None
        if inside is None:
            found.append((place, leaf))
        else:
            joined = [f"{place}{'.' if hasattr(leaf, name) else ''}{name}" for name in map(str, inside)]
            for name, part in zip(joined, inside.values(), strict=True):
                found += [(f"{name}{deeper}", inner) for deeper, inner in _leaves(part)]
    return found
