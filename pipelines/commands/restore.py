"""`dynamicid restore`: a backup of registry, accounts, Airflow's database and tags put back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.backup import Accounts, Airflow, Artefacts, Ledger, State


def restore(
    folder: Annotated[Path, typer.Argument(help="A folder that `dynamicid backup` wrote.")],
    *,
    ledger: Ledger = None,
    artefacts: Artefacts = None,
    airflow: Airflow = None,
    accounts: Accounts = None,
    state: State = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what holds something: databases, artefacts, passwords.")
    ] = False,
) -> None:
    """Check a backup and put it back; servers that use the databases must be stopped first.

    The backup of a stack goes into a stack that does not run, new or old: `make stack` comes afterwards.
    """
    from pipelines.operations.backup.places import Named
    from pipelines.operations.backup.stack_restore import restore_anywhere

    named = Named.given(ledger, artefacts, airflow, accounts)
    restored = restore_anywhere(folder, Path.cwd(), named, state, force=force)
    typer.echo(json.dumps({"restored": restored.done, "left": restored.left}))
    typer.secho(f"restored: {', '.join(restored.done)}", fg=typer.colors.GREEN, err=True)
    if restored.left:
        typer.echo(f"left in the backup: {', '.join(restored.left)}", err=True)
    if any(part.startswith("credentials.env") for part in restored.done):
        typer.echo("`make stack` starts Airflow and MLflow with it", err=True)
