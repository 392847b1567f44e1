"""Pages: HTML that is one file, needs nothing from elsewhere, and in which nothing runs.

``base.html`` is what all pages have around them and ``page.css`` their look; its Content-Security-Policy holds a
browser to the above. What comes from a model or a user is text, whatever it holds.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from normswap.reports.pixels import Pixels
from normswap.words import visible

__all__ = ["embedded", "png", "render"]


def render(template: Path, created: datetime, **values: Any) -> str:
    """Return a page.

    Args:
        template: A file that extends ``base.html``.
        created: The time stamp.
        values: What it shows; numbers through its filter ``number``.
    """
    from normswap import __version__

    style = _read(Path(__file__).with_name("page.css"))
    page = (
        _environment()
        .from_string(_read(template))
        .render(
            created=created,
            version=__version__,
            style=Markup(style),  # our own file
            style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
            **values,
        )
    )
    return page + "\n"


def png(pixels: Pixels) -> str:
    """Return an image as a data URL."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return embedded(buffer.getvalue())


def embedded(data: bytes) -> str:
    """Return the data of a PNG as a data URL."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=lambda value: visible(value) if type(value) is str else value,  # Markup is a str of ours
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    return environment


def _number(value: float | None) -> str:
    """Spell a number for a table: two digits, and no exponent where one can be spared."""
    if value is None:
        return ""
    if math.isinf(value):
        return "∞"
    return f"{value:,.0f}" if 10 <= value < 1e5 else f"{value:.2g}"


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
