"""Inputs of a model that does not declare any, as another model of another framework declares them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from normswap.backends import Backend, Feed
from normswap.errors import CannotRunError

__all__ = ["feeds_as_declared"]


def feeds_as_declared(
    backend: Backend, model: Any, other_backend: Backend, other: Any, *, seed: int, batch: int
) -> list[Feed]:
    """Generate inputs for ``other``, which declares what it takes, and return them as inputs of ``model``."""
    feeds = []
    for feed in other_backend.feeds(other, None, {}, seed, batch):
        with suppress(CannotRunError):
            arrays = backend.fit(model, other_backend.plain(other, feed.arrays))
            feeds.append(Feed(arrays, f"{feed.source}, as the converted model declares them"))
    return feeds or backend.feeds(model, None, {}, seed, batch)
