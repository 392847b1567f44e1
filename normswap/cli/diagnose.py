"""diagnose: what eval mode costs a model on some data, and which fix is right."""

from __future__ import annotations

import json

import click

import normswap
from normswap.cli.options import options, options_of
from normswap.cli.output import prints_aside
from normswap.cli.pair import Pair
from normswap.cli.progress import ProgressBar
from normswap.cli.source import source_of
from normswap.data import SCALES, parse_size
from normswap.reports.outcome import EQUAL, INTERRUPTED

__all__ = ["diagnose"]


@click.command()
@click.argument("model", type=click.Path())
@click.option("--inputs", required=True, type=click.Path(), metavar="DATA", help="An .npz, .npy, or a folder.")
@click.option("--targets", type=click.Path(), metavar="DATA", help="What the outputs should be.")
@options_of(Pair, "weights")
@click.option("--error", type=click.Choice(["l1", "psnr"]), default="l1", show_default=True, help="Of outputs.")
@click.option(
    "--batch-size", multiple=True, type=click.IntRange(min=1), help="Samples of batch statistics; repeatable."
)
@options("scale", "size")
@click.option("-o", "--output", type=click.Path(), metavar="REPORT.html", help="Write a page, too.")
@options("json")
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
    as_json: bool,
) -> int:
    """Say what eval mode costs MODEL on these data, and which fix is right.

    MODEL is an .onnx file or package.module:factory. DATA is an .npz of arrays by input name, an .npy, or a folder of
    those or of PNG or JPEG images. Without --targets, train mode is taken for what is right.
    """
    from normswap.diagnosis.output import check_page, write_page

    if output is not None:
        check_page(output, [model, inputs, *filter(None, (targets, weights))])
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
    click.echo(json.dumps(found.to_dict(), indent=2) if as_json else found.to_text())
    if output is not None:
        write_page(found, model, output)
        if not as_json:
            click.echo(f"wrote {output}")
    return EQUAL if found.complete else INTERRUPTED
