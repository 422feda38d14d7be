"""Search DVC's caches, local and remote, for objects with a subject's data; rewrite and delete them."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.operations.forgetting.subject import Subject, SubjectRows, rows_in, write_without

_PARQUET = b"PAR1"
_OID = re.compile(r"[0-9a-f]{32}(\.dir)?")
_HTML = (b"<!doctype html", b"<html")


@dataclass(frozen=True)
class Store:
    """A DVC object store and its name in messages."""

    name: str
    odb: Any

    def opened(self, oid: str) -> Any:
        """Return an object as an open binary file."""
        return self.odb.fs.open(self.odb.oid_to_path(oid), "rb")


@dataclass
class FoundObjects:
    """Hashes of the objects that a search found.

    `tables`: {table with rows of the subject: these rows}. `folders`: {every folder: {file name: hash}}. `pages`: all
    HTML files with pictures. `holders`: {every object: the stores that have it}.
    """

    tables: dict[str, SubjectRows] = field(default_factory=dict)
    folders: dict[str, dict[str, str]] = field(default_factory=dict)
    pages: set[str] = field(default_factory=set)
    holders: dict[str, list[Store]] = field(default_factory=dict)

    @property
    def dataset_tables(self) -> set[str]:
        """Return those of `tables` that are part of a dataset, not derived from one."""
        return {oid for oid, rows in self.tables.items() if rows.in_dataset}

    def folders_with(self, tables: set[str]) -> set[str]:
        """Return the folder objects that list one of `tables`."""
        return {oid for oid, files in self.folders.items() if tables & set(files.values())}


def open_stores(root: Path) -> tuple[list[Store], list[str]]:
    """Return the cache and every remote of a DVC repository, and a message for each remote that cannot be searched."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    repo = Repo(str(root))
    stores = [Store("cache", repo.cache.local), Store("cache (DVC 2)", repo.cache.legacy)]
    beyond: list[str] = []
    for name in repo.config["remote"]:
        for label, hash_name in ((name, "md5"), (f"{name} (DVC 2)", "md5-dos2unix")):
            try:
                stores.append(Store(f"remote {label}", repo.cloud.get_remote_odb(name, "forget", hash_name)))
            except DvcException as error:
                beyond.append(f"remote {name}: {error}")
                break
    return stores, beyond


def search(stores: list[Store], subject: Subject) -> FoundObjects:
    """Read every object of the stores once; of tables only the columns image_id, identity and split."""
    found = FoundObjects()
    for store in stores:
        # DVC 2's folder contains DVC 3's: only files whose names are hashes are its objects.
        for oid in store.odb.all() if store.odb.fs.exists(store.odb.path) else ():
            if _OID.fullmatch(oid):
                holders = found.holders.setdefault(oid, [])
                holders.append(store)
                if len(holders) == 1:
                    _read_object(store, oid, subject, found)
    return found


def rewrite(found: FoundObjects, tables: set[str], subject: Subject) -> dict[str, str | None]:
    """Add copies of `tables` without the subject's rows to their stores; return old → new hash (None: no row left)."""
    changed: dict[str, str | None] = {}
    for oid in sorted(tables):
        holders = found.holders[oid]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "table.parquet"
            with holders[0].opened(oid) as source:
                rows = write_without(source, file, subject)
            changed[oid] = _add(holders, file) if rows else None
    return changed


def rewrite_folders(found: FoundObjects, changed: dict[str, str | None]) -> dict[str, str | None]:
    """Add new versions of folders with changed tables to their stores; return old → new hash (None: none left)."""
    folders: dict[str, str | None] = {}
    for oid in sorted(found.folders_with(set(changed))):
        files = {name: changed.get(md5, md5) for name, md5 in found.folders[oid].items()}
        left = {name: md5 for name, md5 in files.items() if md5 is not None}
        folders[oid] = _add_folder(found.holders[oid], left) if left else None
    return folders


def delete(found: FoundObjects, oids: set[str]) -> dict[str, int]:
    """Delete objects from all stores; return the number of deleted objects per store."""
    counts: dict[str, int] = {}
    for oid in sorted(oids):
        for store in found.holders.get(oid, []):
            store.odb.delete(oid)
            counts[store.name] = counts.get(store.name, 0) + 1
    return counts


def _read_object(store: Store, oid: str, subject: Subject, found: FoundObjects) -> None:
    try:
        with store.opened(oid) as file:
            start = file.read(256)
            file.seek(0)
            if oid.endswith(".dir"):
                found.folders[oid] = {item["relpath"]: item["md5"] for item in json.load(file)}
            elif start.startswith(_PARQUET):
                rows = rows_in(file, subject)
                if rows is not None and rows.image_ids:
                    found.tables[oid] = rows
            elif start.lstrip().lower().startswith(_HTML) and b"data:image/" in file.read():
                found.pages.add(oid)
    except (OSError, ValueError, KeyError) as error:
        # A damaged object does not stop the search, but has to be checked by hand.
        print(f"{store.name}: object {oid} cannot be read ({error})", file=sys.stderr)


def _add(holders: list[Store], file: Path) -> str:
    from dvc.fs import LocalFileSystem
    from dvc_data.hashfile.hash import file_md5

    local = LocalFileSystem()
    oid = str(file_md5(str(file), local))
    for store in holders:
        store.odb.add(str(file), local, oid)
    return oid


def _add_folder(holders: list[Store], files: dict[str, str]) -> str:
    from dvc_data.hashfile.tree import Tree

    tree = Tree.from_list([{"md5": md5, "relpath": name} for name, md5 in files.items()], hash_name="md5")
    tree.digest()
    for store in holders:
        store.odb.add(tree.path, tree.fs, tree.oid)
    return str(tree.oid)
