"""Files of state dicts: read without running code, written whole."""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from normswap.errors import ModelReadError, ModelWriteError, NormswapError, first_line

if TYPE_CHECKING:
    import torch

__all__ = ["SUFFIXES", "read_checkpoint", "write_checkpoint"]

SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")
_NESTED = ("state_dict", "model_state_dict", "model", "module", "net", "generator", "params")


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read a state dict; pickles are read for tensors alone, and nothing in them is run.

    A checkpoint that holds the state dict among other things, under a name such as ``state_dict``, is looked into.

    Raises:
        ModelReadError: If the file is missing or damaged, would run code, or holds no state dict.
    """
    path = Path(path)
    if not path.exists():
        raise ModelReadError(f"{path}: no such file")
    with _needing(path, ModelReadError):
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        return _state_dict(_read_pickle(path), path)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.is_dir():
        raise ModelReadError(f"{path}: expected a .safetensors file: is a directory")
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelReadError(f"{path}: expected a .safetensors file: {_reason(error)}") from error


def _read_pickle(path: Path) -> Any:
    import pickle

    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they warn of is raised below
            # Tensors of a file in today's format are mapped, not read, until somebody looks at them.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        # The message itself explains how to have the code run.
        reason = _reason(error.__context__ or error)
        if named := re.search(r"GLOBAL ([\w.]+)", reason):
            raise ModelReadError(
                f"{path}: holds more than tensors, and nothing in it is executed ({named[1]} would be): "
                "save model.state_dict() instead"
            ) from error
        raise ModelReadError(f"{path}: expected a checkpoint that torch.save wrote: {reason}") from error
    except Exception as error:  # the reader has no common exception for damaged files
        if "TorchScript" in str(error):
            raise ModelReadError(
                f"{path}: is a TorchScript archive, which holds code: save model.state_dict() of the nn.Module instead"
            ) from error
        raise ModelReadError(f"{path}: expected a checkpoint that torch.save wrote: {_reason(error)}") from error


def write_checkpoint(state_dict: Mapping[str, Any], path: Path) -> None:
    """Write a state dict, as its suffix says; the caller sees to it that ``path`` may be written.

    Raises:
        ModelWriteError: If it cannot be written, or the format has no place for something in it.
    """
    with _needing(path, ModelWriteError):
        import torch

        try:
            if path.suffix != ".safetensors":
                torch.save(state_dict if isinstance(state_dict, dict) else dict(state_dict), path)
                return
            from safetensors.torch import save_file

            foreign = [name for name, value in state_dict.items() if not isinstance(value, torch.Tensor)]
            if foreign:
                raise ModelWriteError(
                    f"{path.name}: {foreign[0]} is not a tensor, and .safetensors holds tensors only; write a .pth file"
                )
            # Tied tensors are written once for each name, since a file of this format shares none.
            tensors = {name: value.detach().clone().contiguous() for name, value in state_dict.items()}
            path.touch()
            mode = path.stat().st_mode
            save_file(tensors, path, metadata={"format": "pt"})
            path.chmod(mode)  # as any file here: the library leaves one that nobody else may read
        except (ModelWriteError, OSError, ImportError):
            raise
        except Exception as error:  # the writers have no common exception, for a full disk either
            raise ModelWriteError(f"{path.name}: cannot be written: {_reason(error)}") from error


@contextmanager
def _needing(path: Path, error_class: type[NormswapError]) -> Iterator[None]:
    """Say which package is missing, if one is."""
    try:
        yield
    except ImportError as error:
        raise error_class(f"{path}: this takes {error.name}; pip install {error.name}") from error


def _state_dict(found: Any, path: Path) -> dict[str, torch.Tensor]:
    import torch

    def is_state_dict(value: Any) -> bool:
        return (
            isinstance(value, Mapping)
            and bool(value)
            and all(isinstance(key, str) for key in value)
            and any(isinstance(item, torch.Tensor) for item in value.values())
        )

    nested = [name for name in _NESTED if isinstance(found, Mapping) and is_state_dict(found.get(name))]
    if nested and not any(isinstance(value, torch.Tensor) for value in found.values()):
        if len(nested) > 1:
            raise ModelReadError(
                f"{path}: holds {len(nested)} state dicts ({', '.join(nested)}); save the one that is meant by itself"
            )
        found = found[nested[0]]
    if not is_state_dict(found):
        inside = (
            f"a mapping of {', '.join(map(str, list(found)[:5])) or 'nothing'}"
            if isinstance(found, Mapping)
            else type(found).__name__
        )
        raise ModelReadError(
            f"{path}: expected a state dict, or one under a name such as {', '.join(_NESTED[:3])}, found {inside}"
        )
    return found if isinstance(found, dict) else dict(found)


def _reason(error: BaseException) -> str:
    """Shorten the message of a reader or writer to what a person can use."""
    line = first_line(error, "it ends too early" if isinstance(error, EOFError) else type(error).__name__)
    return line.partition(". This is an internal miniz error")[0]
