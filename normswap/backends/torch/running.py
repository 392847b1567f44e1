"""Run a model so that nothing is left changed but the model's own copy: random numbers, gradients, results by name."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from normswap.backends.torch.tensors import flat_outputs
from normswap.backends.values import Run
from normswap.errors import CannotRunError, NormswapError, first_line

__all__ = ["run_quietly", "undisturbed"]

_SEED = 20150211  # any constant: two models that draw random numbers in the same order draw the same ones


@contextmanager
def undisturbed(seed: int = _SEED) -> Iterator[None]:
    """Seed all random number generators and turn gradients off; put both back as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the model's own, which its user has seen, and fork_rng's of many devices
            with torch.random.fork_rng(), torch.no_grad():
                # torch.manual_seed takes half a millisecond to note that there is no other device to seed.
                _ = (torch if torch.accelerator.is_available() else torch.default_generator).manual_seed(seed)
                random.seed(seed)
                np.random.seed(seed % 2**32)
                yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def run_quietly(call: Callable[[], Any], *, seed: int = _SEED) -> Run:
    """Run a model on its inputs and return its outputs by name.

    Args:
        call: Calls the model.
        seed: Of what it draws at random.

    Raises:
        CannotRunError: If the model raises anything, or returns nothing that can be compared.
    """
    with undisturbed(seed):
        try:
            result = call()
        except NormswapError:  # of what watches the model
            raise
        except Exception as error:  # whatever user code raises
            raise CannotRunError(
                f"the model raised {type(error).__name__}: {first_line(error).rstrip(':; ')}"
            ) from error
    outputs, skipped = flat_outputs(result)
    if not outputs:
        raise CannotRunError(f"the model returned {type(result).__name__}, which holds no tensor that can be compared")
    notes = (f"outputs that are no numbers were not compared: {', '.join(skipped)}",) if skipped else ()
    return Run(outputs, notes=notes)
