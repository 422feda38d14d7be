"""Make a backup of all files that change, then change them one by one; a killed upgrade is finished by the next."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.core.files import atomic_folder
from pipelines.core.locks import hold
from pipelines.operations.backup.backup import make_backup
from pipelines.operations.backup.locations import Addresses, checkout_locations
from pipelines.operations.upgrade.survey import Item, survey
from pipelines.registry.registry import registry_lock
from pipelines.registry.settings import database
from pipelines.versions.state import STATE

BACKUPS = f"{STATE}/before_upgrade"
FILES, DATABASES = "files", "databases"


def upgrade(root: Path, backup: Path | None = None) -> tuple[list[Item], Path | None]:
    """Bring the files of the checkout `root` up to date; return all items as they were found, and the backup.

    The backup, by default a new folder in `.dynamicid/before_upgrade`, holds `files/` (copies at their paths in the
    checkout) and, where MLflow's database changes, `databases/`, which `dynamicid restore` reads. There is none where
    nothing is to do. Raises UserError, and changes nothing, where a file is of a newer format.
    """
    taken = UserError(f"{root}: another upgrade is under way; wait for it to end")
    with hold(root / STATE / "upgrade.lock", taken), registry_lock(root):
        items = survey(root)
        changing = [item for item in items if item.migrate is not None]
        if not changing:
            return items, None
        target = backup or root / BACKUPS / datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        _back_up(root, changing, target)
        for item in changing:
            print(f"{item.place}: {item.change}", file=sys.stderr)
            assert item.migrate is not None
            item.migrate()
    return items, target


def _back_up(root: Path, changing: Iterable[Item], target: Path) -> None:
    if target.exists():
        raise UserError(f"{target}: it exists; a backup needs a new folder")
    for left in (root / BACKUPS).glob(".*.part"):
        shutil.rmtree(left)  # of an upgrade that was killed
    with atomic_folder(target, mode=0o700) as part:
        for item in changing:
            source = root / item.place
            if source == database(root):
                locations = checkout_locations(root, Addresses(), present=True)
                make_backup(locations, part / DATABASES, with_artefacts=False)
            else:
                copy = part / FILES / item.place.lstrip("/")
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, copy)
        (part / "upgrade.json").write_text(json.dumps([item.plain() for item in changing], indent=2) + "\n")
