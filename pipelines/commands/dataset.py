"""`dynamicid dataset`: which version of data/faces is here, and bringing another one back."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__, no_args_is_help=True)


@app.command()
def show() -> None:
    """Print the present version as JSON: tag (null where it has none), md5, rows."""
    from pipelines.dataset_version import current_version

    typer.echo(json.dumps(asdict(current_version(Path.cwd()))))


@app.command()
def checkout(tag: Annotated[str, typer.Argument(help="A version such as faces-v3.")]) -> None:
    """Put version TAG of the dataset into data/faces."""
    from pipelines.dataset_version import checkout_version

    checkout_version(Path.cwd(), tag)
    typer.echo(tag)
