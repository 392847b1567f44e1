"""What a command line or a settings file names as a model: a file, or a factory of the user's code."""

from __future__ import annotations

import os
from typing import Any

from normswap.backends.torch.checkpoint import SUFFIXES
from normswap.backends.torch.factory import build
from normswap.errors import SelectionError
from normswap.files import is_factory

__all__ = ["is_checkpoint", "source_of"]


def source_of(model: str, weights: str | None, option: str = "--weights") -> Any:
    """Return what the library takes: a path as it is, or the module that a factory builds.

    Raises:
        SelectionError: If a file is given weights.
        ModelReadError: If the factory or its weights cannot be read.
    """
    if is_factory(model):
        return build(model, weights)
    if weights is not None:
        raise SelectionError(f"{option} is for package.module:factory; the file {model} has its weights in it")
    return model


def is_checkpoint(model: Any) -> bool:
    """Whether a model is named by a file that holds weights alone."""
    return isinstance(model, str) and os.path.splitext(model)[1] in SUFFIXES
