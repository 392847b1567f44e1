"""Factories: ``package.module:name``, the code that a user asked for by name, called to build the nn.Module."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from normswap.backends.torch.checkpoint import read_checkpoint
from normswap.errors import ModelReadError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["build", "load_weights"]

_WRAPPERS = ("module.", "_orig_mod.")  # as DataParallel and torch.compile name what they hold


def build(spec: str, weights: str | os.PathLike[str] | None = None) -> nn.Module:
    """Import what a factory names, call it without arguments, and load weights into what it returns.

    Args:
        spec: ``package.module:name``, found from the current folder too; name is a function or class that returns an
            nn.Module, or a module that is there already.
        weights: A state dict (.pth, .safetensors), loaded strictly; ``module.`` or ``_orig_mod.`` in front of all its
            names, which wrappers leave there, is taken off.

    Raises:
        ModelReadError: If the import or the call fails, the result is not an nn.Module, or the weights do not fit.
    """
    try:
        from torch import nn

        from normswap.backends.torch.module.model import copied
    except ImportError as error:
        raise ModelReadError(f"{spec}: this takes {error.name}; pip install 'normswap[torch]'") from error
    module_name, _, name = spec.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever user code raises; scripts without a main guard exit
        raise ModelReadError(f"{spec}: importing {module_name} failed: {_described(error)}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise ModelReadError(f"{spec}: {getattr(found, '__name__', found)} has no {part!r}")
        found = getattr(found, part)
    module = found if isinstance(found, nn.Module) else _called(found, spec)
    if weights is not None:
        module = copied(module) if module is found else module  # it may be named again, with other weights
        load_weights(module, weights)
    return module


def _called(factory: Any, spec: str) -> nn.Module:
    from torch import nn

    name = spec.partition(":")[2]
    if not callable(factory):
        raise ModelReadError(
            f"{spec}: expected a function or class that returns an nn.Module, found {type(factory).__name__}"
        )
    try:
        found = factory()
    except (Exception, SystemExit) as error:  # whatever user code raises
        raise ModelReadError(f"{spec}: calling {name}() failed: {_described(error)}") from error
    if not isinstance(found, nn.Module):
        raise ModelReadError(f"{spec}: expected {name}() to return an nn.Module, found {type(found).__name__}")
    return found


def load_weights(module: nn.Module, weights: str | os.PathLike[str]) -> None:
    """Load a checkpoint strictly.

    Raises:
        ModelReadError: If it cannot be read, or holds more, less or other tensors than the module.
    """
    from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

    from normswap.backends.torch.module.model import unwrapped

    state = read_checkpoint(weights)
    module = unwrapped(module).module
    own = list(module.state_dict())
    while prefix := next((p for p in _WRAPPERS if all(name.startswith(p) for name in state)), ""):
        if any(name.startswith(prefix) for name in own):
            break
        consume_prefix_in_state_dict_if_present(state, prefix)
    try:
        module.load_state_dict(state, strict=True)
    except Exception as error:  # wrong names and shapes, and what the module's own hooks raise
        raise ModelReadError(f"{weights}: does not fit {type(module).__name__}: {_described(error)}") from error


def _described(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, RuntimeError) and len(lines) > 1 and lines[0].startswith("Error(s) in loading"):
        lines = lines[1:]  # that line names the class again
    return f"{type(error).__name__}: {' '.join(lines)[:400]}" if lines else type(error).__name__
