"""NORMS: the table of targets. A new target is one file here and one entry below."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from normswap.errors import SelectionError
from normswap.norms.base import Norm
from normswap.norms.batch_stat import BatchStat
from normswap.norms.blend import Blend, Over
from normswap.norms.group import Group
from normswap.norms.instance import Instance
from normswap.norms.onnx import OnnxOps
from normswap.norms.parameters import Parameter
from normswap.norms.population import Population
from normswap.words import nearest

__all__ = ["NORMS", "Blend", "Group", "Keywords", "Norm", "OnnxOps", "Parameter", "all_parameters", "make_norm"]

# By name; one with parameters stands here with usual ones, and ``make_norm`` makes it with those of the caller.
NORMS: dict[str, Norm] = {
    "instance": Instance(),
    "batch-stat": BatchStat(),
    "population": Population(),
    "blend": Blend(16, "batch"),
    "group": Group(1),
}


@dataclass(frozen=True, kw_only=True)
class Keywords:
    """The parameters of all targets, for type checkers, so that ``convert(model, "blend", prior=16)`` is checked.

    Nothing depends on them when normswap runs: what a target takes, it declares itself.
    """

    if TYPE_CHECKING:
        prior: float | None = None
        over: Over | None = None
        groups: int | None = None


def make_norm(to: str | Norm, **parameters: Any) -> Norm:
    """Return a target by its name and parameters; one that is a Norm already is returned as it is.

    Args:
        to: A key of NORMS, or a Norm.
        parameters: By name, as Python, a command line or a settings file gives them; None stands for not given.

    Raises:
        SelectionError: If there is no such target, if it lacks a parameter, has no use for one, or a value is not what
            it has to be.
    """
    given = {name: value for name, value in parameters.items() if value is not None}
    if isinstance(to, Norm):
        for name in given:
            raise SelectionError(f"{name}: the target {to.name} is given as an object; give it {name} when it is made")
        return to
    if to not in NORMS:
        raise SelectionError(f"unknown target {to!r}{nearest(str(to), NORMS)}; known are {', '.join(NORMS)}")
    takes = {parameter.name: parameter for parameter in NORMS[to].takes}
    for name in given:
        if name not in takes:
            raise SelectionError(f"{name}: {_whose(name)} and does nothing with {to}; leave it out")
    for name, parameter in takes.items():
        if parameter.required and name not in given:
            raise SelectionError(f"{name}: the target {to} needs one: {parameter.missing}")
    if not takes:
        return NORMS[to]
    return type(NORMS[to])(**{name: takes[name].value(value) for name, value in given.items()})


def all_parameters() -> dict[str, Parameter]:
    """Return the parameters of all targets, by name; targets that share a name share the parameter."""
    return {parameter.name: parameter for norm in NORMS.values() for parameter in norm.takes}


def _whose(name: str) -> str:
    owners = [to for to, norm in NORMS.items() if any(parameter.name == name for parameter in norm.takes)]
    if owners:
        return f"belongs to the target {' and '.join(owners)}"
    return f"belongs to no target{nearest(name, all_parameters())}"
