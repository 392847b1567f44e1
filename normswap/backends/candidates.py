"""Candidate: a model that is held to the original, whatever framework it is of and wherever it is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from normswap.backends.protocols import Backend, Exported, RunsElsewhere
from normswap.backends.values import Run
from normswap.layer import Array
from normswap.runtimes import OWN

__all__ = ["Candidate", "candidates_of", "exported_candidates", "run_in", "runtimes_of"]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model that is held to the original.

    Attributes:
        run: Runs it on inputs of the original.
        by_order: Whether its outputs are paired with the original's by their order, since names of two frameworks
            need not match.
    """

    run: Callable[[Mapping[str, Any]], Run]
    by_order: bool = False


def candidates_of(
    backend: Backend,
    model: Any,
    runtimes: Sequence[str] = (),
    to_arrays: Callable[[Mapping[str, Any]], dict[str, Array]] | None = None,
) -> dict[str, Candidate]:
    """Return a candidate for each way of running a model, by the way.

    Args:
        backend: Of the model.
        model: What to run.
        runtimes: Where else to run it, as far as its backend can.
        to_arrays: Turns inputs of the original into arrays, where the original is of another backend.
    """
    inputs = backend.inputs(model)

    def candidate(how: str) -> Candidate:
        if to_arrays is None:
            return Candidate(lambda values: run_in(backend, model, values, how))
        return Candidate(lambda values: run_in(backend, model, inputs.fit(to_arrays(values)), how), by_order=True)

    return {how: candidate(how) for how in (*backend.WAYS, *runtimes_of(backend, runtimes))}


def exported_candidates(
    backend: Backend, original: Any, exported: Exported | None, name: str, runtimes: Sequence[str]
) -> dict[str, Candidate]:
    """Return a candidate for each way of running a file that was exported, by its name and the way.

    Args:
        backend: Of the original.
        original: What gives the inputs.
        exported: The file, read back; None where there is nothing to run.
        name: Its name.
        runtimes: Where else to run it.
    """
    if exported is None:
        return {}
    other = exported.backend
    to_arrays = None if other is None else backend.inputs(original).to_arrays
    found = candidates_of(other or backend, exported.model, runtimes, to_arrays)
    return {f"{name}, {how}": candidate for how, candidate in found.items()}


def run_in(backend: Backend, model: Any, arrays: Mapping[str, Any], how: str) -> Run:
    """Run a model in one of its backend's ways, or in another runtime.

    Raises:
        CannotRunError: If it does not run.
    """
    if how in backend.WAYS:
        return backend.run(model, arrays, how=how)
    assert isinstance(backend, RunsElsewhere), "runtimes_of names no runtime of another backend"
    return backend.run_elsewhere(model, arrays, runtime=how)


def runtimes_of(backend: Backend, names: Sequence[str]) -> tuple[str, ...]:
    """Return which of the runtimes named are other ways to run a backend's models than its own."""
    return tuple(dict.fromkeys(name for name in names if name not in OWN)) if isinstance(backend, RunsElsewhere) else ()
