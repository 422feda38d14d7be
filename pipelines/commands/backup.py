"""`dynamicid backup`: registry, Airflow's database and the tags of versions in one checked folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

Ledger = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="MLflow's database; default: mlflow.db of the checkout.")
]
Artefacts = Annotated[
    Path | None, typer.Option(help="MLflow's artefact folder; default: mlartifacts/ of the checkout.")
]
Airflow = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        envvar="AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
        show_envvar=True,
        help="Airflow's database; default: airflow.db in AIRFLOW_HOME or airflow/.",
    ),
]


def backup(
    out: Annotated[Path, typer.Option(help="A folder that does not exist yet.")],
    ledger: Ledger = None,
    artefacts: Artefacts = None,
    airflow: Airflow = None,
) -> None:
    """Copy both databases (while they are in use), MLflow's artefacts and git's tags into a new folder.

    Addresses are SQLAlchemy's: sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME.
    """
    from pipelines.keeping.backup import make_backup
    from pipelines.keeping.places import places_of

    places = places_of(Path.cwd(), ledger, artefacts, airflow)
    manifest = make_backup(places, out)
    typer.echo(json.dumps(asdict(manifest)))
    what = [name for name, place in (("ledger", places.ledger), ("Airflow", places.airflow)) if place is not None]
    said = f"{out}: {len(manifest.files)} files, with the database of {' and '.join(what)}"
    typer.secho(said, fg=typer.colors.GREEN, err=True)
