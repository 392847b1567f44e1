"""inspect: the BatchNorm layers of a model, and what a conversion would do."""

from __future__ import annotations

import json
from typing import Any

import click

from normswap.cli.inspection import inspection, listing
from normswap.cli.options import TARGETS, options
from normswap.cli.output import console, prints_aside
from normswap.cli.pair import is_checkpoint, raise_for_idle_with_checkpoints, source_of
from normswap.norms.blend import Over
from normswap.reports.outcome import EQUAL

__all__ = ["inspect"]


@click.command()
@click.argument("model", type=click.Path())
@click.option("--to", metavar=f"[{TARGETS}]", help="Show what converting to this target would change.")
@options("prior", "over", "weights", "for", "only", "skip", "drop_statistics", "inputs", "shape", "json")
def inspect(
    model: str,
    weights: str | None,
    to: str | None,
    prior: float | None,
    over: Over | None,
    for_runtime: str | None,
    as_json: bool,
    drop_statistics: bool,
    inputs: str | None,
    shapes: dict[str, tuple[int, ...]],
    **choice: Any,
) -> int:
    """List the BatchNorm layers of MODEL, and what a conversion would do (a dry run).

    MODEL is an .onnx or .pt2 file, package.module:factory, or a checkpoint (.pth, .safetensors). With --inputs or
    --shape a factory's model is run once, so that the shapes of its layers are known.
    """
    from normswap.backends import backend_for
    from normswap.norms import make_norm
    from normswap.plan import make_plan
    from normswap.runtimes.choice import choose_for

    if to is None and (any(choice.values()) or for_runtime or prior is not None or over):
        raise click.UsageError(
            "--only, --skip, --for, --prior and --over choose what is converted and how; give --to as well"
        )
    norm = None if to is None else make_norm(to, prior=prior, over=over)
    choose = None
    with prints_aside():
        source = source_of(model, weights)
        if is_checkpoint(source):
            from normswap.backends.torch.checkpoint import layers_in, read_checkpoint

            given = {"inputs": inputs, "shapes": shapes, "drop_statistics": drop_statistics}
            raise_for_idle_with_checkpoints(given | {"for_runtime": for_runtime})
            layers = layers_in(read_checkpoint(source))
            remarks = ["a checkpoint does not say what its layers compute, nor their eps and shapes"]
        else:
            backend = backend_for(source)
            loaded = backend.load(source)
            if drop_statistics:
                loaded = backend.without_statistics(loaded)
            if inputs or shapes:
                loaded = backend.observe(
                    loaded, lambda model: backend.feeds(model, inputs, shapes, 0), given=inputs is not None
                )
            layers = backend.find(loaded)
            remarks = backend.remarks(loaded, layers)
            choose = (
                None
                if norm is None
                else choose_for(norm, for_runtime, loaded.opset if backend.RUNS_ELSEWHERE else None)
            )
    planned = None if norm is None else make_plan(norm, layers, choose=choose, **choice)
    if as_json:
        click.echo(json.dumps(inspection(model, layers, planned, remarks), indent=2))
    else:
        to_console = console()
        for line in listing(layers, planned, remarks):
            to_console.print(line)
    return EQUAL
