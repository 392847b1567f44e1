"""diagnose: what eval mode costs a model on some data, and which fix is right."""

from __future__ import annotations

import click

import normswap
from normswap.cli.options import REPORTS, form_of, options, options_of
from normswap.cli.output import prints_aside, show
from normswap.cli.pair import Pair
from normswap.cli.progress import ProgressBar
from normswap.cli.source import source_of
from normswap.data import SCALES, parse_size
from normswap.reports.diagnosis import diagnosed
from normswap.reports.files import check_reports
from normswap.reports.outcome import EQUAL, INTERRUPTED

__all__ = ["diagnose"]


@click.command()
@click.argument("model", type=click.Path())
@click.option("--inputs", required=True, type=click.Path(), metavar="DATA", help="An .npz or .npy file, or a folder.")
@click.option("--targets", type=click.Path(), metavar="DATA", help="What the outputs should be.")
@options_of(Pair, "weights")
@click.option(
    "--error",
    type=click.Choice(["l1", "psnr"]),
    default="l1",
    show_default=True,
    help="How the error of an output is measured.",
)
@click.option(
    "--batch-size",
    multiple=True,
    type=click.IntRange(min=1),
    help="Number of samples for batch statistics. Repeatable.",
)
@options("scale", "size")
@click.option("-o", "--output", type=click.Path(), metavar="FILE", help="Like --report FILE; also prints its name.")
@options(*REPORTS)
def diagnose(
    model: str,
    inputs: str,
    targets: str | None,
    weights: str | None,
    error: str,
    batch_size: tuple[int, ...],
    scale: str | None,
    size: str | None,
    output: str | None,
    form: str | None,
    as_json: bool,
    reports: tuple[str, ...],
) -> int:
    """Show what eval mode costs MODEL on these data, and which fix is right.

    MODEL is an .onnx file or package.module:factory. DATA is an .npz file of arrays by input name, an .npy file, or a
    folder of those or of PNG or JPEG images. Without --targets, the outputs of train mode are the targets.
    """
    form = form_of(form, as_json)
    reports = (*reports, *filter(None, [output]))
    check_reports("diagnose", form, reports, [model, inputs, *filter(None, (targets, weights))])
    with prints_aside(), ProgressBar() as progress:
        found = normswap.diagnose(
            source_of(model, weights),
            inputs,
            targets=targets,
            error=error,
            batch_size=batch_size,
            scale=SCALES[scale] if scale else None,
            size=parse_size(size) if size else None,
            progress=progress,
        )
    show(diagnosed(found, model), form, reports)
    if output is not None and form == "text":
        click.echo(f"wrote {output}")
    return EQUAL if found.complete else INTERRUPTED
