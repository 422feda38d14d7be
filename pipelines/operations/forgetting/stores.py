"""Search DVC's caches, local and remote, for objects with a subject's data; rewrite and delete them."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.core.errors import StageFailed
from pipelines.operations.forgetting.subject import Subject
from pipelines.operations.forgetting.tables import ARROW, PARQUET, SubjectRows, rows_in, write_without

_OID = re.compile(r"[0-9a-f]{32}(\.dir)?")
_HTML = (b"<!doctype html", b"<html")


@dataclass(frozen=True)
class Store:
    """A DVC object store and its name in messages; `top`: the folder of a remote that is one, which must exist."""

    name: str
    odb: Any
    top: Path | None = None

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
        for label, hash_name in ((f"{name} (DVC 2)", "md5-dos2unix"), (name, "md5")):
            try:
                odb = repo.cloud.get_remote_odb(name, "forget", hash_name)
                # DVC 2's objects are in the remote's folder itself.
                top = Path(odb.path) if "DVC 2" in label and odb.fs.protocol == "local" else None
                stores.append(Store(f"remote {label}", odb, top))
            except DvcException as error:
                beyond.append(f"remote {name}: {error}")
                break
    return stores, beyond


def search(stores: list[Store], subject: Subject) -> tuple[FoundObjects, list[str]]:
    """Read every object of the stores once; of tables only the columns image_id, identity and split.

    Returns also a message for each store that cannot be searched now.
    """
    found, beyond = FoundObjects(), []
    for store in stores:
        if store.top is not None and not store.top.is_dir():
            beyond.append(f"{store.name}: there is no folder {store.top}; is its disk connected?")
            continue
        try:
            # DVC 2's folder contains DVC 3's: only files whose names are hashes are its objects.
            oids = (
                [oid for oid in store.odb.all() if _OID.fullmatch(oid)] if store.odb.fs.exists(store.odb.path) else []
            )
        except Exception as error:
            beyond.append(f"{store.name}: {type(error).__name__}: {' '.join(str(error).split())}")
            continue
        for oid in oids:
            holders = found.holders.setdefault(oid, [])
            holders.append(store)
            if len(holders) == 1:
                _read_object(store, oid, subject, found)
    return found, beyond


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


def rewrite_folders(found: FoundObjects, changed: dict[str, str | None], known: set[str]) -> dict[str, str | None]:
    """Add new versions of folders with changed tables to their stores; return old → new hash (None: none left).

    `known` folders were rewritten before, by a request that was interrupted.
    """
    folders: dict[str, str | None] = {}
    for oid in sorted(found.folders_with(set(changed)) - known):
        files = {name: changed.get(md5, md5) for name, md5 in found.folders[oid].items()}
        left = {name: md5 for name, md5 in files.items() if md5 is not None}
        folders[oid] = _add_folder(found.holders[oid], left) if left else None
    return folders


def delete(found: FoundObjects, oids: set[str]) -> dict[str, int]:
    """Delete objects from all stores; return the number of deleted objects per store."""
    counts: dict[str, int] = {}
    for oid in sorted(oids):
        for store in found.holders.get(oid, []):
            try:
                store.odb.delete(oid)
            except Exception as error:
                why = " ".join(str(error).split())
                raise StageFailed(f"{store.name}: object {oid} cannot be deleted ({why}); forget again") from error
            counts[store.name] = counts.get(store.name, 0) + 1
    return counts


def _read_object(store: Store, oid: str, subject: Subject, found: FoundObjects) -> None:
    try:
        with store.opened(oid) as file:
            start = file.read(256)
            file.seek(0)
            if oid.endswith(".dir"):
                found.folders[oid] = {item["relpath"]: item["md5"] for item in json.load(file)}
            elif start.startswith((PARQUET, ARROW)):
                rows = rows_in(file, subject)
                if rows is not None and rows.rows:
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
