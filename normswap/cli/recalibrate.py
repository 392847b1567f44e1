"""recalibrate: new running statistics from data, from one shard of data, or from the moments of all shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from normswap.cli.options import REPORTS, options, options_of, report_format_of
from normswap.cli.output import prints_aside, show
from normswap.cli.pair import Pair
from normswap.cli.progress import ProgressBar
from normswap.cli.source import is_checkpoint, source_of
from normswap.data import batches_of
from normswap.errors import SelectionError
from normswap.files import check_writable
from normswap.options import Images
from normswap.recalibration.collecting import collected
from normswap.recalibration.options import Recalibrating, RecalibrationOptions
from normswap.recalibration.processes import process_group, rank_and_size
from normswap.recalibration.report import Collected, Recalibration
from normswap.recalibration.run import recalibrate_selected, recalibrate_with
from normswap.recalibration.selection import Selection, check_output, selection
from normswap.recalibration.shards import Shard, merge_shards, parse_shard, write_shard
from normswap.reports import recalibration as reported
from normswap.reports.document import Document
from normswap.reports.files import check_reports

__all__ = ["recalibrate"]


@click.command()
@click.argument("model", type=click.Path())
@click.argument("shards", type=click.Path(), nargs=-1, metavar="[SHARD.npz]...")
@click.option("--inputs", type=click.Path(), metavar="DATA", help="Data that the statistics are collected from.")
@click.option("-o", "--output", required=True, type=click.Path(), help="The file to write.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@options_of(Pair, "weights")
@click.option("--batch-size", type=click.IntRange(min=1), help="Samples in each batch, as in training.")
@options_of(Images)
@options_of(Recalibrating)
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
    batch_size: int | None,
    scale: str | None,
    size: str | None,
    shard: str | None,
    merge: bool,
    report_format: str | None,
    as_json: bool,
    reports: tuple[str, ...],
    **given: Any,
) -> int:
    """Give the BatchNorm layers of MODEL new running statistics, those of DATA, and change nothing else.

    MODEL is an .onnx file or package.module:factory, whose weights are written (.pth, .safetensors). DATA is an .npz
    file of arrays by input name, an .npy file, or a folder of those or of PNG or JPEG images. Under torchrun each
    process takes its share of the batches; with --shard, independent runs do.
    """
    report_format = report_format_of(report_format, as_json)
    check_reports("recalibrate", report_format, reports, [model, *shards, *filter(None, (inputs, weights))])
    data = {"inputs": inputs, "batch_size": batch_size, "scale": scale, "size": size}
    with process_group():
        first = rank_and_size()[0] == 0
        with prints_aside(), ProgressBar() as progress:
            asked = RecalibrationOptions(output=output, force=force, progress=progress if first else None, **given)
            _raise_for_idle({**data, "shard": shard, "sequential": asked.sequential}, shards, merge, asked.momentum)
            done = _carried_out(model, weights, data, asked, shard, shards if merge else None)
        document = _document(done, model)
        if not first:
            return document.exit_code
    show(document, report_format, reports)
    if done.written and report_format == "text":
        click.echo(f"wrote {done.written}")
    return document.exit_code


def _document(done: Recalibration | Collected, model: str) -> Document:
    return reported.collected(done, model) if isinstance(done, Collected) else reported.recalibrated(done, model)


def _carried_out(
    model: str,
    weights: str | None,
    data: Mapping[str, Any],
    asked: RecalibrationOptions,
    shard: str | None,
    merged: Sequence[str] | None,
) -> Recalibration | Collected:
    """Choose the layers, then collect from data, collect a shard, or merge the shards that are given."""
    assert asked.output is not None, "it is required"
    if is_checkpoint(model):
        raise SelectionError(
            f"{model}: a checkpoint cannot be run on data; give the model as package.module:factory --weights"
        )
    source = source_of(model, weights)
    if weights is not None:
        check_writable(asked.output, [Path(weights)], force=asked.force)
    chosen = selection(source, asked)
    if merged is not None:
        check_output(chosen, asked.output, force=asked.force)
        return recalibrate_with(chosen, merge_shards(chosen, _hash_of(chosen, model), merged), asked)
    batches = batches_of(
        data["inputs"],
        inputs=chosen.backend.inputs(chosen.model).declared,
        batch_size=data["batch_size"],
        scale=data["scale"],
        size=data["size"],
    )
    if shard is None:
        return recalibrate_selected(chosen, batches, asked)
    index, count = parse_shard(shard)
    digest = _hash_of(chosen, model)
    check_writable(asked.output, [Path(model)], force=asked.force)
    seen = collected(chosen, batches, share=(index - 1, count), progress=asked.progress)
    written = write_shard(Shard(digest, tuple(chosen.names), index, count, seen), asked.output, force=asked.force)
    samples = {name: moments.samples for name, moments in seen.moments.items()}
    return Collected(shard, samples, tuple(seen.notes), written)


def _raise_for_idle(given: Mapping[str, Any], shards: Sequence[str], merge: bool, momentum: float | None) -> None:
    """Refuse options that are missing, or would do nothing because of others."""
    if merge:
        if not shards:
            raise SelectionError("--merge takes the files that --shard wrote; name all of them after MODEL")
        for name, value in given.items():
            if value:
                option = f"--{name.replace('_', '-')}"
                raise SelectionError(f"{option} does nothing with --merge, which runs no model; leave it out")
        return
    if shards:
        raise SelectionError(f"{shards[0]}: files of moments are for --merge; give it, or leave them out")
    if given["inputs"] is None:
        raise SelectionError("there are no data to collect statistics from; give --inputs")
    if given["shard"] is not None and given["sequential"]:
        raise SelectionError(
            "--sequential takes each layer's statistics of all data before the next layer's are collected, which "
            "shards cannot exchange; leave one of them out"
        )
    if given["shard"] is not None and momentum is not None:
        raise SelectionError("--momentum is for the run that stores the statistics; give it with --merge")


def _hash_of(chosen: Selection, named: str) -> str:
    """Hash the model's file, by which shards of one model are recognized."""
    from normswap.backends.onnx_graph.graph.model import OnnxModel

    if not isinstance(chosen.model, OnnxModel):
        raise SelectionError(
            f"{named}: shards are for .onnx files, which have a hash; run it under torchrun, or recalibrate an export"
        )
    return chosen.model.sha256()
