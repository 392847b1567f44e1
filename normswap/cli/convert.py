"""convert: the BatchNorm layers of a model converted, the result verified, and written if it holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

import normswap
from normswap.cli.options import COMPARISON, REPORTS, options
from normswap.cli.output import prints_aside, show
from normswap.cli.pair import is_checkpoint, raise_for_idle, raise_for_idle_with_checkpoints, source_of
from normswap.cli.progress import ProgressBar
from normswap.errors import NormswapError, SelectionError
from normswap.files import as_write_error, check_writable, folder_beside
from normswap.norms import make_norm
from normswap.report import Progress
from normswap.reports.formats import check_reports
from normswap.reports.outcome import Outcome
from normswap.words import counted

__all__ = ["convert"]


@click.command()
@click.argument("model", type=click.Path())
@options("to", "prior", "over", "weights")
@click.option("-o", "--output", required=True, type=click.Path(), help="The file to write.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@options(
    "only",
    "skip",
    *COMPARISON,
    "for",
    "runtime",
    *REPORTS,
)
def convert(
    model: str,
    to: str,
    weights: str | None,
    output: str,
    force: bool,
    form: str,
    reports: tuple[str, ...],
    **given: Any,
) -> int:
    """Convert the BatchNorm layers of MODEL, verify the result, and write it if it holds.

    MODEL is an .onnx or .pt2 file, package.module:factory, or a checkpoint (.pth, .safetensors) by itself. The suffix
    of OUT says what is written of a factory's model: weights (.pth, .safetensors) or an export (.onnx, .pt2).
    """
    check_reports(reports, [model])
    report, written, trouble = None, None, ""
    try:
        with prints_aside(), ProgressBar() as progress:
            report, written = _converted(model, to, weights, output, force, given, progress)
    except NormswapError as error:
        trouble = str(error)
    outcome = Outcome(output, model, output, to, report, trouble, None if written is None else str(written))
    if report is not None and form == "text":
        click.echo(f"{counted(len(report.planned), 'BatchNorm layer')} -> {to}: {report.meaning}")
    show([outcome], form, reports)
    if written and form == "text":
        click.echo(f"wrote {written}")
    if report is not None and not report.ok:
        click.echo("normswap: nothing was written, because the conversion did not verify", err=True)
    return outcome.exit_code


def _converted(
    model: str, to: str, weights: str | None, output: str, force: bool, options: dict[str, Any], progress: Progress
) -> tuple[normswap.Report, Path | None]:
    raise_for_idle(options)
    source = source_of(model, weights)
    if is_checkpoint(source):
        return _convert_checkpoint(source, to, output, force, options)
    if weights is not None:
        check_writable(output, [Path(weights)], force=force)
    conversion = normswap.convert(source, to, output=output, force=force, progress=progress, **options)
    return conversion.report, conversion.written


def _convert_checkpoint(
    path: str, to: str, output: str, force: bool, options: dict[str, Any]
) -> tuple[normswap.Report, Path | None]:
    """Convert a state dict without its model; what was written is read back and compared."""
    from normswap.backends.torch.checkpoint import (
        compare_checkpoints,
        plan_of,
        read_checkpoint,
        without_statistics,
        write_checkpoint,
    )

    raise_for_idle_with_checkpoints(options)
    if not is_checkpoint(output):
        raise SelectionError(
            f"{output}: a checkpoint becomes a checkpoint (.pth, .safetensors); an export takes the model's code: "
            "package.module:factory --weights"
        )
    before = read_checkpoint(path)
    norm = make_norm(to, prior=options["prior"], over=options["over"])
    planned = plan_of(before, norm, only=options["only"], skip=options["skip"])
    target = Path(output)
    check_writable(target, [Path(path)], force=force)
    with as_write_error(target), folder_beside(target) as folder:
        aside = Path(folder) / target.name
        write_checkpoint(without_statistics(before, planned), aside)
        report = compare_checkpoints(before, read_checkpoint(aside), planned)
        if report.ok:
            os.replace(aside, target)
    return report, target if report.ok else None
