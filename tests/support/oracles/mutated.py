"""Models of every backend, rewritten wrongly by the mutants of mutants.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from normswap.backends import Backend, backend_for
from normswap.plan import Plan, make_plan
from support.models.cases import CASES, build
from support.models.everything import exported
from support.models.modules import MODULES
from support.models.targets import TARGETS
from support.oracles.mutants import Mutant, Wrong

__all__ = ["BODIES", "Body", "made"]


@dataclass(frozen=True, eq=False)
class Body:
    """What mutants are made of: a model of one backend, inputs for it, and the targets."""

    build: Callable[[], Any]
    inputs: Callable[[], Any] = lambda: None
    targets: tuple[str, ...] = ("instance", "batch-stat", "blend", "blend of samples")


def graph(case: str) -> Callable[[], Any]:
    """Build an ONNX model whose eps is small, so that a wrong one does not show in its outputs."""
    return lambda: build(CASES[case].text.replace("0.01", "1e-5"))


def module(case: str) -> Callable[[], Any]:
    return MODULES[case].build


def program(case: str, *, decomposed: bool = False, module: bool = False) -> Callable[[], Any]:
    return exported(MODULES[case].build, MODULES[case].inputs, decomposed=decomposed, module=module)


BODIES: dict[str, Body] = {
    "onnx": Body(graph("opset 17, training_mode=0")),
    "onnx, rank 3": Body(graph("rank 3")),
    "onnx, float16": Body(graph("float16")),
    "onnx, float64": Body(graph("float64")),
    "onnx, train": Body(graph("opset 14, training_mode=1"), targets=("population", "blend")),
    "onnx, If and Loop": Body(graph("If and Loop, parameters in outer scopes")),
    "onnx, local function": Body(graph("local function, called three times")),
    **{
        f"module, {case}": Body(module(case), MODULES[case].inputs)
        for case in ("BatchNorm2d", "BatchNorm1d, (N, C, L)", "BatchNorm3d", "float16", "float64", "two names")
    },
    "module, train": Body(module("BatchNorm2d, train"), MODULES["BatchNorm2d, train"].inputs, ("population", "blend")),
    "fx": Body(program("BatchNorm2d", module=True), MODULES["BatchNorm2d"].inputs),
    "program": Body(program("BatchNorm2d"), MODULES["BatchNorm2d"].inputs),
    "program, decomposed": Body(program("BatchNorm2d", decomposed=True), MODULES["BatchNorm2d"].inputs),
    "program, float16": Body(program("float16", decomposed=True), MODULES["float16"].inputs),
    "program, train": Body(
        program("BatchNorm2d, train", decomposed=True), MODULES["BatchNorm2d, train"].inputs, ("population", "blend")
    ),
}


@cache  # torch exports a program in ten times what a mutant of it takes
def original(body: Body) -> tuple[Backend, Any]:
    """Return a body's backend and its model, which no rewrite changes."""
    model = body.build()
    backend = backend_for(model)
    return backend, backend.load(model)


def made(body: Body, to: str, wrong: Wrong) -> tuple[Backend, Any, Any, Plan]:
    """Rewrite a model wrongly; return its backend, both models, and the right plan."""
    backend, before = original(body)
    plan = make_plan(TARGETS[to], backend.find(before))
    return backend, before, backend.rewrite(before, replace(plan, norm=Mutant(plan.norm, wrong))), plan
