"""DVC's caches, local and remote, searched for objects that hold somebody, and rid of them."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.operations.forgetting.subject import Rows, Subject, rows_in, write_without

_PARQUET = b"PAR1"
_OID = re.compile(r"[0-9a-f]{32}(\.dir)?")
_HTML = (b"<!doctype html", b"<html")


@dataclass(frozen=True)
class Store:
    """One object store; `name` is for people."""

    name: str
    odb: Any

    def opened(self, oid: str) -> Any:
        """Return an object as an open binary file."""
        return self.odb.fs.open(self.odb.oid_to_path(oid), "rb")


@dataclass
class Found:
    """Which objects of the stores hold somebody.

    `tables`: objects that are tables of photos; `folders`: folder objects → their files by name; `pages`: reports.
    `holders`: for each object, the stores that have it.
    """

    tables: dict[str, Rows] = field(default_factory=dict)
    folders: dict[str, dict[str, str]] = field(default_factory=dict)
    pages: set[str] = field(default_factory=set)
    holders: dict[str, list[Store]] = field(default_factory=dict)

    @property
    def as_found(self) -> set[str]:
        """Return those of `tables` that are of the dataset as found, and not of what was made from it."""
        return {oid for oid, rows in self.tables.items() if rows.as_found}

    def folders_with(self, tables: set[str]) -> set[str]:
        """Return the folder objects that have one of `tables` among their files."""
        return {oid for oid, files in self.folders.items() if tables & set(files.values())}


def open_stores(root: Path) -> tuple[list[Store], list[str]]:
    """Return the cache and every remote of a DVC repository, and what cannot be searched, with the reason."""
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


def search(stores: list[Store], subject: Subject) -> Found:
    """Look into every object of every store once; tables are asked by their name and hash columns alone."""
    found = Found()
    for store in stores:
        for oid in _objects(store):
            holders = found.holders.setdefault(oid, [])
            holders.append(store)
            if len(holders) == 1:
                _look(store, oid, subject, found)
    return found


def rewrite(found: Found, tables: set[str], subject: Subject) -> dict[str, str | None]:
    """Put each of `tables` without the subject's rows beside it in every store; return old → new hash (None: empty)."""
    changed: dict[str, str | None] = {}
    for oid in sorted(tables):
        holders = found.holders[oid]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "table.parquet"
            with holders[0].opened(oid) as source:
                rows = write_without(source, file, subject)
            changed[oid] = _add(holders, file) if rows else None
    return changed


def rewrite_folders(found: Found, changed: dict[str, str | None]) -> dict[str, str | None]:
    """Put each folder that lists a changed table beside it, listing what is left; return old → new hash."""
    folders: dict[str, str | None] = {}
    for oid in sorted(found.folders_with(set(changed))):
        files = {name: changed.get(md5, md5) for name, md5 in found.folders[oid].items()}
        left = {name: md5 for name, md5 in files.items() if md5 is not None}
        folders[oid] = _add_folder(found.holders[oid], left) if left else None
    return folders


def delete(found: Found, oids: set[str]) -> dict[str, int]:
    """Delete objects wherever they are; return how many from each store."""
    counts: dict[str, int] = {}
    for oid in sorted(oids):
        for store in found.holders.get(oid, []):
            store.odb.delete(oid)
            counts[store.name] = counts.get(store.name, 0) + 1
    return counts


def _objects(store: Store) -> Iterator[str]:
    # The legacy store lies around the present one: only hashes are its objects.
    if not store.odb.fs.exists(store.odb.path):
        return
    for oid in store.odb.all():
        if _OID.fullmatch(oid):
            yield oid


def _look(store: Store, oid: str, subject: Subject, found: Found) -> None:
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
        # A damaged object is nobody's photo that could be read; it is told, for somebody to look at.
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
