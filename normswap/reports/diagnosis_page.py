"""The page of a diagnosis: the outputs as images, the ways of running the model, and why: the layers and channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normswap.reports.blocks import (
    Bar,
    Block,
    Cell,
    Code,
    Column,
    Drawing,
    Gallery,
    Image,
    Items,
    Paragraph,
    Row,
    Table,
)
from normswap.reports.pixels import image_pixels, scale_of
from normswap.words import counted, three_digits

if TYPE_CHECKING:
    from normswap.diagnosis.findings import Diagnosis

__all__ = ["layer_table", "mode_table", "page_of"]

_DRAWN = 3  # layers whose channels are drawn, those with the most mismatch
_LAYERS = (
    "How far the stored statistics of each layer are from those of each sample, in nats, the mean over channels. "
    "Spread is how much samples differ, which stored statistics cannot remove. Staleness is what recalibration "
    "removes. Both are measured under the statistics of each batch, as in training, and in eval mode, where the input "
    "of deep layers has shifted with the layers before them."
)


def page_of(diagnosis: Diagnosis) -> list[Block]:
    """Return all that a diagnosis holds."""
    thin = [f"The evidence is thin: {sentence}." for sentence in diagnosis.verdict.thin]
    blocks: list[Block] = [Items(thin, failed=True)] if thin else []
    blocks += _strip(diagnosis)
    blocks.append(mode_table(diagnosis, bars=True))
    if diagnosis.fewest is not None:
        fewest = diagnosis.fewest
        sentence = (
            f"These {len(fewest.names)} of {fewest.of} layers, converted, come to within {fewest.distance:.1%} of the "
            "spread of the outputs of converting all:"
        )
        blocks += [Paragraph(sentence, "The fewest layers"), Paragraph(Code(fewest.options))]
    blocks += [*_drawings(diagnosis), layer_table(diagnosis)]
    return [*blocks, Items(diagnosis.notes, "Notes")] if diagnosis.notes else blocks


def _strip(diagnosis: Diagnosis) -> list[Block]:
    """Return the first samples as images: outputs are on the scale of the target or of train mode."""
    strip = diagnosis.strip
    if not strip:
        return []
    outputs = [what for what in strip if what != "input"]
    scale = scale_of(strip[outputs[-1]])
    columns = [what for what in ("input", *(mode.name for mode in diagnosis.modes), "target") if what in strip]
    rows = [
        [Image(image_pixels(strip[what][sample], scale), f"{what} of sample {sample + 1}") for what in columns]
        for sample in range(len(strip[columns[0]]))
    ]
    return [Gallery("strip", columns, rows, "What the outputs look like")]


def mode_table(diagnosis: Diagnosis, *, bars: bool = False) -> Table:
    """Return the ways of running the model, with their errors as bars too."""
    troubled = any(mode.trouble for mode in diagnosis.modes)
    columns = [Column("way"), Column(diagnosis.measure, "number"), Column("±", "number")]
    columns += [Column("the same, as a bar", "share")] * bars
    columns += [Column("from train mode", "number"), *[Column("why it was not run", "where")] * troubled]
    rows = []
    for mode in diagnosis.modes:
        name = f"{mode.name} ◀ advised" if mode.name == diagnosis.verdict.mode else mode.name
        cells: list[Cell] = [name, three_digits(mode.error), three_digits(mode.error_std)]
        cells += [None if mode.error is None else Bar(mode.error)] * bars
        cells += ["" if mode.trouble else f"{mode.distance:.1%}", *[mode.trouble] * troubled]
        rows.append(Row(cells))
    caption = (
        f"{diagnosis.measure} against the targets, where there are any: the mean over samples, with its standard "
        "error. Distance from train mode, as a share of the spread of its outputs."
    )
    return Table("modes", columns, rows, "Ways of running it", caption)


def layer_table(diagnosis: Diagnosis) -> Table:
    """Return the layers with their mismatch."""
    columns = [
        Column("layer"),
        *(
            Column(f"{what}, {how}", "number")
            for how in ("batch statistics", "eval mode")
            for what in ("spread", "staleness")
        ),
        Column("what the stored statistics look like"),
    ]
    rows = []
    for found in diagnosis.layers:
        numbers = [number for given in (found.trained, found.eval) for number in (given.spread, given.staleness)]
        rows.append(Row((Code(found.layer.name), *map(three_digits, numbers), "; ".join(found.remarks))))
    caption = "Mismatch between stored statistics and those of each sample, in nats, the mean over channels."
    return Table("layers", columns, rows, "Layers", caption)


def _drawings(diagnosis: Diagnosis) -> list[Block]:
    from normswap.reports import drawings

    seen = [found for found in diagnosis.layers if found.trained.mismatch is not None]
    if not seen:
        return []
    channels = (
        f"The {counted(min(len(seen), _DRAWN), 'layer')} with the most mismatch, a point for each channel. On the "
        "line, the stored value is that of the samples. Bars of means are the standard deviation between samples. "
        "Bars of variances go from the mean variance within a sample up to that of all samples together: stored "
        "variances at the foot are those of batches of one, at the top those of large batches."
    )
    return [
        Drawing(
            lambda: drawings.mismatch_of_layers(seen),
            "Spread and staleness of each layer; the table below has the numbers",
            "Why: the layers",
            _LAYERS,
        ),
        Drawing(
            lambda: drawings.statistics_of_channels(seen, _DRAWN),
            "Stored means and variances against those of the samples, channel by channel",
            "Why: the channels",
            channels,
        ),
    ]
