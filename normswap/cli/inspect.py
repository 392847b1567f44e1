"""inspect: the BatchNorm layers of a model, and what a conversion would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import click

from normswap.backends.look import look
from normswap.backends.torch.checkpoint import layers_in, read_checkpoint
from normswap.cli.idle import raise_for_idle_with_checkpoints
from normswap.cli.options import REPORTS, TARGETS, options, options_of, parameters_in, report_format_of
from normswap.cli.output import prints_aside, show
from normswap.cli.pair import Pair
from normswap.cli.source import is_checkpoint, source_of
from normswap.layer import NormLayer
from normswap.norms import Norm, all_parameters, make_norm
from normswap.options import Planning, Scope, keywords_of
from normswap.plan import Plan, make_plan
from normswap.reports.files import check_reports
from normswap.reports.inspection import inspected
from normswap.reports.outcome import EQUAL

__all__ = ["inspect"]


@click.command()
@click.argument("model", type=click.Path())
@click.option("--to", metavar=TARGETS, help="Show what converting to this target would change.")
@options_of(Planning)
@options_of(Pair, "weights")
@options(*REPORTS)
def inspect(
    model: str,
    to: str | None,
    weights: str | None,
    report_format: str | None,
    as_json: bool,
    reports: tuple[str, ...],
    **given: Any,
) -> int:
    """List the BatchNorm layers of MODEL, and what a conversion would do (a dry run).

    MODEL is an .onnx or .pt2 file, package.module:factory, or a checkpoint (.pth, .safetensors). With --inputs or
    --shape a factory's model is run once, so that the shapes of its layers are known.
    """
    report_format = report_format_of(report_format, as_json)
    check_reports("inspect", report_format, reports, [model, *filter(None, (weights, given["inputs"]))])
    parameters = parameters_in(given)
    if to is None and (parameters or any(given[name] for name in ("only", "skip", "for_runtime"))):
        names = ", ".join(["--only", "--skip", "--for", *(f"--{name}" for name in all_parameters())])
        raise click.UsageError(f"{names} choose what is converted and how; give --to as well")
    norm = None if to is None else make_norm(to, **parameters)
    scope = Scope(**{declared.name: given[declared.name] for declared in fields(Scope)})
    with prints_aside():
        layers, planned, remarks = _inspected(source_of(model, weights), norm, scope, given["for_runtime"])
    show(inspected(model, layers, planned, remarks), report_format, reports)
    return EQUAL


def _inspected(
    source: Any, norm: Norm | None, scope: Scope, for_runtime: str | None
) -> tuple[Sequence[NormLayer], Plan | None, list[str]]:
    """Return the layers of a model, what would become of them, and what else a person should know."""
    if is_checkpoint(source):
        raise_for_idle_with_checkpoints({**keywords_of(scope), "for_runtime": for_runtime})
        layers = layers_in(read_checkpoint(source))
        planned = None if norm is None else make_plan(norm, layers, only=scope.only, skip=scope.skip)
        return layers, planned, ["a checkpoint does not say what its layers compute, nor their eps and shapes"]
    looked = look(source, scope)
    planned = None if norm is None else looked.plan(norm, scope, for_runtime)
    return looked.layers, planned, looked.backend.remarks(looked.model, looked.layers)
