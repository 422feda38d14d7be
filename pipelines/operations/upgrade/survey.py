"""Find every file of a checkout that states the version of its format, and what an upgrade does to it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.core.chain import FACES, PROCESSED
from pipelines.core.errors import UserError
from pipelines.core.formats.folders import EXPORT_MARKER, STATE_MARKER, stated_version
from pipelines.core.formats.parameters import rewrite
from pipelines.core.formats.rows import check_schema
from pipelines.core.formats.table import (
    ADAPTER,
    CHECKPOINT,
    CURATION,
    DATASET,
    EXPORT,
    FORGOTTEN,
    KEY,
    PARAMETERS,
    RECORDS,
    SLICES,
    STACK,
    TRACKING,
    Format,
    check_format,
)
from pipelines.core.formats.table import PROCESSED as PROCESSED_ROWS
from pipelines.core.params import read_mapping
from pipelines.operations.backup.locations import default_state
from pipelines.operations.stack.settings import rewrite_ports, was_started
from pipelines.operations.upgrade import tracking
from pipelines.registry.settings import database
from pipelines.versions.forgotten import LEDGER, read_ledger
from pipelines.versions.places import known_copies
from pipelines.versions.state import CACHE, CURATE, PREPROCESS, RESUME, shared_state

# Files of these formats: a pattern in the state, and the JSON file that states the version.
_STATED: tuple[tuple[Format, str, str], ...] = (
    (SLICES, PREPROCESS, STATE_MARKER),
    (CURATION, CURATE, STATE_MARKER),
    (RECORDS, f"{CACHE}/*/*", "store.json"),
    (CHECKPOINT, f"{RESUME}/*/*/step-*", "progress.json"),
)


@dataclass(frozen=True)
class Item:
    """Files of one format and version, at `place`; `change` says what an upgrade does to them (None: nothing)."""

    place: str
    format: str
    version: int
    newest: int
    files: int = 1
    change: str | None = None
    migrate: Callable[[], None] | None = field(default=None, compare=False)

    def plain(self) -> dict[str, object]:
        """Return the item for JSON."""
        names = ("place", "format", "version", "newest", "files", "change")
        return {name: getattr(self, name) for name in names}

    def line(self) -> str:
        """Return the item as a sentence."""
        files = f" ({self.files} files)" if self.files > 1 else ""
        stays = "as this program writes it" if self.version == self.newest else "read as it is"
        return f"{self.place}{files}: {self.format} in format {self.version}: {self.change or stays}"


def survey(root: Path) -> list[Item]:
    """Return all files of the checkout `root` that an upgrade concerns.

    Raises UserError that names a file of each newer format.
    """
    items: list[Item] = []
    refused: list[str] = []
    # The database first: where another process uses it, no other file has been changed yet.
    for find in (_tracking, _parameters, _rows, _states, _exports, _list_of_forgotten, _stack):
        try:
            items += find(root)
        except UserError as error:
            refused.append(str(error))
    if refused:
        raise UserError("; ".join(refused))
    return items


def _parameters(root: Path) -> Iterator[Item]:
    for file in (root / "params.yaml", *sorted((root / "profiles").glob("*.yaml"))):
        if file.is_file():
            version = check_format(PARAMETERS, file, read_mapping(file).get(KEY))
            change = migrate = None
            if version < PARAMETERS.version:
                change = f"rewritten in format {PARAMETERS.version}, with its comments"
                migrate = _bound(rewrite, file)
            yield _item(root, file, PARAMETERS, version, change=change, migrate=migrate)


def _rows(root: Path) -> Iterator[Item]:
    import pyarrow.parquet as pq

    for kind, name in ((DATASET, FACES), (PROCESSED_ROWS, PROCESSED)):
        shards = sorted((root / name).rglob("*.parquet"))
        versions = Counter(check_schema(kind, shard, pq.read_schema(shard)) for shard in shards)
        yield from (_item(root, root / name, kind, version, files) for version, files in sorted(versions.items()))


def _states(root: Path) -> Iterator[Item]:
    state = shared_state(root)
    places = [*((state, *each) for each in _STATED), (root, ADAPTER, "models/*", "config.json")]
    for top, kind, pattern, marker in places:
        folders = [path for path in sorted(top.glob(pattern)) if path.is_dir() and any(path.iterdir())]
        if marker != STATE_MARKER:
            folders = [path for path in folders if (path / marker).is_file()]
        versions = Counter(stated_version(kind, path / marker) for path in folders)
        place = top / pattern if len(folders) != 1 else folders[0]
        yield from (_item(root, place, kind, version, files) for version, files in sorted(versions.items()))


def _exports(root: Path) -> Iterator[Item]:
    for copy in known_copies(root):
        folder = Path(copy.folder)
        yield _item(root, folder, EXPORT, stated_version(EXPORT, folder / EXPORT_MARKER))


def _list_of_forgotten(root: Path) -> Iterator[Item]:
    read_ledger(root)  # names a line that is no entry
    file = root / LEDGER
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    stated = [json.loads(line).get(KEY) for line in lines if line.strip()]
    versions = Counter(check_format(FORGOTTEN, file, version) for version in stated)
    yield from (_item(root, file, FORGOTTEN, version, files) for version, files in sorted(versions.items()))


def _stack(root: Path) -> Iterator[Item]:
    state = default_state(root)
    if was_started(state):
        file = state / "ports.json"
        version = stated_version(STACK, file)
        if version < STACK.version:
            change = f"states format {STACK.version}"
            yield _item(root, file, STACK, version, change=change, migrate=_bound(rewrite_ports, state))
        else:
            yield _item(root, file, STACK, version)


def _tracking(root: Path) -> Iterator[Item]:
    file = database(root)
    if file.is_file():
        present = tracking.state_of(file)
        changes = [
            *([] if present.current else [f"tables migrated to those of MLflow {tracking.installed()}"]),
            *([] if present.version == TRACKING.version else [f"states format {TRACKING.version}"]),
        ]
        migrate = _bound(tracking.migrate, file) if changes else None
        yield _item(root, file, TRACKING, present.version, change=", ".join(changes) or None, migrate=migrate)


def _bound(change: Callable[[Path], None], file: Path) -> Callable[[], None]:
    return lambda: change(file)


def _item(
    root: Path,
    place: Path,
    kind: Format,
    version: int,
    files: int = 1,
    *,
    change: str | None = None,
    migrate: Callable[[], None] | None = None,
) -> Item:
    shown = place.relative_to(root).as_posix() if place.is_relative_to(root) else str(place)
    return Item(shown, kind.name, version, kind.version, files, change, migrate)
