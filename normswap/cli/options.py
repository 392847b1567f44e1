"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from normswap.data import SCALES
from normswap.norms import NORMS
from normswap.norms.blend import OVER
from normswap.reports.formats import FORMATS
from normswap.runtimes import OWN, RUNTIMES

__all__ = ["COMPARISON", "REPORTS", "TARGETS", "options"]

TARGETS = "|".join(NORMS)
COMPARISON = ("allow_refusals", "drop_statistics", "inputs", "shape", "seed", "end_to_end")
REPORTS = ("format", "as json", "report")


def _shape(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for value in values:
        name, _sign, dims = value.rpartition("=")
        try:
            shape = tuple(int(dim) for dim in dims.split("x")) if dims else ()
        except ValueError:
            shape = (-1,)
        if not name or any(dim < 1 for dim in shape):
            raise click.BadParameter(f"expected NAME=1x3x256x256, found {value!r}")
        shapes[name] = shape
    return shapes


def options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a command with shared options, in this order."""
    known = {
        "to": click.option("--to", required=True, metavar=f"[{TARGETS}]", help="The target."),
        "prior": click.option(
            "--prior", type=float, metavar="N0",
            help="Of blend: as how many samples the stored statistics count beside those of the input, 16 say.",
        ),
        "over": click.option(
            "--over", metavar=f"[{'|'.join(OVER)}]",
            help="Of blend: whether these are of each sample (default) or of the batch.",
        ),
        "only": click.option("--only", multiple=True, metavar="GLOB", help="Layers to convert; repeatable."),
        "skip": click.option("--skip", multiple=True, metavar="GLOB", help="Layers to leave; repeatable."),
        "may_differ": click.option(
            "--may-differ", multiple=True, metavar="GLOB", help="Converted layers that may differ; repeatable."
        ),
        "allow_refusals": click.option(
            "--allow-refusals", is_flag=True, help="Leave layers that the target cannot take as they are."
        ),
        "drop_statistics": click.option(
            "--drop-statistics", is_flag=True, help="Drop outputs that carry nothing but running statistics."
        ),
        "inputs": click.option(
            "--inputs", type=click.Path(), metavar="FILE.npz", help="End-to-end inputs, arrays by input name."
        ),
        "shape": click.option(
            "--shape", "shapes", multiple=True, callback=_shape, metavar="NAME=1x3x256x256",
            help="Shape of a generated input; repeatable.",
        ),
        "seed": click.option(
            "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of generated inputs and probes."
        ),
        "end_to_end": click.option(
            "--end-to-end/--no-end-to-end", default=True, help="Also run the whole model (default), or not."
        ),
        "runtime": click.option(
            "--runtime", "runtimes", multiple=True, metavar=f"[{'|'.join((*OWN, *RUNTIMES))}]",
            help="Run the converted .onnx file there too; repeatable.",
        ),
        "for": click.option(
            "--for", "for_runtime", metavar="RUNTIME",
            help="Write each layer in the form that this runtime computes rightly and fastest, and run it there.",
        ),
        "weights": click.option(
            "--weights", type=click.Path(), metavar="FILE", help="State dict for a factory: .pth or .safetensors."
        ),
        "scale": click.option(
            "--scale", type=click.Choice(list(SCALES)), help="What black and white of images are for the model."
        ),
        "size": click.option("--size", metavar="WxH", help="Bring images to this size."),
        "json": click.option("--json", "as_json", is_flag=True, help="Print it as JSON."),
        "format": click.option(
            "--format", "form", type=click.Choice(list(FORMATS)), default="text", show_default=True,
            help="How the report is printed.",
        ),
        "as json": click.option("--json", "form", flag_value="json", help="Short for --format json."),
        "report": click.option(
            "--report", "reports", type=click.Path(), multiple=True, metavar="FILE",
            help=f"Write the report too: {', '.join(filter(None, FORMATS.values()))}; repeatable.",
        ),
    }  # fmt: skip

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            function = known[name](function)
        return function

    return decorate
