"""Look at a model: read it, run it if only a run shows its layers, find them, and plan what becomes of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from normswap.backends import Backend, Feed, backend_for
from normswap.layer import NormLayer
from normswap.norms import Norm
from normswap.options import Scope
from normswap.plan import Plan, make_plan
from normswap.runtimes.choice import choose_for

__all__ = ["Looked", "look"]


@dataclass(frozen=True, eq=False)
class Looked:
    """A model that was read, as its backend holds it, and its layers."""

    backend: Backend
    model: Any
    layers: tuple[NormLayer, ...]

    def plan(self, norm: Norm, scope: Scope, for_runtime: str | None = None) -> Plan:
        """Decide what becomes of each layer."""
        choose = choose_for(norm, for_runtime, self.model.opset if self.backend.RUNS_ELSEWHERE else None)
        return make_plan(norm, self.layers, only=scope.only, skip=scope.skip, choose=choose)


def look(model: Any, scope: Scope, feeds: Callable[[Any], list[Feed]] | None = None) -> Looked:
    """Read a model and find its layers.

    Args:
        model: As ``find`` takes it.
        scope: How it is looked at.
        feeds: Makes inputs for a model whose layers only a run shows; None for nothing but what ``scope`` gives.
    """
    backend = backend_for(model)
    loaded = backend.load(model)
    if scope.drop_statistics:
        loaded = backend.without_statistics(loaded)
    if feeds is None and (scope.inputs is not None or scope.shapes):
        feeds = partial(backend.feeds, inputs=scope.inputs, shapes=scope.shapes or {}, seed=0)
    if feeds is not None:
        loaded = backend.observe(loaded, feeds, given=scope.inputs is not None)
    return Looked(backend, loaded, backend.find(loaded))
