"""Outputs that are images: original, converted and difference, for each way in which the converted model was run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from normswap.layer import Array, Floats
from normswap.reports.blocks import Block, Fold, Gallery, Image, Paragraph, Swatch, Text
from normswap.reports.pixels import Scale, difference_of, difference_pixels, image_pixels, scale_of
from normswap.words import counted, short_number

if TYPE_CHECKING:
    from normswap.report import Picture, Report

__all__ = ["galleries_of"]

_OUTPUTS = 6  # shown as images


def galleries_of(report: Report) -> list[Block]:
    """Return the outputs of a report that are images."""
    names = list(dict.fromkeys(picture.name for picture in report.pictures))
    blocks: list[Block] = []
    for name in islice(names, _OUTPUTS):
        blocks += _output([picture for picture in report.pictures if picture.name == name], report.meaning)
    if len(names) > _OUTPUTS:
        blocks.append(Paragraph(f"{len(names) - _OUTPUTS} more outputs are images. A page shows {_OUTPUTS}."))
    return blocks


class _Run(NamedTuple):
    """One way of running the converted model: how far each sample is from the original."""

    picture: Picture
    differences: list[Floats]
    most: float
    undefined: bool

    @classmethod
    def of(cls, picture: Picture) -> _Run:
        differences = [difference_of(*pair) for pair in zip(picture.expected, picture.found, strict=True)]
        arrays = (picture.expected, picture.found)
        undefined = any(not np.isfinite(array.astype(np.float64)).all() for array in arrays)
        return cls(picture, differences, max(map(_largest, differences)), undefined)


def _output(pictures: Sequence[Picture], meaning: str) -> list[Block]:
    scale = scale_of(pictures[0].expected)
    first, *others = sorted(map(_Run.of, pictures), key=lambda run: (not run.undefined, -run.most))
    low, high = map(short_number, scale)
    samples = len(pictures[0].expected)
    intro = (
        f"The original is run with its BatchNorms as {meaning}. Black is {low} and white {high}; values outside this "
        f"range are cut off. {counted(samples, 'sample')} shown."
    )
    blocks: list[Block] = [_gallery(first, scale, original=True, heading="Images of output", intro=intro)]
    for run in others:
        title = f"{run.picture.how}: difference at most {short_number(run.most)}"
        blocks.append(Fold(title, [_gallery(run, scale, original=False)]))
    return blocks


def _gallery(run: _Run, scale: Scale, *, original: bool, heading: str = "", intro: str = "") -> Gallery:
    picture = run.picture
    rows = []
    for number, difference in enumerate(run.differences):
        sample = f"sample {number + 1} of {picture.name}"
        most = f"at most {short_number(_largest(difference))}"
        before, after = (image_pixels(array[number], scale) for array in (picture.expected, picture.found))
        row = [
            Image(after, f"{sample}, converted, {picture.how}"),
            Image(
                difference_pixels(difference, picture.bound, run.most),
                f"{sample}, difference, {picture.how}: {most}",
                most,
            ),
        ]
        rows.append([Image(before, f"{sample}, original"), *row] if original else row)
    columns = [*["original"] * original, f"converted, {picture.how}", f"difference, {picture.how}"]
    return Gallery("images", columns, rows, heading, picture.name if heading else None, intro, _legend(run))


def _legend(run: _Run) -> Text:
    bound, most = run.picture.bound, short_number(run.most)
    legend: list[str | Swatch] = ["Difference: ", Swatch("black"), " none to "]
    if bound is None:
        legend += [Swatch("white"), f" {most}, the largest."]
    else:
        legend += [Swatch("grey"), f" {short_number(bound)}, all that is allowed; "]
        if run.most > bound:
            legend += ["beyond it ", Swatch("red"), " to ", Swatch("yellow"), f" {most}, the largest."]
        else:
            legend.append("nothing is beyond.")
    if run.undefined:
        legend += [" ", Swatch("magenta"), " NaN or infinite (in a difference: on one side only)."]
    return tuple(legend)


def _largest(difference: Array) -> float:
    return float(difference.max(where=np.isfinite(difference), initial=0.0))
