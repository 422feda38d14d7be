"""Forgetting people or photos wherever the project keeps them (docs/guides/forget.md says where that is).

Everything is found before anything is deleted. The ledger is written first and the old data goes last, so that a run
that is killed in between is finished by the same command.
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipelines.core.chain import FACES, PROCESSED
from pipelines.core.errors import UserError
from pipelines.operations.forgetting import local, pages, records, stores
from pipelines.operations.forgetting.copies import Copy, known_copies
from pipelines.operations.forgetting.probe import Probe
from pipelines.operations.forgetting.registry import Traces, delete_artefacts, traces
from pipelines.operations.forgetting.subject import Subject
from pipelines.versions import forgotten
from pipelines.versions.dataset_version import DatasetVersion, current_version, make_version, restore_present
from pipelines.versions.git_tags import check_repository
from pipelines.versions.workspace import runs_folder, workspaces


@dataclass(frozen=True)
class Outcome:
    """What was done, for people and for machines; `remaining` are files that still hold some of the bytes."""

    photos: int
    version: DatasetVersion
    datasets: dict[str, str | None]
    objects: dict[str, int]
    tables: dict[str, int]
    records: int
    pictures: int
    checkpoints: int
    workspaces: list[str]
    reports: list[str]
    copies: list[Copy]
    traces: Traces
    beyond: list[str]
    remaining: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Held:
    """Where a subject is: in the stores, in tables of the checkout, in workspaces of runs, in copies."""

    subject: Subject
    found: stores.Found
    tables: dict[Path, Any]
    workspaces: list[Path]

    @property
    def splits(self) -> frozenset[str]:
        rows = [*self.found.tables.values(), *self.tables.values()]
        return frozenset().union(*(item.splits for item in rows))


def forget(
    root: Path, subject: Subject, *, copies: bool = False, artefacts: bool = False, check: bool = True
) -> Outcome:
    """Forget `subject` in the checkout `root`, its DVC cache and remotes; return what was done.

    `copies` (exports) and `artefacts` (pictures logged to MLflow) go beyond the project's own places; `check` searches
    all files at the end.

    Raises UserError where `root` is no DVC repository or nobody of that name is anywhere; StageFailed where something
    is at work that would write what is being forgotten.
    """
    root = root.resolve()
    if not (root / ".dvc" / "config").is_file():
        raise UserError(f"{root}: not a DVC repository; run this in the checkout that holds the dataset")
    check_repository(root)
    if (root / f"{FACES}.dvc").is_file():
        restore_present(root, FACES)
    with local.quiet(root, workspaces(root)):
        places, beyond = stores.open_stores(root)
        held = _find(root, subject, places)
        if not held.subject.image_ids or not (held.found.tables or held.tables or held.workspaces):
            raise UserError(_nobody(root, subject))
        probe = _probe(held)
        done = _forget(root, held, places, beyond)
        if copies:
            for copy in done.copies:
                shutil.rmtree(copy.folder)
        if artefacts:
            delete_artefacts(root, done.traces.artefacts)
        remaining = probe.files_with(_searched(root, places)) if check else []
        return replace(done, remaining=[str(file) for file in remaining])


def _find(root: Path, subject: Subject, places: list[stores.Store]) -> _Held:
    """Look everywhere, and again for the same bytes under other names where the first look found photos."""
    while True:
        found = stores.search(places, subject)
        tables = local.find_tables(root, subject)
        inside = [local.find_tables(path, subject) for path in workspaces(root)]
        everything = [*found.tables.values(), *(rows for held in (tables, *inside) for rows in held.values())]
        ids = frozenset[str]().union(*(rows.image_ids for rows in everything))
        if ids <= subject.image_ids:
            # Whole workspaces go: their reports and caches hold the same people as their tables.
            runs = [path for path in workspaces(root) if local.holds(path, subject)]
            return _Held(subject, found, tables, runs)
        subject = Subject(subject.identities, subject.image_ids | ids)


def _forget(root: Path, held: _Held, places: list[stores.Store], beyond: list[str]) -> Outcome:
    subject, found, splits = held.subject, held.found, held.splits
    cache = Path(places[0].odb.path).parents[1]
    made = set(found.tables) - found.as_found
    recorded = traces(root, found.folders_with(found.as_found), found.folders_with(made), splits)
    shown = pages.pages_showing(root, cache, found)
    before = current_version(root).md5
    datasets = stores.rewrite_folders(found, stores.rewrite(found, found.as_found, subject))
    if before is not None and any(file.is_relative_to(root / FACES) for file in held.tables):
        datasets.setdefault(before, None)
    forgotten.append(root, forgotten.new_entry(subject.identities, subject.image_ids, datasets))
    tables = local.clean_tables(root, held.tables, subject)
    version = _new_version(root, len(subject.image_ids))
    pictures = local.delete_photos(root, subject.image_ids)
    stale = records.clean_stores(root / local.STATE / "cache", root / PROCESSED)
    checkpoints = local.delete_checkpoints(root)
    reports = local.delete_reports(root) if pages.may_show(splits) else []
    for path in held.workspaces:
        shutil.rmtree(path)
    objects = stores.delete(found, set(found.tables) | shown)
    return Outcome(
        photos=len(subject.image_ids),
        version=version,
        datasets=datasets,
        objects=objects,
        tables=tables,
        records=stale,
        pictures=pictures,
        checkpoints=checkpoints,
        workspaces=[path.name for path in held.workspaces],
        reports=reports,
        copies=known_copies(root),
        traces=recorded,
        beyond=beyond,
    )


def _new_version(root: Path, photos: int) -> DatasetVersion:
    """Name what is left in the dataset's folder; where nothing is, folder and pointer go."""
    if not any((root / FACES).glob("*.parquet")):
        shutil.rmtree(root / FACES, ignore_errors=True)
        (root / f"{FACES}.dvc").unlink(missing_ok=True)
        return DatasetVersion(None, None, None)
    return make_version(root, FACES, f"Without {photos} photos that were forgotten")


def _probe(held: _Held) -> Probe:
    """Take pieces of everything that will be deleted: photos as found and as stored, and embeddings."""
    probe = Probe()
    sources: list[Any] = list(held.tables)
    sources += [found for path in held.workspaces for found in local.find_tables(path, held.subject)]
    for source in sources:
        _sample(source, held.subject, probe)
    for oid in held.found.tables:
        with held.found.holders[oid][0].opened(oid) as file:
            _sample(file, held.subject, probe)
    return probe


def _sample(source: Any, subject: Subject, probe: Probe) -> None:
    with pq.ParquetFile(source, pre_buffer=False) as file:
        names = [name for name in ("image_id", "identity", "image", "embedding") if name in file.schema_arrow.names]
        for batch in file.iter_batches(batch_size=64, columns=names):
            for row in batch.filter(subject.mask(batch)).to_pylist():
                if row.get("image"):
                    probe.add(row["image"])
                    probe.add(base64.b64encode(row["image"]))  # as a page embeds it
                if row.get("embedding"):
                    probe.add(np.asarray(row["embedding"], "<f4").tobytes())


def _searched(root: Path, places: Iterable[stores.Store]) -> list[Path]:
    """Return the checkout, its runs, and every store that is a folder of this machine."""
    local_stores = [Path(store.odb.path) for store in places if store.odb.fs.protocol == "local"]
    return [root, runs_folder(root), *(path for path in local_stores if path.is_dir())]


def _nobody(root: Path, subject: Subject) -> str:
    known = forgotten.read_ledger(root)
    names = [*((name, None) for name in subject.identities), *((None, name) for name in subject.image_ids)]
    entries = {id(entry): entry for name in names if (entry := known.entry_of(*name)) is not None}
    if entries:
        return f"nothing is left to forget: {forgotten.describe_entries(entries.values())}"
    wanted = ", ".join(sorted(subject.identities | subject.image_ids))
    return f"{wanted}: no such person or photo in the dataset, its cache or its remotes; nothing was changed"
