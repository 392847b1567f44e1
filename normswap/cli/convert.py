"""convert: the BatchNorm layers of a model converted, the result verified, and written if it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

import normswap
from normswap.cli import checkpoints
from normswap.cli.idle import raise_for_idle, raise_for_idle_with_checkpoints
from normswap.cli.options import REPORTS, options, options_of, parameters_in, report_format_of
from normswap.cli.output import prints_aside, show_outcomes
from normswap.cli.pair import Pair
from normswap.cli.progress import ProgressBar
from normswap.cli.source import is_checkpoint, source_of
from normswap.errors import NormswapError
from normswap.files import check_writable
from normswap.norms import make_norm
from normswap.options import Converting
from normswap.report import Progress
from normswap.reports.files import check_reports
from normswap.reports.outcome import Outcome
from normswap.words import counted

__all__ = ["convert"]


@click.command()
@click.argument("model", type=click.Path())
@options("to")
@click.option("-o", "--output", required=True, type=click.Path(), help="The file to write.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@options_of(Converting)
@options_of(Pair, "weights")
@options(*REPORTS)
def convert(
    model: str,
    to: str,
    weights: str | None,
    output: str,
    force: bool,
    report_format: str | None,
    as_json: bool,
    reports: tuple[str, ...],
    **given: Any,
) -> int:
    """Convert the BatchNorm layers of MODEL, verify the result, and write it if it holds.

    MODEL is an .onnx or .pt2 file, package.module:factory, or a checkpoint (.pth, .safetensors) by itself. For a
    factory's model the suffix of OUT selects weights (.pth, .safetensors) or an export (.onnx, .pt2).
    """
    report_format = report_format_of(report_format, as_json)
    check_reports("convert", report_format, reports, [model])
    report, written, trouble = None, None, ""
    try:
        with prints_aside(), ProgressBar() as progress:
            report, written = _converted(model, to, weights, output, force, given, progress)
    except NormswapError as error:
        trouble = str(error)
    outcome = Outcome(output, model, output, to, report, trouble, None if written is None else str(written))
    if report is not None and report_format == "text":
        click.echo(f"{counted(len(report.planned), 'BatchNorm layer')} -> {to}: {report.meaning}")
    show_outcomes([outcome], "convert", report_format, reports)
    if written and report_format == "text":
        click.echo(f"wrote {written}")
    if report is not None and not report.ok:
        click.echo("normswap: nothing was written, because the conversion did not verify", err=True)
    return outcome.exit_code


def _converted(
    model: str,
    to: str,
    weights: str | None,
    output: str,
    force: bool,
    given: Mapping[str, Any],
    progress: Progress,
) -> tuple[normswap.Report, Path | None]:
    raise_for_idle(given)
    norm = make_norm(to, **parameters_in(given))
    source = source_of(model, weights)
    if is_checkpoint(source):
        raise_for_idle_with_checkpoints(given)
        return checkpoints.convert(source, norm, output, only=given["only"], skip=given["skip"], force=force)
    if weights is not None:
        check_writable(output, [Path(weights)], force=force)
    names = [declared.name for declared in fields(Converting) if declared.name in given]
    chosen = {name: given[name] for name in names}
    conversion = normswap.convert(source, norm, output=output, force=force, progress=progress, **chosen)
    return conversion.report, conversion.written
