"""`dynamicid restore`: a backup of registry, Airflow's database and tags put back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.backup import Airflow, Artefacts, Ledger


def restore(
    folder: Annotated[Path, typer.Argument(help="A folder that `dynamicid backup` wrote.")],
    ledger: Ledger = None,
    artefacts: Artefacts = None,
    airflow: Airflow = None,
    force: Annotated[bool, typer.Option("--force", help="Replace databases that hold something.")] = False,
) -> None:
    """Check a backup and put it back; servers that use the databases must be stopped first."""
    from pipelines.keeping.backup import restore_backup
    from pipelines.keeping.places import places_for

    done = restore_backup(folder, places_for(Path.cwd(), ledger, artefacts, airflow), force=force)
    typer.echo(json.dumps({"restored": done}))
    typer.secho(f"restored: {', '.join(done)}", fg=typer.colors.GREEN, err=True)
