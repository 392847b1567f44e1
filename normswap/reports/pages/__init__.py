"""Pages: HTML that is one file, needs nothing from elsewhere, and in which nothing runs.

``page.html`` is the template of every page and ``page.css`` its style. Its Content-Security-Policy keeps a browser from
loading or running anything. Whatever a name or a sentence holds, it is shown as text.
"""

from __future__ import annotations

import base64
import hashlib
import io
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from normswap.reports.pixels import Pixels
from normswap.version import __version__
from normswap.words import visible

__all__ = ["render"]


def render(created: datetime, **values: Any) -> str:
    """Return a page.

    Args:
        created: The time stamp.
        values: What the template shows.
    """
    style = _read("page.css")
    page = _template().render(
        created=created,
        version=__version__,
        style=Markup(style),  # our own file
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        **values,
    )
    return page.strip() + "\n"


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        finalize=lambda value: visible(value) if type(value) is str else value,  # Markup, a str too, is ours
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"png": _png, "embedded": _embedded}
    return environment.from_string(_read("page.html"))


def _png(pixels: Pixels) -> str:
    """Return an image as a data URL."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return _embedded(buffer.getvalue())


def _embedded(data: bytes) -> str:
    """Return the data of a PNG as a data URL."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
