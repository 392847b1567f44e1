"""The options of the commands: those of normswap.options and of targets, and those of the command line alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, fields
from typing import Any, TypeAlias

import click

from normswap.data import SCALES
from normswap.diagnosis.measures import MEASURES
from normswap.norms import NORMS, all_parameters
from normswap.options import Kind, option_of, spelled
from normswap.reports.formats import FORMATS
from normswap.runtimes import OWN, RUNTIMES

__all__ = ["REPORTS", "TARGETS", "options", "options_of", "parameters_in", "report_format_of"]

Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]

TARGETS = f"[{'|'.join(NORMS)}]"
REPORTS = ("format", "json", "report")
_SUFFIXES = [report_format.suffix for report_format in FORMATS.values() if report_format.suffix]


def options(*names: str) -> Decorator:
    """Decorate a command with options of the command line alone, in this order."""
    known = {
        "to": click.option("--to", required=True, metavar=TARGETS, help="The target."),
        "format": click.option(
            "--format", "report_format", type=click.Choice(list(FORMATS)),
            help="How the report is printed.  [default: text]",
        ),
        "json": click.option("--json", "as_json", is_flag=True, help="Short for --format json."),
        "report": click.option(
            "--report", "reports", type=click.Path(), multiple=True, metavar="FILE",
            help=f"Write the report to a file, too: {', '.join(_SUFFIXES)}. Repeatable.",
        ),
    }  # fmt: skip
    return _together([known[name] for name in names])


def report_format_of(report_format: str | None, as_json: bool) -> str:
    """Return the format that ``--format`` and ``--json`` ask for.

    They are options of their own: click 8.1 cannot let two of them share a parameter with a default.
    """
    if as_json and report_format not in (None, "json"):
        raise click.UsageError(
            f"--json is short for --format json and contradicts --format {report_format}; leave one of them out"
        )
    return "json" if as_json else report_format or "text"


def options_of(arguments: type, *names: str) -> Decorator:
    """Decorate a command with the options that a class declares, or with those of these names.

    Without names, the parameters of targets come first, if the class has a target.
    """
    declared = [one for one in fields(arguments) if spelled(one) and (not names or one.name in names)]
    takes_target = not names and any(one.name == "to" for one in fields(arguments))
    return _together([*(_of_targets() if takes_target else []), *map(_declared, declared)])


def parameters_in(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of targets among the values of options, where they are given."""
    return {name: given[name] for name in all_parameters() if given.get(name) is not None}


def _of_targets() -> list[Decorator]:
    return [
        click.option(
            f"--{name.replace('_', '-')}", name, type=parameter.type, metavar=parameter.metavar, help=parameter.help
        )
        for name, parameter in all_parameters().items()
    ]


def _declared(declared: Field[Any]) -> Decorator:
    option = option_of(declared)
    assert option.kind is not None, "what is spelled has a kind"
    how = dict(_KINDS[option.kind])
    if metavar := option.metavar or _METAVARS.get(declared.name):
        how["metavar"] = metavar
    if not how.get("multiple"):
        how["default"] = declared.default
    return click.option(
        spelled(declared), declared.name, help=option.help + " Repeatable." * bool(how.get("multiple")), **how
    )


def _shapes(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for value in values:
        name, _sign, dims = value.rpartition("=")
        try:
            shape = tuple(int(dim) for dim in dims.split("x")) if dims else ()
        except ValueError:
            shape = (-1,)
        if not name or any(dim < 1 for dim in shape):
            raise click.BadParameter(f"expected NAME=1x3x256x256, found {value!r}")
        shapes[name] = shape
    return shapes


_KINDS: dict[Kind, Mapping[str, Any]] = {  # kind of an option -> how click reads it
    "text": {},
    "path": {"type": click.Path()},
    "names": {"multiple": True, "metavar": "GLOB"},
    "flag": {"type": bool, "is_flag": True},
    "whole": {"type": click.IntRange(min=0), "show_default": True},
    "counts": {"type": click.IntRange(min=1), "multiple": True},
    "measure": {"type": click.Choice(list(MEASURES)), "show_default": True},
    "share": {"type": float, "metavar": "SHARE"},
    "shapes": {"multiple": True, "callback": _shapes},
    "scale": {"type": click.Choice(list(SCALES))},
    "size": {},
}
_METAVARS = {"runtimes": f"[{'|'.join((*OWN, *RUNTIMES))}]"}  # of options whose values are the keys of a table


def _together(decorators: Sequence[Decorator]) -> Decorator:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate
