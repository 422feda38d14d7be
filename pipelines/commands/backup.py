"""`dynamicid backup` and `dynamicid restore`: registry, accounts, Airflow's database and tags in one checked folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pipelines.commands.options import argument, option
from pipelines.commands.output import emit, say, say_done

Ledger = Annotated[
    str | None, option("MLflow's database; default: the stack's, else mlflow.db of the checkout.", metavar="ADDRESS")
]
Artefacts = Annotated[
    Path | None, option("MLflow's artefact folder; default: the stack's, else mlartifacts/ of the checkout.")
]
Accounts = Annotated[str | None, option("Database of MLflow's accounts; default: the stack's.", metavar="ADDRESS")]
Airflow = Annotated[
    str | None,
    option(
        "Airflow's database; default: the stack's, else airflow.db in AIRFLOW_HOME or airflow/.",
        metavar="ADDRESS",
        envvar="AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
        show_envvar=True,
    ),
]
State = Annotated[
    Path | None,
    option(
        "Folder of the stack; default: .dynamicid/stack of the checkout, if a stack was started there.",
        metavar="DIR",
        envvar="DYNAMICID_STACK",
    ),
]


def backup(
    *,
    out: Annotated[Path, option("A folder that does not exist yet.")],
    ledger: Ledger = None,
    artefacts: Artefacts = None,
    airflow: Airflow = None,
    accounts: Accounts = None,
    state: State = None,
) -> None:
    """Copy the databases (while they are in use), MLflow's artefacts and git's tags into a new folder.

    Where a stack was started it is the stack's, with MLflow's accounts and the passwords. Addresses are SQLAlchemy's:
    sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME; what is named is not taken from the stack.
    """
    from pipelines.operations.backup.backup import make_backup
    from pipelines.operations.backup.locations import Addresses, find_locations
    from pipelines.registry.settings import database

    locations = find_locations(Path.cwd(), Addresses(ledger, artefacts, airflow, accounts), state)
    manifest = make_backup(locations, out)
    emit(manifest)
    of_stack = "" if locations.credentials is None else f" of the stack in {locations.credentials.parent}"
    say_done(f"{out}: {len(manifest.files)} files{of_stack}: {', '.join(manifest.contents())}")
    if manifest.secret:
        say(f"{out} holds passwords and keys: only you can enter it (mode 700), keep its copies so")
    own = database(Path.cwd())
    if locations.served and own.is_file():
        say(f"not in it: {own}, the ledger of work without the stack; --ledger sqlite:///{own} copies that")


def restore(
    folder: Annotated[Path, argument("A folder that `dynamicid backup` wrote.")],
    *,
    ledger: Ledger = None,
    artefacts: Artefacts = None,
    airflow: Airflow = None,
    accounts: Accounts = None,
    state: State = None,
    force: Annotated[bool, option("Replace what holds something: databases, artefacts, passwords.", "--force")] = False,
) -> None:
    """Check a backup and put it back; servers that use the databases must be stopped first.

    The backup of a stack goes into a stack that does not run, new or old: `make stack` comes afterwards.
    """
    from pipelines.operations.backup.locations import Addresses
    from pipelines.operations.backup.stack_restore import restore_anywhere

    named = Addresses(ledger, artefacts, airflow, accounts)
    restored = restore_anywhere(folder, Path.cwd(), named, state, force=force)
    emit({"restored": restored.done, "left": restored.left})
    say_done(f"restored: {', '.join(restored.done)}")
    if restored.left:
        say(f"left in the backup: {', '.join(restored.left)}")
    if any(part.startswith("credentials.env") for part in restored.done):
        say("`make stack` starts Airflow and MLflow with it")
