"""HTML pages from Jinja templates, and tables of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def render_page(template: Path, *others: Path, **values: Any) -> str:
    """Return the template file filled with the escaped `values`; raise UndefinedError where one is missing.

    It may import templates beside it, and those in the folders `others`.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader([template.parent, *others])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template.name).render(values)


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown, with a line end; wide spaces end its cells, which MLflow's pages put side by side."""
    lines = [[cell.replace("|", "\\|") + "&emsp;" * bool(cell) for cell in row] for row in (columns, *rows)]
    lines.insert(1, ["---"] * len(columns))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
