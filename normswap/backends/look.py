"""Look at a model: read it, run it if only a run shows its layers, find them, and plan what becomes of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from normswap.backends import Backend, backend_for
from normswap.backends.generated import samples_for
from normswap.backends.inputs import InputSource
from normswap.backends.protocols import Observes, RunsElsewhere
from normswap.backends.values import Feed
from normswap.layer import NormLayer
from normswap.norms import Norm
from normswap.options import Scope
from normswap.plan import Plan, make_plan
from normswap.runtimes.choice import choose_for

__all__ = ["Looked", "look", "source_of"]


@dataclass(frozen=True, eq=False)
class Looked:
    """A model that was read, as its backend holds it, and its layers."""

    backend: Backend
    model: Any
    layers: tuple[NormLayer, ...]

    def plan(self, norm: Norm, scope: Scope, for_runtime: str | None = None) -> Plan:
        """Decide what becomes of each layer."""
        choose = choose_for(
            norm, for_runtime, self.backend.opset(self.model) if isinstance(self.backend, RunsElsewhere) else None
        )
        return make_plan(norm, self.layers, only=scope.only, skip=scope.skip, choose=choose)


def look(model: Any, scope: Scope, feeds: Callable[[Any], list[Feed]] | None = None) -> Looked:
    """Read a model and find its layers.

    Args:
        model: As ``find`` takes it.
        scope: How it is looked at.
        feeds: Makes inputs for a model whose layers only a run shows; None for nothing but what ``scope`` gives.
    """
    backend = backend_for(model)
    loaded = backend.load(model, drop_statistics=scope.drop_statistics)
    if isinstance(backend, Observes):
        if feeds is None and (scope.inputs is not None or scope.shapes):
            feeds = partial(source_of(scope).feeds, backend)
        if feeds is not None:
            loaded = backend.observe(loaded, feeds, given=scope.inputs is not None)
    return Looked(backend, loaded, backend.find(loaded))


def source_of(scope: Scope, seed: int = 0, runtimes: Sequence[str] = ()) -> InputSource:
    """Return where end-to-end inputs come from, by the options."""
    return InputSource(scope.inputs, scope.shapes, seed, samples_for(runtimes), scale=scope.scale, size=scope.size)
