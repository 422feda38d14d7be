"""A backup of a stack put into a stack that does not run: new, empty, or one whose contents are to be replaced.

Only PostgreSQL is started, for the restore alone, so that no server writes meanwhile and Airflow and MLflow find their
databases filled when they start for the first time. `make stack` comes afterwards.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.core.files import write_atomically
from pipelines.operations.backup.backup import Manifest, read_backup
from pipelines.operations.backup.places import (
    Addresses,
    addresses,
    default_state,
    places_of_checkout,
    places_of_stack,
)
from pipelines.operations.backup.quiet_postgres import PORT, quiet, set_superuser_password
from pipelines.operations.backup.restore import Restored, check_places, fill_places, restore_backup
from pipelines.operations.stack import postgres as database
from pipelines.operations.stack.credentials import FILE, OWNER_ONLY, read_env
from pipelines.operations.stack.settings import Stack, stack_in, was_started
from pipelines.operations.stack.supervisor import alone, left_over


def restore_anywhere(
    folder: Path, root: Path, named: Addresses, state: Path | None = None, *, force: bool = False
) -> Restored:
    """Check the backup `folder` and put it where it belongs, see `restore_backup`.

    A backup of a stack goes into the one in `state` (default: that of the checkout `root`), except what was named by
    hand; where ledger and Airflow's database are, no stack is touched. Any other backup goes into the checkout.
    """
    manifest = read_backup(folder)
    if not manifest.secret or named.whole:
        return restore_backup(folder, manifest, places_of_checkout(root, named, present=False), force=force)
    stack = stack_in(state or default_state(root), started=False)
    return restore_stack(folder, manifest, stack, root, named, force=force)


def restore_stack(
    folder: Path, manifest: Manifest, stack: Stack, root: Path, named: Addresses, *, force: bool = False
) -> Restored:
    """Put credentials (mode 600), artefacts and databases into `stack`, and tags into the checkout `root`.

    Raises UserError where the stack runs, or something is there and `force` is not given: nothing is changed then. A
    restore that was cut short is done again with `force`.
    """
    if was_started(stack.state) and left_over(stack):
        raise UserError(
            f"{stack.state}: this stack runs, and its servers write to the databases; `dynamicid stack stop` ends it "
            "(`make stack-stop`), then restore again, then `make stack`"
        )
    file, kept = stack.state / FILE, folder / FILE
    same = file.is_file() and file.read_bytes() == kept.read_bytes()
    if file.is_file() and not same and not force:
        raise UserError(
            f"{file}: other passwords and keys than those of the backup, which its databases need; --force replaces "
            "the file and the databases, --state names another folder"
        )
    secret = read_env(kept)
    stack.state.mkdir(parents=True, exist_ok=True)
    server = database.choose(stack.state)
    settings = stack.root / "docker" / "postgres"
    database.initialise(server, settings / "postgresql.conf", secret["POSTGRES_PASSWORD"])
    database.remember(stack.state, server)
    with alone(stack), quiet(server) as environment:
        database.make_databases(server, settings / "init.sql", {**environment, **secret})
        own = addresses(stack, environment["PGHOST"], PORT)
        places = places_of_stack(places_of_checkout(root, named, present=False), named, stack, own)
        check_places(folder, manifest, places, force=force)
        # From here on the stack is the backup's: its file first, then the one password that init.sql does not set.
        if not same:
            write_atomically(file, kept.read_bytes(), mode=OWNER_ONLY)
        file.chmod(OWNER_ONLY)
        set_superuser_password(server, environment, secret["POSTGRES_PASSWORD"])
        restored = fill_places(folder, manifest, places)
    return Restored([f"{FILE} to {stack.state}", *restored.done], restored.left)
