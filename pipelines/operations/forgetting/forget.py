"""Delete the data of people or photos wherever the project keeps it (docs/guides/forget.md lists the places).

Everything is searched before anything is deleted. The list of the forgotten and the journal are written first and old
objects are deleted last, so that repeating the command completes a run that was killed or could not reach a place.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipelines.core.chain import FACES, PROCESSED
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.people import normal_name
from pipelines.core.words import counted, nearest
from pipelines.data.ingest.parquet_files import FAULTS
from pipelines.data.ingest.photo_files import is_picture_start
from pipelines.operations.forgetting import local, pages, records, stores
from pipelines.operations.forgetting.journal import FILE, Journal, end_journal, read_journal, write_journal
from pipelines.operations.forgetting.probe import Probe
from pipelines.operations.forgetting.registry import Traces, delete_artefacts, hashes_of, traces
from pipelines.operations.forgetting.sources import SubjectFiles
from pipelines.operations.forgetting.subject import Subject, with_listed
from pipelines.operations.forgetting.tables import SubjectRows, is_damaged, pieces_in
from pipelines.versions import forgotten
from pipelines.versions.dataset_version import DatasetVersion, current_version, make_version, restore_present
from pipelines.versions.dvc import cache_folder
from pipelines.versions.git_tags import check_repository
from pipelines.versions.places import DATASET, INBOX, UNREADABLE, Copy, noted, parts_of
from pipelines.versions.state import shared_state, states_of
from pipelines.versions.workspace import all_runs_folders, all_workspaces


@dataclass(frozen=True)
class ForgettingReport:
    """What was done: numbers of photos, records, pictures, checkpoints and drawn files, names of everything else.

    `bases`: folders of bases that were trained on them. `datasets`: old → new hash of each dataset folder (None:
    nothing was left). `objects`: deleted objects per store. `tables`: how many were rewritten and deleted. `copies`:
    those that hold the subject, or whose pictures name nobody.
    `beyond`: places that could not be searched or written to. `remaining`: files that still contain some of the bytes.
    `nothing_left`: nothing was deleted; `earlier`: when they were forgotten.
    """

    version: DatasetVersion
    copies: list[Copy]
    traces: Traces
    bases: list[str] = field(default_factory=list)
    photos: int = 0
    datasets: dict[str, str | None] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)
    tables: dict[str, int] = field(default_factory=lambda: {"rewritten": 0, "deleted": 0})
    records: int = 0
    pictures: int = 0
    checkpoints: int = 0
    drawn: int = 0
    workspaces: list[str] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)
    remaining: list[str] = field(default_factory=list)
    earlier: str = ""
    nothing_left: bool = False


@dataclass(frozen=True)
class Locations:
    """Where a subject's data is: objects of the stores, tables and other files of the checkout, workspaces, copies.

    `begun`: what must be remembered of it until everything is deleted. `beyond`: places that could not be searched.
    `damaged`: tables of caches that cannot be read, so that they may hold the subject; they are made again.
    """

    subject: Subject
    found: stores.FoundObjects
    tables: dict[Path, SubjectRows]
    files: SubjectFiles
    workspaces: list[Path]
    copies: list[Copy]
    traces: Traces
    bases: list[str]
    begun: Journal
    beyond: list[str]
    damaged: list[Path]

    @property
    def unread(self) -> list[str]:
        """Return a message for each damaged table, for whoever does not delete it."""
        return [f"{file}: damaged, so that it cannot be searched; delete it: it is made again" for file in self.damaged]

    @property
    def anywhere(self) -> bool:
        """Whether anything holds the subject that this command deletes by itself, or that is not yet in the list."""
        entry_of = self.subject.listed.entry_of
        unlisted = not all(entry_of(None, image_id) for image_id in self.files.image_ids)
        return bool(self.found.tables or self.tables or self.files.deletable or self.workspaces) or unlisted


def forget(
    root: Path, subject: Subject, *, copies: bool = False, artefacts: bool = False, check: bool = True
) -> ForgettingReport:
    """Delete the data of `subject` from the checkout `root`, its DVC cache and remotes; return what was done.

    `copies` also deletes the exports that hold them, `artefacts` pictures that were logged to MLflow; `check` searches
    all files at the end for remaining bytes. A request that was interrupted is finished, too.

    Raises UserError where `root` is not a DVC repository or nothing of the subject is found, StageFailed while an
    ingest, preprocessing, curation, training or evaluation is at work, which could write the same data again.
    """
    root, subject = located_in(root, subject)
    if (root / f"{FACES}.dvc").is_file():
        restore_present(root, FACES)
    with local.hold_locks(root, all_workspaces(root)):
        opened, unopened = stores.open_stores(root)
        unfinished = read_journal(root)
        refuse_strangers(root, subject, opened, unfinished)
        locations = locate(root, unfinished.added_to(subject), opened, unfinished)
        beyond = [*unopened, *locations.beyond]
        named = [copy for copy in locations.copies if copy.what not in UNREADABLE]
        shown = locations.traces.artefacts if artefacts else []
        if unfinished != Journal() or locations.anywhere or shown or (copies and named):
            write_journal(root, locations.begun)
            report = _forget(root, locations, hashes_of(root, shown))
            for part in (part for copy in named if copies for part in parts_of(Path(copy.folder))):
                shutil.rmtree(part)
            delete_artefacts(root, shown)
        else:
            beyond += locations.unread
            report = _nothing_left(root, subject, locations, beyond)
        local_stores = [Path(store.odb.path) for store in opened if store.odb.fs.protocol == "local"]
        outside = [*all_runs_folders(root), *local_stores, *states_of(root)]
        outside += [folder for what in (DATASET, INBOX) for folder in noted(root, what)]
        kept = [Path(copy.folder) for copy in named if not copies]
        searched = [root, root / local.DATA, *outside] if check else []
        remaining = _remaining(locations, searched, kept, root / FILE)
        if not (remaining or beyond or report.beyond):
            end_journal(root)
        return replace(report, remaining=remaining, beyond=[*beyond, *report.beyond])


def _remaining(locations: Locations, searched: list[Path], kept: list[Path], journal: Path) -> list[str]:
    """Return the files that still hold data of the subject: shared with others, or with pictures or pieces of them.

    Left out are copies that are named and `kept`, and the journal.
    """
    folders = [folder for folder in dict.fromkeys(searched) if folder.is_dir()]
    files = {*locations.files.shared, *locations.begun.probe().files_with(folders, locations.subject.shows)}
    own = journal.resolve()
    return sorted(
        str(file)
        for file in files
        if file.exists() and file.resolve() != own and not any(map(file.is_relative_to, kept))
    )


def located_in(root: Path, subject: Subject) -> tuple[Path, Subject]:
    """Return the real path of a checkout, and the subject with its entries in the list; UserError where it is none."""
    root = root.resolve()
    if not (root / ".dvc" / "config").is_file():
        raise UserError(f"{root}: not a DVC repository; run this in the checkout that holds the dataset")
    check_repository(root)
    shared_state(root)  # noted, also where no stage has been run with this DYNAMICID_STATE
    return root, with_listed(subject, forgotten.gate(root))


def locate(root: Path, subject: Subject, opened: list[stores.Store], begun: Journal) -> Locations:
    """Search everywhere, and again for the photos found, which may have other names, until no new photo is found."""
    runs = all_workspaces(root)
    while True:
        found, beyond = stores.search(opened, subject)
        unread: set[Path] = set()
        tables = local.find_tables(root, subject, unread)
        inside = {file: rows for path in runs for file, rows in local.find_tables(path, subject, unread).items()}
        files = local.find_files(root, subject)
        everything = [*found.tables.values(), *tables.values(), *inside.values()]
        ids = frozenset(files.image_ids).union(*(rows.image_ids for rows in everything))
        if ids - subject.files <= subject.image_ids:
            break
        subject = subject.with_photos(ids - subject.files)
    probe, others = _remains(found, [*tables, *inside], files.pictures, subject)
    subject = replace(subject, files=subject.files | (others - subject.image_ids))
    known = {md5 for entry in subject.listed.entries for md5 in entry.datasets}
    begun |= Journal(
        subject.identities,
        subject.image_ids,
        subject.files,
        frozenset(piece.hex() for piece in probe.pieces),
        frozenset[str]().union(*(rows.splits for rows in everything)),
        frozenset(found.folders_with(found.dataset_tables) | known),
        frozenset(found.folders_with(set(found.tables) - found.dataset_tables)),
        frozenset(pages.folders_shown(found)),
    )
    cached = (file for folder in local.table_caches(root) for file in local.walk(folder))
    damaged = sorted(file for file in cached if file in unread or is_damaged(file))
    unsearched = sorted(files.unread | unread.difference(damaged))
    recorded, silent = traces(root, set(begun.datasets), set(begun.outputs), begun.splits)
    return Locations(
        subject=subject,
        found=found,
        tables=tables,
        files=files,
        # Workspaces are deleted whole: their reports and caches show the same people as their tables.
        workspaces=[path for path in runs if local.has_data_of(path, subject)],
        copies=local.copies_with(root, subject, begun.probe()),
        traces=recorded,
        bases=local.bases_of(root, subject),
        begun=begun,
        beyond=[*beyond, *silent, *(f"{file}: it cannot be searched; mend or delete it" for file in unsearched)],
        damaged=damaged,
    )


def refuse_strangers(root: Path, subject: Subject, opened: list[stores.Store], begun: Journal) -> None:
    """Raise UserError for one of several people of whom nothing is anywhere: somebody may have misspelt the name."""
    if len(subject.identities | subject.image_ids) < 2:
        return  # found out by whoever searches
    here = {normal_name(name) for name in local.people_of(root)}
    for name in sorted(subject.identities - here - begun.identities):
        one = with_listed(Subject(frozenset([name]), frozenset()), forgotten.gate(root))
        if one.listed:
            continue
        alone = locate(root, one, opened, Journal())
        if not (alone.anywhere or alone.files or [copy for copy in alone.copies if copy.what not in UNREADABLE]):
            raise UserError(f"{name}: no such person here{nearest_people(root, one)}; nothing was changed")


def nearest_people(root: Path, subject: Subject) -> str:
    """Return "; did you mean anna?" with the people of the dataset whose names are spelt like the subject's."""
    here = local.people_of(root) if subject.identities else set()
    near = {one for name in subject.identities for one in nearest(name, here)}
    return f"; did you mean {', '.join(sorted(near))}?" if near else ""


def _remains(
    found: stores.FoundObjects, tables: list[Path], pictures: Iterable[Path], subject: Subject
) -> tuple[Probe, frozenset[str]]:
    """Return a probe for everything that will be deleted, photos and embeddings, and the sha256 of its pictures."""
    probe, files = Probe(), set()

    def take(piece: bytes) -> None:
        probe.add(piece)
        if is_picture_start(piece):
            files.add(hashlib.sha256(piece).hexdigest())

    def pieces(*, of_others: bool = False) -> Iterator[bytes]:
        for table in tables:
            yield from pieces_of(table, table, of_others)
        for oid in found.tables:
            with found.holders[oid][0].opened(oid) as file:
                yield from pieces_of(f"object {oid} of {found.holders[oid][0].name}", file, of_others)

    def pieces_of(name: object, source: Any, of_others: bool) -> Iterator[bytes]:
        try:
            yield from pieces_in(source, subject, of_others=of_others)
        except FAULTS as error:
            raise StageFailed(
                f"{name}: damaged, so that their pictures in it cannot be read ({' '.join(str(error).split())}); bring "
                "it back or delete it, then forget again; nothing was deleted"
            ) from None

    for piece in pieces():
        take(piece)
    for picture in pictures:
        take(picture.read_bytes())
    probe.drop_shared(pieces(of_others=True))
    return probe, frozenset(files)


def _forget(root: Path, locations: Locations, shown: set[str]) -> ForgettingReport:
    """Delete what was located; `shown`: sha256 of the logged pictures that are deleted afterwards."""
    subject, found = locations.subject, locations.found
    may_show = pages.may_show(locations.begun.splits)
    cached = pages.pages_showing(root, cache_folder(root), found, set(locations.begun.shown)) if may_show else set()
    before = current_version(root).md5
    known = {md5 for entry in forgotten.read_ledger(root).entries for md5 in entry.datasets}
    datasets = stores.rewrite_folders(found, stores.rewrite(found, found.dataset_tables, subject), known)
    if before is not None and any(file.is_relative_to(root / FACES) for file in locations.tables):
        datasets.setdefault(before, None)
    entry = forgotten.new_entry(subject.identities, subject.image_ids, datasets, subject.files | shown)
    forgotten.append(root, entry)
    local.delete_unfinished(root, locations.begun.probe())
    tables = local.clean_tables(root, locations.tables, subject)
    for file in locations.damaged:
        file.unlink(missing_ok=True)
    tables["deleted"] += len(locations.damaged)
    failed: list[str] = []
    version = _new_versions(root, list(locations.tables), len(subject.image_ids), failed)
    pictures = local.delete_files(root, locations.files)
    others = [path for path in all_workspaces(root) if path not in locations.workspaces]
    removed = records.clean_stores(local.record_folders(root), [path / PROCESSED for path in (root, *others)])
    checkpoints = local.delete_checkpoints(root)
    drawn = local.delete_drawn(root)
    reports = local.delete_reports(root, evaluations=may_show)
    for path in locations.workspaces:
        shutil.rmtree(path)
    for path in all_workspaces(root):
        drawn += local.delete_drawn(path)
        reports += [str(path / page) for page in local.delete_reports(path, evaluations=may_show)]
    objects = stores.delete(found, set(found.tables) | cached)
    return ForgettingReport(
        photos=len(subject.image_ids),
        version=version,
        datasets=datasets,
        objects=objects,
        tables=tables,
        records=removed,
        pictures=pictures,
        checkpoints=checkpoints,
        drawn=drawn,
        workspaces=[path.name for path in locations.workspaces],
        reports=reports,
        copies=locations.copies,
        traces=locations.traces,
        bases=locations.bases,
        beyond=failed,
    )


def _new_versions(root: Path, tables: list[Path], photos: int, failed: list[str]) -> DatasetVersion:
    """Make versions of the datasets that remain; delete folder and pointer of one that is empty. Return data/faces'."""
    message = f"Without {counted(photos, 'forgotten photo')}"
    made = DatasetVersion(None, None, None)
    emptied = {root / FACES, *(_dataset_of(table) for table in tables)}
    for folder in sorted(emptied | set(noted(root, DATASET))):
        pointer = folder.with_name(f"{folder.name}.dvc")
        if not (folder == root / FACES or pointer.is_file()):
            continue
        if not any(folder.rglob("*.parquet")) and folder in emptied:
            shutil.rmtree(folder, ignore_errors=True)
            pointer.unlink(missing_ok=True)
        elif folder == root / FACES:
            made = _version(root, folder, message, failed)
        elif pointer.resolve().is_relative_to(root):
            _version(root, folder, message, failed)
    return made


def _version(root: Path, folder: Path, message: str, failed: list[str]) -> DatasetVersion:
    """Make a version; a remote that cannot be reached now must not keep other data from being deleted."""
    try:
        return make_version(root, folder, message)
    except StageFailed as error:
        failed.append(str(error))
        return current_version(root, folder.relative_to(root).as_posix())


def _dataset_of(table: Path) -> Path:
    """Return the folder of a table that DVC follows, or else its own folder."""
    return next((one for one in table.parents[:-1] if one.with_name(f"{one.name}.dvc").is_file()), table.parent)


def _nothing_left(root: Path, subject: Subject, locations: Locations, beyond: list[str]) -> ForgettingReport:
    """Return a report of nothing but what is named; raise UserError where the subject was never here."""
    entries = subject.listed.entries
    held = [copy for copy in locations.copies if copy.what not in UNREADABLE]
    if not (entries or held or locations.files):
        wanted = ", ".join(sorted(subject.identities | subject.image_ids)) or "nobody is in the list of the forgotten"
        unsure = f"; not searched: {'; '.join(beyond)}" if beyond else ""
        raise UserError(
            f"{wanted}: no such person or photo in the dataset, its cache or its remotes{nearest_people(root, subject)}"
            f"{unsure}; nothing was changed"
        )
    return ForgettingReport(
        current_version(root),
        locations.copies,
        locations.traces,
        locations.bases,
        earlier=forgotten.describe_entries(entries),
        nothing_left=True,
    )
