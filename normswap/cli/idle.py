"""Idle options: what would do nothing next to other options is refused, since its user would never know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from normswap.errors import SelectionError
from normswap.options import Comparison, Converting, spelled

__all__ = ["raise_for_idle", "raise_for_idle_with_checkpoints"]

_SPELLED = {
    declared.name: spelled(declared) or declared.name for declared in (*fields(Converting), *fields(Comparison))
}
_END_TO_END = ("inputs", "shapes", "runtimes")
_RUN = ("inputs", "shapes", "drop_statistics", "runtimes", "may_differ", "for_runtime", "tolerance")


def raise_for_idle(given: Mapping[str, Any]) -> None:
    """Refuse options that do nothing because of others.

    Args:
        given: The options of a comparison or a conversion, by name.

    Raises:
        SelectionError: If any of them is given.
    """
    if given["shapes"] and given["inputs"]:
        raise SelectionError("--shape is for generated inputs and does nothing with --inputs; leave one of them out")
    if given["end_to_end"]:
        return
    for name in _END_TO_END:
        if given[name]:
            raise SelectionError(f"{_SPELLED[name]} does nothing with --no-end-to-end; leave one of them out")
    if given.get("tolerance"):
        raise SelectionError(
            "the tolerance applies to the end-to-end comparison only, which was left out; leave the tolerance out too"
        )


def raise_for_idle_with_checkpoints(given: Mapping[str, Any]) -> None:
    """Refuse options that do nothing to a checkpoint.

    Raises:
        SelectionError: If any of them is given.
    """
    for name in _RUN:
        if given.get(name):
            raise SelectionError(f"{_SPELLED[name]} does nothing with a checkpoint, which is not run; leave it out")
