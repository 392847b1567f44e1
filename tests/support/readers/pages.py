"""Read HTML as a browser would, far enough to see what it holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

__all__ = ["Page", "page_of"]

_VOID = {"br", "hr", "img", "link", "meta", "input"}
_BLOCKS = {
    "p",
    "li",
    "td",
    "th",
    "h1",
    "h2",
    "h3",
    "tr",
    "dt",
    "dd",
    "caption",
    "summary",
    "title",
    "hr",
    "br",
    "footer",
}


@dataclass
class Page(HTMLParser):
    """A page that was read.

    Attributes:
        text: What a reader sees; each block begins a line.
        tags: Every element's name, in order.
        attributes: Every attribute: element, name, value.
        tables: Of each table its rows, of each row its cells' texts.
    """

    text: str = ""
    tags: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)
    tables: list[list[list[str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in _VOID:
            self._open.append(tag)
        if tag in _BLOCKS:
            self.text += "\n"
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID:
            return
        while self._open and self._open.pop() != tag:  # those whose end may be left out
            pass

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        if {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += data


def page_of(html: str) -> Page:
    """Read a page or a part of one."""
    page = Page()
    page.feed(html)
    page.close()
    return page
