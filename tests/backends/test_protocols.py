"""Backends implement the protocols of the boundary: mypy checks the signatures, the tests which protocols they are."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from normswap.backends import Backend, Collects, Writes, collecting_backend, onnx_graph, writing_backend
from normswap.backends.protocols import Observes, RewritesInPlace, RunsElsewhere
from normswap.backends.torch import module, program
from normswap.errors import UnsupportedModelError

# Without a cast: mypy holds each module to its protocols.
BACKENDS: dict[str, Backend] = {"onnx_graph": onnx_graph, "module": module, "program": program}
COLLECTS: dict[str, Collects] = {"onnx_graph": onnx_graph, "module": module}
WRITES: dict[str, Writes] = {"onnx_graph": onnx_graph, "module": module, "program": program}
OBSERVES: dict[str, Observes] = {"module": module}
IN_PLACE: dict[str, RewritesInPlace] = {"module": module}
ELSEWHERE: dict[str, RunsElsewhere] = {"onnx_graph": onnx_graph}
PROTOCOLS: dict[Any, dict[str, Any]] = {
    Collects: COLLECTS,
    Writes: WRITES,
    Observes: OBSERVES,
    RewritesInPlace: IN_PLACE,
    RunsElsewhere: ELSEWHERE,
}


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.__name__)
def test_a_backend_is_known_by_what_it_implements(protocol: Any) -> None:
    found = {name for name, backend in BACKENDS.items() if isinstance(backend, protocol)}
    assert found == set(PROTOCOLS[protocol])


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_offers_what_a_protocol_names_and_nothing_else(name: str) -> None:
    backend = BACKENDS[name]
    named = {"WAYS", *_members(Backend)}
    for protocol, known in PROTOCOLS.items():
        named |= _members(protocol) if name in known else set()
    named |= {"VARIANCE"} if name in COLLECTS else set()
    offered = {one for one in backend.__all__ if not one.endswith("Model")}  # type: ignore[attr-defined]  # a module
    assert offered == named


def test_the_protocols_are_small() -> None:
    assert len(_members(Backend)) <= 10
    assert max(len(_members(protocol) - _members(Backend)) for protocol in PROTOCOLS) <= 4


def test_a_backend_that_lacks_a_capability_is_refused_by_name() -> None:
    import torch

    exported = torch.export.export(torch.nn.BatchNorm2d(2).eval(), (torch.zeros(1, 2, 3, 3),))
    with pytest.raises(UnsupportedModelError, match=r"ExportedProgram: the inputs of .* layers are not looked into"):
        collecting_backend(exported)

    class WritesNothing:
        """Every attribute but those of Writes."""

    with pytest.raises(UnsupportedModelError, match="are not written to files"):
        writing_backend(WritesNothing())  # type: ignore[arg-type]  # that is the point


def _members(protocol: Any) -> set[str]:
    return {name for name, _ in inspect.getmembers(protocol, inspect.isfunction) if not name.startswith("_")}
