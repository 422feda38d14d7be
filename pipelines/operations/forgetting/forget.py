"""Delete the data of people or photos wherever the project keeps it (docs/guides/forget.md lists the places).

Everything is searched before anything is deleted. The list of the forgotten is written first and old objects are
deleted last, so that repeating the command completes a run that was killed.
"""

from __future__ import annotations

import base64
import shutil
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
class ForgettingReport:
    """What was done: numbers of photos, records, pictures and checkpoints, and names of everything else.

    `datasets`: old → new hash of each dataset folder (None: nothing was left). `objects`: deleted objects per store.
    `tables`: how many were rewritten and deleted. `beyond`: remotes that could not be searched. `remaining`: files that
    still contain some of the bytes.
    """

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
class _Locations:
    """Where a subject's data is: objects of the stores, tables of the checkout, workspaces of runs."""

    subject: Subject
    found: stores.FoundObjects
    tables: dict[Path, Any]
    workspaces: list[Path]

    @property
    def splits(self) -> frozenset[str]:
        rows = [*self.found.tables.values(), *self.tables.values()]
        return frozenset().union(*(item.splits for item in rows))


def forget(
    root: Path, subject: Subject, *, copies: bool = False, artefacts: bool = False, check: bool = True
) -> ForgettingReport:
    """Delete the data of `subject` from the checkout `root`, its DVC cache and remotes; return what was done.

    `copies` also deletes exports, `artefacts` pictures that were logged to MLflow; `check` searches all files at the
    end for remaining bytes.

    Raises UserError where `root` is not a DVC repository or nothing of the subject is found, StageFailed while an
    ingest, preprocessing, curation or training is at work, which could write the same data again.
    """
    root = root.resolve()
    if not (root / ".dvc" / "config").is_file():
        raise UserError(f"{root}: not a DVC repository; run this in the checkout that holds the dataset")
    check_repository(root)
    if (root / f"{FACES}.dvc").is_file():
        restore_present(root, FACES)
    with local.hold_locks(root, workspaces(root)):
        opened, beyond = stores.open_stores(root)
        locations = _find(root, subject, opened)
        if not locations.subject.image_ids or not (locations.found.tables or locations.tables or locations.workspaces):
            raise UserError(_not_found(root, subject))
        probe = _probe(locations)
        report = _forget(root, locations, opened, beyond)
        if copies:
            for copy in report.copies:
                shutil.rmtree(copy.folder)
        if artefacts:
            delete_artefacts(root, report.traces.artefacts)
        if not check:
            return report
        local_stores = [Path(store.odb.path) for store in opened if store.odb.fs.protocol == "local"]
        folders = [root, runs_folder(root), *(path for path in local_stores if path.is_dir())]
        return replace(report, remaining=[str(file) for file in probe.files_with(folders)])


def _find(root: Path, subject: Subject, opened: list[stores.Store]) -> _Locations:
    """Search everywhere, and again for the photos found, which may have other names, until no new photo is found."""
    while True:
        found = stores.search(opened, subject)
        tables = local.find_tables(root, subject)
        inside = [local.find_tables(path, subject) for path in workspaces(root)]
        everything = [*found.tables.values(), *(rows for part in (tables, *inside) for rows in part.values())]
        ids = frozenset[str]().union(*(rows.image_ids for rows in everything))
        if ids <= subject.image_ids:
            # Workspaces are deleted whole: their reports and caches show the same people as their tables.
            runs = [path for path in workspaces(root) if local.has_data_of(path, subject)]
            return _Locations(subject, found, tables, runs)
        subject = Subject(subject.identities, subject.image_ids | ids)


def _forget(root: Path, locations: _Locations, opened: list[stores.Store], beyond: list[str]) -> ForgettingReport:
    subject, found, splits = locations.subject, locations.found, locations.splits
    cache = Path(opened[0].odb.path).parents[1]
    derived = set(found.tables) - found.dataset_tables
    recorded = traces(root, found.folders_with(found.dataset_tables), found.folders_with(derived), splits)
    shown = pages.pages_showing(root, cache, found)
    before = current_version(root).md5
    datasets = stores.rewrite_folders(found, stores.rewrite(found, found.dataset_tables, subject))
    if before is not None and any(file.is_relative_to(root / FACES) for file in locations.tables):
        datasets.setdefault(before, None)
    forgotten.append(root, forgotten.new_entry(subject.identities, subject.image_ids, datasets))
    tables = local.clean_tables(root, locations.tables, subject)
    version = _new_version(root, len(subject.image_ids))
    pictures = local.delete_photos(root, subject.image_ids)
    removed = records.clean_stores(root / local.STATE / "cache", root / PROCESSED)
    checkpoints = local.delete_checkpoints(root)
    reports = local.delete_reports(root) if pages.may_show(splits) else []
    for path in locations.workspaces:
        shutil.rmtree(path)
    objects = stores.delete(found, set(found.tables) | shown)
    return ForgettingReport(
        photos=len(subject.image_ids),
        version=version,
        datasets=datasets,
        objects=objects,
        tables=tables,
        records=removed,
        pictures=pictures,
        checkpoints=checkpoints,
        workspaces=[path.name for path in locations.workspaces],
        reports=reports,
        copies=known_copies(root),
        traces=recorded,
        beyond=beyond,
    )


def _new_version(root: Path, photos: int) -> DatasetVersion:
    """Make a version of the remaining dataset; delete folder and pointer where nothing remains."""
    if not any((root / FACES).glob("*.parquet")):
        shutil.rmtree(root / FACES, ignore_errors=True)
        (root / f"{FACES}.dvc").unlink(missing_ok=True)
        return DatasetVersion(None, None, None)
    return make_version(root, FACES, f"Without {photos} photos that were forgotten")


def _probe(locations: _Locations) -> Probe:
    """Return a probe for everything that will be deleted: photos, processed photos and embeddings."""
    probe, subject, found = Probe(), locations.subject, locations.found
    for table in (*locations.tables, *(t for path in locations.workspaces for t in local.find_tables(path, subject))):
        _add_rows(probe, table, subject)
    for oid in found.tables:
        with found.holders[oid][0].opened(oid) as file:
            _add_rows(probe, file, subject)
    return probe


def _add_rows(probe: Probe, source: Any, subject: Subject) -> None:
    with pq.ParquetFile(source, pre_buffer=False) as file:
        names = [name for name in ("image_id", "identity", "image", "embedding") if name in file.schema_arrow.names]
        for batch in file.iter_batches(batch_size=64, columns=names):
            for row in batch.filter(subject.mask(batch)).to_pylist():
                if row.get("image"):
                    probe.add(row["image"])
                    probe.add(base64.b64encode(row["image"]))  # as in HTML pages
                if row.get("embedding"):
                    probe.add(np.asarray(row["embedding"], "<f4").tobytes())


def _not_found(root: Path, subject: Subject) -> str:
    earlier = forgotten.read_ledger(root)
    names = [*((name, None) for name in subject.identities), *((None, name) for name in subject.image_ids)]
    entries = {id(entry): entry for name in names if (entry := earlier.entry_of(*name)) is not None}
    if entries:
        return f"nothing is left to forget: {forgotten.describe_entries(entries.values())}"
    wanted = ", ".join(sorted(subject.identities | subject.image_ids))
    return f"{wanted}: no such person or photo in the dataset, its cache or its remotes; nothing was changed"
