"""Diagrams of a diagnosis: the mismatch of each layer, and the statistics of the channels of the worst."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from normswap.layer import Array, Floats
from normswap.words import visible

if TYPE_CHECKING:
    from normswap.diagnosis.layers import LayerFinding

__all__ = ["mismatch_of_layers", "statistics_of_channels"]

_LEAST, _MOST = -4, 1  # powers of ten between which mismatches are coloured
_LOOK: Any = {"font.size": 9, "axes.titlesize": 9, "figure.facecolor": "white", "savefig.dpi": 110}


def mismatch_of_layers(layers: Sequence[LayerFinding]) -> bytes:
    """Draw layers by measures, in nats, on one logarithmic scale of colours; return a PNG."""
    rows = [
        [found.trained.spread, found.trained.staleness, found.eval.spread, found.eval.staleness] for found in layers
    ]
    values = np.array(rows)
    with mpl.rc_context(rc=_LOOK):
        figure = Figure(figsize=(8.5, 1.2 + 0.3 * len(layers)), layout="constrained")
        axes = figure.subplots()
        coloured = np.log10(np.maximum(values, 10.0**_LEAST))
        image = axes.imshow(coloured, cmap="cividis", aspect="auto", vmin=_LEAST, vmax=_MOST)
        axes.set_xticks(range(4), ["spread", "staleness"] * 2)
        above = axes.secondary_xaxis("top")
        above.set_xticks([0.5, 2.5], ["under batch statistics", "in eval mode"])
        above.tick_params(length=0)
        axes.axvline(1.5, color="white", linewidth=3)
        axes.set_yticks(range(len(layers)), [_short(found.layer.name) for found in layers])
        for (row, column), value in np.ndenumerate(values):
            number = "?" if np.isnan(value) else f"{value:.2g}"
            axes.text(column, row, number, ha="center", va="center", color="black" if value > 0.1 else "white")
        bar = figure.colorbar(image, ax=axes, label="nats", ticks=range(_LEAST, _MOST + 1))
        bar.ax.set_yticklabels([f"≤ {10.0**_LEAST:g}", *(f"{10.0**power:g}" for power in range(_LEAST + 1, _MOST + 1))])
        return _png(figure)


def statistics_of_channels(layers: Sequence[LayerFinding], most: int) -> bytes:
    """Draw stored statistics against those of samples, a point for each channel; return a PNG.

    Args:
        layers: Layers that were seen; of those with the most mismatch, the channels are drawn.
        most: How many of them.
    """
    worst = sorted(layers, key=lambda found: -np.nan_to_num(found.trained.spread + found.trained.staleness))[:most]
    with mpl.rc_context(rc=_LOOK):
        figure = Figure(figsize=(3.5 * len(worst), 6.6), layout="constrained")
        for column, found in zip(figure.subplots(2, len(worst), squeeze=False).T, worst, strict=True):
            moments, layer = found.trained.moments, found.layer
            assert moments is not None and layer.running_mean is not None and layer.running_var is not None, (
                "a layer that was seen has them"
            )
            mean, within, total = moments.mean, moments.within, moments.sample_var
            deviation = np.sqrt(np.maximum(moments.between_var, 0))
            of_means, of_variances = column
            _against(of_means, layer.running_mean, mean, (deviation, deviation), "mean")
            of_means.set(title=_short(layer.name), ylabel="mean of the samples, ± its spread")
            _against(of_variances, layer.running_var, within, (np.zeros_like(within), total - within), "variance")
            of_variances.set(ylabel="variance within a sample, up to that of all")
            if (layer.running_var > 0).all() and (within > 0).all():
                of_variances.set(xscale="log", yscale="log")
        return _png(figure)


def _against(axes: Any, stored: Array, seen: Floats, bars: tuple[Floats, Floats], what: str) -> None:
    """Draw stored against seen values, and the line on which they are the same."""
    stored = stored.astype(np.float64)
    axes.errorbar(stored, seen, yerr=np.maximum(bars, 0), fmt="o", markersize=3, linewidth=0.8, alpha=0.7)
    ends = [min(stored.min(), seen.min()), max(stored.max(), seen.max())]
    axes.plot(ends, ends, color="0.5", linewidth=0.8)
    axes.set(xlabel=f"stored {what}")


def _short(name: str) -> str:
    name = visible(name).removesuffix("/BatchNormalization_output_0").replace("$", r"\$")
    return name if len(name) <= 40 else f"…{name[-39:]}"


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
