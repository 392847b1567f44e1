"""MODELS: the two tables of small models, cases.py in ONNX and modules.py in torch, in every form that is read."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from normswap.layer import Role
from support.models.cases import CASES, build
from support.models.gan_networks import GAN_NETWORKS
from support.models.modules import MODULES, Inputs

__all__ = ["MODELS", "Model", "exported", "traced"]


@dataclass(frozen=True)
class Model:
    """A model in one form.

    Attributes:
        build: Makes it anew.
        inputs: Makes inputs for it; None where they are generated from its signature.
        roles: The role of each BatchNorm by name; None where the form names them otherwise.
        refused: The layers that a target cannot take, with words of the reason, by target and by name.
        runs: Whether it can be run as a whole under the stated meanings.
        shapes: Of generated inputs, where the model leaves them open.
    """

    build: Callable[[], Any]
    inputs: Callable[[], Any] = lambda: None
    roles: Mapping[str, Role] | None = None
    refused: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    runs: bool = True
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def traced(make: Callable[[], torch.nn.Module]) -> Callable[[], Any]:
    """Return what makes an fx.GraphModule, in which BatchNorm modules are called as modules."""
    return lambda: torch.fx.symbolic_trace(make())


def exported(
    make: Callable[[], torch.nn.Module], inputs: Inputs, *, decomposed: bool = False, module: bool = False
) -> Callable[[], Any]:
    """Return what makes an ExportedProgram, in core ATen or not, or the GraphModule that it gives."""

    def export() -> Any:
        given = inputs()
        args, kwargs = (given, {}) if isinstance(given, tuple) else ((), given)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's functions call what torch has deprecated
            program = torch.export.export(make(), args, kwargs, strict=False)
            if decomposed:
                program = program.run_decompositions()
            return program.module() if module else program

    return export


def _forms(name: str, make: Callable[[], torch.nn.Module], inputs: Inputs, can_trace: bool) -> dict[str, Model]:
    forms = {
        f"program: {name}": Model(exported(make, inputs), inputs),
        f"decomposed: {name}": Model(exported(make, inputs, decomposed=True), inputs),
        f"GraphModule of ATen: {name}": Model(exported(make, inputs, module=True), inputs),
    }
    return forms | ({f"traced: {name}": Model(traced(make), inputs)} if can_trace else {})


MODELS: dict[str, Model] = {
    f"onnx: {name}": Model(partial(build, case.text), roles=case.roles, runs=case.runs, shapes=case.shapes)
    for name, case in CASES.items()
}
for _name, _case in MODULES.items():
    MODELS[f"module: {_name}"] = Model(_case.build, _case.inputs, _case.roles, _case.refused)
    if _case.exportable:
        MODELS |= _forms(_name, _case.build, _case.inputs, _case.traceable)
del MODELS["decomposed: two names, train"]  # torch 2.13 fails to decompose it: one buffer, two names, both written
for _name, _network in GAN_NETWORKS.items():
    MODELS[f"module: {_name}"] = Model(_network.build, _network.inputs)
    MODELS |= _forms(_name, _network.build, _network.inputs, False)
