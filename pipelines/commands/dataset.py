"""`dynamicid dataset`: which version of data/faces is here, and bringing another one back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.commands.options import argument, option
from pipelines.commands.output import emit, say
from pipelines.core.chain import FACES

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__, no_args_is_help=True)


@app.command()
def show() -> None:
    """Print the present version as JSON: tag (null where it has none), md5, rows."""
    from pipelines.versions.dataset_version import current_version

    emit(current_version(Path.cwd()))


@app.command("list")
def list_versions() -> None:
    """Print the versions of the dataset, oldest first, one a line."""
    from pipelines.registry.retraining import known_versions

    known = known_versions(Path.cwd())
    emit(known, "\n".join(known))


@app.command()
def checkout(tag: Annotated[str, argument("A version such as faces-v3, or latest.")]) -> None:
    """Put version TAG of the dataset into data/faces."""
    from pipelines.core.errors import UserError
    from pipelines.registry.retraining import LATEST, known_versions, newest
    from pipelines.versions.dataset_version import checkout_version

    if tag == LATEST:
        tag = newest(known_versions(Path.cwd())) or ""
        if not tag:
            raise UserError("latest: there is no dataset version yet; `dynamicid ingest` makes one")
    checkout_version(Path.cwd(), tag)
    emit({"tag": tag}, tag)


@app.command()
def publish(folder: Annotated[Path, option("Dataset folder.", "--dir", metavar="DIR")] = Path(FACES)) -> None:
    """Make a version of data/faces as it is; print it as JSON, with `new` false where the same data has one already."""
    emit(publish_version(folder))


def publish_version(folder: Path) -> dict[str, Any]:
    """Make a version of a dataset folder, and say so on stderr; `new` is false where the same data had one already."""
    from pipelines.registry.retraining import known_versions
    from pipelines.versions.dataset_version import current_version, make_version

    before = set(known_versions(Path.cwd()))
    parent = current_version(Path.cwd()).tag
    made = make_version(Path.cwd(), folder, f"Photos added to {parent or 'nothing'}")
    say(f"version {made.tag}{'' if made.tag not in before else ', which was there'}")
    return {**asdict(made), "new": made.tag not in before}
