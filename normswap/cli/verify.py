"""verify: a converted model held to its original, or every pair that the settings list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import click
from click.core import ParameterSource

from normswap.cli.options import REPORTS, TARGETS, options, options_of, parameters_in, report_format_of
from normswap.cli.output import prints_aside, show_outcomes
from normswap.cli.pair import Pair, outcome_of
from normswap.cli.progress import ProgressBar
from normswap.cli.settings import Settings, outcomes_of, read_settings
from normswap.cli.settings_file import find_settings
from normswap.norms import all_parameters
from normswap.reports.files import check_reports
from normswap.reports.outcome import worst
from normswap.words import counted

__all__ = ["verify"]


@click.command()
@click.argument("before", type=click.Path(), required=False)
@click.argument("after", type=click.Path(), required=False)
@click.option("--settings", type=click.Path(), metavar="FILE", help="The settings file, instead of the nearest one.")
@click.option(
    "--pair", "chosen", multiple=True, metavar="GLOB", help="Pairs of the settings to verify, by name. Repeatable."
)
@click.option("--to", metavar=TARGETS, help="The target, of BEFORE and AFTER.")
@options_of(Pair)
@options(*REPORTS)
@click.pass_context
def verify(
    context: click.Context,
    /,
    settings: str | None,
    chosen: tuple[str, ...],
    report_format: str | None,
    as_json: bool,
    reports: tuple[str, ...],
    **given: Any,
) -> int:
    """Hold the converted model AFTER to the original BEFORE under the target's stated meaning.

    Each is an .onnx or .pt2 file, or package.module:factory. AFTER may also be the weights (.pth, .safetensors) of
    the converted model of a factory. Models of two frameworks are compared end to end only.

    Without BEFORE and AFTER, the pairs of the settings file are verified: normswap.toml, or [tool.normswap] of
    pyproject.toml, in this folder or the nearest one above it. The exit code is that of the worst.
    """
    report_format = report_format_of(report_format, as_json)
    check_reports("verify", report_format, reports)
    listed = None if _names_one_pair(context) else _listed(settings, chosen)
    pairs = [_pair(given)] if listed is None else listed.pairs
    check_reports("verify", report_format, reports, [model for one in pairs for model in (one.before, one.after)])
    with prints_aside(), ProgressBar() as progress:
        outcomes = [outcome_of(_pair(given), progress)] if listed is None else outcomes_of(listed, progress)
    show_outcomes(outcomes, "verify", report_format, reports)
    return worst(outcomes)


def _pair(given: Mapping[str, Any]) -> Pair:
    own = {declared.name: given[declared.name] for declared in fields(Pair) if declared.name in given}
    return Pair(**own, parameters=parameters_in(given))


def _names_one_pair(context: click.Context) -> bool:
    """Whether a command names two models rather than a settings file; options of the other case are refused."""
    given = {
        str(parameter.name): parameter
        for parameter in context.command.params
        if context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
    }
    names = [*(declared.name for declared in fields(Pair)), *all_parameters()]
    of_pair = [given[name] for name in names if name in given]
    if "before" not in given:
        if of_pair:
            raise click.UsageError(
                f"{_spelled(of_pair[0])} is for BEFORE and AFTER; without them the settings file has it for each pair"
            )
        return False
    if "after" not in given:
        raise click.UsageError("Missing argument 'AFTER'; give both models, or neither to verify those of the settings")
    if "to" not in given:
        raise click.UsageError("Missing option '--to'")
    for name in ("settings", "chosen"):
        if name in given:
            raise click.UsageError(f"{_spelled(given[name])} does nothing with BEFORE and AFTER; leave it out")
    return True


def _spelled(parameter: click.Parameter) -> str:
    return "/".join((*parameter.opts, *parameter.secondary_opts))


def _listed(path: str | None, chosen: Sequence[str]) -> Settings:
    found = read_settings(find_settings() if path is None else path)
    listed = found.only(chosen)
    of = f"{len(listed.pairs)} of " if len(listed.pairs) < len(found.pairs) else ""
    click.echo(f"normswap: {of}{counted(len(found.pairs), 'pair')} in {found.path}", err=True)
    return listed
