"""What the site adds to the pages: tables of options, read from the code, and links to files outside docs.

MkDocs calls the functions ``on_...`` (https://www.mkdocs.org/user-guide/plugins/#events). A page asks for
the options of a command by a comment, such as ``<!-- options: convert -->``.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

__all__ = ["linked", "on_config", "on_files", "on_page_markdown", "option_table", "with_tables"]

ROOT = Path(__file__).parents[1]
PICTURES = ("fixtures/lowlight.png", "fixtures/diagnosis.png", "fixtures/report.png")  # part of the site


def option_table(name: str) -> str:
    """Return the options of a command as a table of Python-Markdown, which takes | in code as it is."""
    from normswap.cli import command

    rows = ["| option | meaning |", "|---|---|"]
    with click.Context(command.commands[name]) as context:
        for parameter in command.commands[name].get_params(context):
            record = parameter.get_help_record(context)
            if record is not None and isinstance(parameter, click.Option):
                spelled, meaning = (" ".join(part.split()) for part in record)
                rows.append(f"| `{spelled}` | {meaning.replace('|', '&#124;')} |")
    return "\n".join(rows)


def with_tables(markdown: str) -> str:
    """Put the tables in the places of the comments."""
    return re.sub(r"^<!-- options: (\w+) -->$", lambda found: option_table(found[1]), markdown, flags=re.MULTILINE)


def linked(markdown: str, page: str, repository: str) -> str:
    """Point links that leave docs at the repository, and those to PICTURES at the site's copies.

    Args:
        markdown: Of a page.
        page: Its path in docs.
        repository: Address of the repository.

    Raises:
        FileNotFoundError: If a link leads to no file.
    """
    folder = posixpath.dirname(page)

    def address(found: re.Match[str]) -> str:
        target, anchor = found[1], found[2] or ""
        path = posixpath.normpath(posixpath.join("docs", folder, target))
        if path.startswith("docs/"):
            return found[0]
        if not (ROOT / path).exists():
            raise FileNotFoundError(f"docs/{page}: {target} leads to no file")
        if path in PICTURES:
            return f"]({posixpath.relpath(path, folder or '.')})"
        return f"]({repository.rstrip('/')}/blob/main/{path}{anchor})"

    return re.sub(r"\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)", address, markdown)


def on_config(_: MkDocsConfig) -> None:
    """Show the signatures that callers see: what documents the code would look behind a decorator."""
    import normswap.testing

    for function in (normswap.plan, normswap.convert, normswap.verify, normswap.testing.assert_equivalent):
        vars(function).pop("__wrapped__", None)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pictures."""
    from mkdocs.structure.files import File

    for name in PICTURES:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Return the page as the site has it."""
    return linked(with_tables(markdown), page.file.src_uri, config.repo_url or "")
