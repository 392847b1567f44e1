"""The diagnosis as one page that needs nothing else: the verdict, pictures, the layers, and the numbers."""

from __future__ import annotations

import base64
import hashlib
import io
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from normswap import formats
from normswap.diagnose import Diagnosis
from normswap.diagnose.layers import LayerFinding
from normswap.diagnose.verdict import ADVICE
from normswap.pixels import Pixels, image_pixels, scale_of
from normswap.visible import visible

__all__ = ["render"]

_LAYERS = 6  # whose channels are drawn, those with the most mismatch
_MEASURES = ("spread", "staleness")


def render(diagnosis: Diagnosis, model: str, created: datetime) -> str:
    """Return the page.

    Args:
        diagnosis: What to show.
        model: What the model is called.
        created: The time stamp.
    """
    from normswap import __version__

    style = Path(formats.__file__).with_name("page.css").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True,
        finalize=lambda value: visible(value) if type(value) is str else value,  # Markup is a str of ours
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: "" if value is None else f"{value:.3g}"
    page = environment.from_string(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    seen = [found for found in diagnosis.layers if found.mismatch is not None]
    return page.render(
        found=diagnosis,
        model=model,
        meaning=ADVICE[diagnosis.verdict.advice],
        strip=_strip(diagnosis),
        heat=_heat(seen) if seen else None,
        channels=_channels(seen) if seen else None,
        most=max((mode.error for mode in diagnosis.modes if mode.error is not None), default=None),
        created=created,
        version=__version__,
        style=Markup(style),  # our own file
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
    )


def _strip(diagnosis: Diagnosis) -> list[tuple[str, list[str]]]:
    """Return what is shown in each column, and its pictures, all outputs on the scale of the target or train mode."""
    strip = diagnosis.strip
    if not strip:
        return []
    outputs = [what for what in strip if what != "input"]
    scale = scale_of(strip[outputs[-1]])
    order = [what for what in ("input", *(mode.name for mode in diagnosis.modes), "target") if what in strip]
    return [(what, [_png(image_pixels(image, scale)) for image in strip[what]]) for what in order]


def _heat(layers: list[LayerFinding]) -> str:
    """Layers by measures, in nats, on one logarithmic scale of colours."""
    values = np.array([[getattr(found, measure) for measure in _MEASURES] for found in layers])
    with mpl.rc_context(rc=_LOOK):
        figure = Figure(figsize=(7.5, 0.9 + 0.3 * len(layers)), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(np.log10(np.maximum(values, 1e-4)), cmap="cividis", aspect="auto", vmin=-4, vmax=1)
        axes.set_xticks(range(len(_MEASURES)), _MEASURES)
        axes.set_yticks(range(len(layers)), [_short(found.layer.name) for found in layers])
        for (row, column), value in np.ndenumerate(values):
            axes.text(column, row, f"{value:.2g}", ha="center", va="center", color="black" if value > 0.1 else "white")
        bar = figure.colorbar(image, ax=axes, label="nats", ticks=[-4, -3, -2, -1, 0, 1])
        bar.ax.set_yticklabels(["≤ 0.0001", "0.001", "0.01", "0.1", "1", "10"])
        return _drawn(figure)


def _channels(layers: list[LayerFinding]) -> str:
    """Stored against seen statistics, a point for each channel and a bar for the spread of the samples' means."""
    worst = sorted(layers, key=lambda found: -(found.spread + found.staleness))[:_LAYERS]
    with mpl.rc_context(rc=_LOOK):
        rows = -(-len(worst) // 3)
        figure = Figure(figsize=(10.5, 3.3 * rows), layout="constrained")
        for axes, found in zip(np.ravel(figure.subplots(rows, 3, squeeze=False)), worst, strict=False):
            assert found.trained is not None and found.layer.running_mean is not None, "they have a mismatch"
            stored, mean = found.layer.running_mean.astype(np.float64), found.trained.mean
            between = np.sqrt(np.maximum(found.trained.between_var, 0))
            axes.errorbar(stored, mean, yerr=between, fmt="o", markersize=3, linewidth=0.8, alpha=0.7)
            ends = [min(stored.min(), mean.min()), max(stored.max(), mean.max())]
            axes.plot(ends, ends, color="0.5", linewidth=0.8)
            axes.set(title=_short(found.layer.name), xlabel="stored mean", ylabel="mean of the samples")
        for axes in figure.axes[len(worst) :]:
            axes.set_visible(False)
        return _drawn(figure)


_LOOK: Any = {"font.size": 9, "axes.titlesize": 9, "figure.facecolor": "white", "savefig.dpi": 110}


def _short(name: str) -> str:
    name = visible(name).removesuffix("/BatchNormalization_output_0").replace("$", r"\$")
    return name if len(name) <= 40 else f"…{name[-39:]}"


def _drawn(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return _embedded(buffer.getvalue())


def _png(pixels: Pixels) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return _embedded(buffer.getvalue())


def _embedded(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
