"""HTML pages out of Jinja templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def render_page(template: Path, **values: Any) -> str:
    """Fill the template in that file; values are escaped, and a name that it uses and nobody gave is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(values)
