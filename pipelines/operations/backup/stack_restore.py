"""Restore the backup of a stack into a stopped stack, which may be new.

Only PostgreSQL runs, and only during the restore, so that Airflow and MLflow cannot write meanwhile. `make stack`
starts the stack afterwards.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.core.files import write_atomically
from pipelines.operations.backup.backup import Manifest, read_backup
from pipelines.operations.backup.locations import (
    Addresses,
    addresses,
    checkout_locations,
    default_state,
    stack_locations,
)
from pipelines.operations.backup.private_postgres import PORT, private_server, set_superuser_password
from pipelines.operations.backup.restore import Restored, check_locations, restore_backup, restore_into
from pipelines.operations.stack import postgres as database
from pipelines.operations.stack.credentials import FILE, OWNER_ONLY, read_credentials
from pipelines.operations.stack.settings import Stack, stack_in, was_started
from pipelines.operations.stack.supervisor import has_processes, lock_stack


def restore_anywhere(
    folder: Path, root: Path, named: Addresses, state: Path | None = None, *, force: bool = False
) -> Restored:
    """Check the backup `folder` and restore it, see `restore_backup`.

    The backup of a stack goes into the stack in `state` (default: that of the checkout `root`), except for `named`
    addresses; with both MLflow's and Airflow's database named, no stack is used. Other backups go into the checkout.
    """
    manifest = read_backup(folder)
    if not manifest.secret or named.complete:
        return restore_backup(folder, manifest, checkout_locations(root, named, present=False), force=force)
    stack = stack_in(state or default_state(root), started=False)
    return restore_stack(folder, manifest, stack, root, named, force=force)


def restore_stack(
    folder: Path, manifest: Manifest, stack: Stack, root: Path, named: Addresses, *, force: bool = False
) -> Restored:
    """Restore credentials (mode 600), artefacts and databases into `stack`, and tags into the checkout `root`.

    Raises UserError where the stack runs or data would be replaced without `force`: then no data and no password is
    changed, but a new stack may already have empty databases. Repeat an interrupted restore with `force`.
    """
    if was_started(stack.state) and has_processes(stack):
        raise UserError(
            f"{stack.state}: this stack runs, and its servers write to the databases; `dynamicid stack stop` ends it "
            "(`make stack-stop`), then restore again, then `make stack`"
        )
    file, saved = stack.state / FILE, folder / FILE
    same = file.is_file() and file.read_bytes() == saved.read_bytes()
    if file.is_file() and not same and not force:
        raise UserError(
            f"{file}: the passwords and keys differ from those that the backup's databases need; --force replaces "
            "the file and the databases, --state names another folder"
        )
    secret = read_credentials(saved)
    present = read_credentials(file) if file.is_file() else {}
    stack.state.mkdir(parents=True, exist_ok=True)
    server = database.configure(stack.state)
    settings = stack.root / "docker" / "postgres"
    database.initialise(server, settings / "postgresql.conf", secret["POSTGRES_PASSWORD"])
    database.save_data_folder(stack.state, server)
    with lock_stack(stack), private_server(server) as environment:
        # With the passwords that the stack has: those of the backup follow when nothing can be refused any more.
        database.make_databases(server, settings / "init.sql", {**environment, **secret, **present})
        own = addresses(stack, environment["PGHOST"], PORT)
        locations = stack_locations(checkout_locations(root, named, present=False), named, stack, own)
        check_locations(folder, manifest, locations, force=force)
        # The credentials first, then the superuser's password, the only one that init.sql does not set.
        if not same:
            write_atomically(file, saved.read_bytes(), mode=OWNER_ONLY)
            database.make_databases(server, settings / "init.sql", {**environment, **secret})
        file.chmod(OWNER_ONLY)
        set_superuser_password(server, environment, secret["POSTGRES_PASSWORD"])
        restored = restore_into(folder, manifest, locations)
    return Restored([f"{FILE} to {stack.state}", *restored.done], restored.left)
