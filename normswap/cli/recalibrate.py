"""recalibrate: new running statistics from data."""

from __future__ import annotations

from typing import Any

import click

from normswap.cli.options import REPORTS, form_of, options, options_of
from normswap.cli.output import prints_aside, show
from normswap.cli.pair import Pair
from normswap.cli.progress import ProgressBar
from normswap.recalibration.report import Gathered, Recalibration
from normswap.reports.document import Document
from normswap.reports.files import check_reports
from normswap.reports.recalibration import gathered, recalibrated

__all__ = ["recalibrate"]


@click.command()
@click.argument("model", type=click.Path())
@click.argument("shards", type=click.Path(), nargs=-1, metavar="[SHARD.npz]...")
@click.option("--inputs", type=click.Path(), metavar="DATA", help="What the statistics are gathered from.")
@click.option("-o", "--output", required=True, type=click.Path(), help="The file to write.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@options_of(Pair, "weights")
@click.option("--batch-size", type=click.IntRange(min=1), help="Samples in each batch, as in training.")
@options("scale", "size")
@click.option("--momentum", type=float, help="Share of the new statistics; without it they replace the old.")
@click.option("--sequential", is_flag=True, help="Layer by layer, as in eval mode: one pass for each layer.")
@click.option("--only", multiple=True, metavar="GLOB", help="Layers to recalibrate; repeatable.")
@click.option("--skip", multiple=True, metavar="GLOB", help="Layers to leave; repeatable.")
@click.option("--shard", metavar="I/N", help="Take every N-th batch, and write moments (.npz) that --merge takes.")
@click.option("--merge", is_flag=True, help="Finish with the moments of all shards, given after MODEL.")
@options(*REPORTS)
def recalibrate(
    model: str,
    shards: tuple[str, ...],
    inputs: str | None,
    output: str,
    force: bool,
    weights: str | None,
    form: str | None,
    as_json: bool,
    reports: tuple[str, ...],
    shard: str | None,
    merge: bool,
    **options: Any,
) -> int:
    """Give the BatchNorm layers of MODEL new running statistics, those of DATA, and change nothing else.

    MODEL is an .onnx file or package.module:factory, of which the weights are written (.pth, .safetensors). DATA is an
    .npz of arrays by input name, an .npy, or a folder of those or of PNG or JPEG images. Under torchrun each process
    takes its share of the batches; with --shard, runs that know nothing of each other do.
    """
    from normswap.cli.recalibration import Asked, carried_out
    from normswap.recalibration.processes import process_group, rank_and_size

    form = form_of(form, as_json)
    check_reports("recalibrate", form, reports, [model, *shards, *filter(None, (inputs, weights))])
    asked = Asked(model, output, weights, inputs, shards=shards, shard=shard, merge=merge, force=force, **options)
    with process_group():
        first = rank_and_size()[0] == 0
        with prints_aside(), ProgressBar() as progress:
            done = carried_out(asked, progress if first else None)
        if not first:
            return _document(done, model).exit_code
    document = _document(done, model)
    show(document, form, reports)
    if done.written and form == "text":
        click.echo(f"wrote {done.written}")
    return document.exit_code


def _document(done: Recalibration | Gathered, model: str) -> Document:
    return gathered(done, model) if isinstance(done, Gathered) else recalibrated(done, model)
