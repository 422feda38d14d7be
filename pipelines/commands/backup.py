"""`dynamicid backup` and `dynamicid restore`: databases, accounts, MLflow artefacts and git tags in one folder."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import DEFAULT_PARAMS, NewFolder, ParamsFile, SkipCode, argument, option, read_params
from pipelines.commands.output import emit, say, say_done, warn
from pipelines.core.errors import UserError
from pipelines.core.files import sha256
from pipelines.core.words import counted
from pipelines.operations.audit import audited
from pipelines.operations.backup.backup import TIMED, make_backup, remove_older
from pipelines.operations.backup.contents import MANIFEST
from pipelines.operations.backup.locations import Addresses, find_locations
from pipelines.operations.backup.stack_restore import restore_anywhere
from pipelines.registry.relocation import bring_home
from pipelines.registry.settings import EXPERIMENT, database, own_uri
from pipelines.versions.places import BACKUP, note_copy

Ledger = Annotated[
    str | None, option("MLflow's database; default: the stack's, else mlflow.db here.", metavar="ADDRESS")
]
Artefacts = Annotated[Path | None, option("MLflow's artefact folder; default: the stack's, else mlartifacts/ here.")]
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
        "Folder of the stack; default: .dynamicid/stack, if a stack was started there.",
        metavar="DIR",
        envvar="DYNAMICID_STACK",
    ),
]


def backup(
    *,
    out: NewFolder | None = None,
    into: Annotated[
        Path | None,
        option(
            "Without --out: folder for a new backup with the time as its name; older ones than `keeping.backups` go.",
            metavar="DIR",
            envvar="DYNAMICID_BACKUPS",
        ),
    ] = None,
    file: ParamsFile = DEFAULT_PARAMS,
    skip_code: SkipCode = 0,
    ledger: Ledger = None,
    artefacts: Artefacts = None,
    airflow: Airflow = None,
    accounts: Accounts = None,
    state: State = None,
) -> None:
    """Copy databases (also while in use), MLflow's artefacts and git's tags to a new folder.

    If a stack was started here, its databases, accounts and passwords are copied. ADDRESS is SQLAlchemy's:
    sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME; an option replaces the stack's value.
    """
    from pipelines.operations.backup.uncopied import describe_uncopied

    kept = None
    if out is None:
        if into is None and skip_code:
            say("DYNAMICID_BACKUPS names no folder for backups; nothing was copied")
            raise typer.Exit(skip_code)
        if into is None:
            raise UserError("--out or --into is missing: the folder of the backup, or the one for backups by time")
        kept, out = read_params(file, None).keeping.backups, into / datetime.now(UTC).strftime(TIMED)
    if ledger is None:
        bring_home(database(Path.cwd()), EXPERIMENT)
    locations = find_locations(Path.cwd(), Addresses(ledger, artefacts, airflow, accounts), state)
    note_copy(Path.cwd(), out, BACKUP)
    manifest = make_backup(locations, out)
    for gone, size in [] if kept is None else remove_older(out.parent, kept):
        say(f"{gone}: removed, {size} bytes: keeping.backups is {kept}")
    emit(manifest)
    of_stack = "" if locations.credentials is None else f" of the stack in {locations.credentials.parent}"
    say_done(f"{out}: {counted(len(manifest.files), 'file')}{of_stack}: {', '.join(manifest.contents())}")
    say(f"sha256 of its {MANIFEST}: {sha256(out / MANIFEST)}; kept elsewhere, `dynamicid restore --sha256` compares it")
    if manifest.secret:
        say(f"{out} holds passwords and keys: only you can read it (mode 700); protect copies of it likewise")
    if uncopied := describe_uncopied(Path.cwd()):
        warn(uncopied)
    own = database(Path.cwd())
    if locations.served and own.is_file():
        named = shlex.quote(own_uri(Path.cwd()))
        say(f"not copied: {own}, the MLflow database of work without the stack; --ledger {named} copies it")


def restore(
    folder: Annotated[Path, argument("A folder that `dynamicid backup` wrote.")],
    *,
    ledger: Ledger = None,
    artefacts: Artefacts = None,
    airflow: Airflow = None,
    accounts: Accounts = None,
    state: State = None,
    force: Annotated[bool, option("Replace existing databases, artefacts and passwords.", "--force")] = False,
    expected: Annotated[
        str | None, option("The sha256 of manifest.json that `dynamicid backup` printed.", "--sha256", metavar="HEX")
    ] = None,
) -> None:
    """Check a backup and restore it; stop the servers that use the databases first.

    A stack's backup is restored into a stopped stack, new or existing; then `make stack` starts it.
    """
    named = Addresses(ledger, artefacts, airflow, accounts)
    manifest = folder / MANIFEST
    digest = sha256(manifest) if manifest.is_file() else None
    with audited(Path.cwd(), "restore", backup=str(folder.absolute()), manifest=digest, force=force) as result:
        if expected is not None and digest != expected.strip().lower():
            raise UserError(f"{manifest}: its sha256 is {digest}, not {expected}: another backup, or a changed one")
        restored = restore_anywhere(folder, Path.cwd(), named, state, force=force)
        result |= {"restored": restored.done, "left": restored.left}
    emit({"restored": restored.done, "left": restored.left})
    say_done(f"restored: {', '.join(restored.done)}")
    if restored.left:
        say(f"left in the backup: {', '.join(restored.left)}")
    if any(part.startswith("credentials.env") for part in restored.done):
        say("`make stack` starts Airflow and MLflow with the restored data")
