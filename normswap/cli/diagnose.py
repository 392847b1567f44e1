"""diagnose: what eval mode costs a model on some data, and which fix is right."""

from __future__ import annotations

from typing import Any

import click

import normswap
from normswap.cli.options import REPORTS, options, options_of, report_format_of
from normswap.cli.output import prints_aside, show
from normswap.cli.pair import Pair
from normswap.cli.progress import ProgressBar
from normswap.cli.source import source_of
from normswap.diagnosis.options import Diagnosing
from normswap.reports.diagnosis import diagnosed
from normswap.reports.files import check_reports
from normswap.reports.outcome import EQUAL, INTERRUPTED

__all__ = ["diagnose"]


@click.command()
@click.argument("model", type=click.Path())
@click.option("--inputs", required=True, type=click.Path(), metavar="DATA", help="An .npz or .npy file, or a folder.")
@options_of(Diagnosing)
@options_of(Pair, "weights")
@click.option("-o", "--output", type=click.Path(), metavar="FILE", help="Like --report FILE; also prints its name.")
@options(*REPORTS)
def diagnose(
    model: str,
    inputs: str,
    weights: str | None,
    output: str | None,
    report_format: str | None,
    as_json: bool,
    reports: tuple[str, ...],
    **given: Any,
) -> int:
    """Show what eval mode costs MODEL on these data, and which fix is right.

    MODEL is an .onnx file or package.module:factory. DATA is an .npz file of arrays by input name, an .npy file, or a
    folder of those or of PNG or JPEG images. Without --targets, the outputs of train mode are the targets.
    """
    report_format = report_format_of(report_format, as_json)
    reports = (*reports, *filter(None, [output]))
    check_reports("diagnose", report_format, reports, [model, inputs, *filter(None, (given["targets"], weights))])
    with prints_aside(), ProgressBar() as progress:
        found = normswap.diagnose(source_of(model, weights), inputs, progress=progress, **given)
    show(diagnosed(found, model), report_format, reports)
    if output is not None and report_format == "text":
        click.echo(f"wrote {output}")
    return EQUAL if found.complete else INTERRUPTED
