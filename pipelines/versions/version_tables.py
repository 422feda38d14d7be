"""The tables of dataset versions in DVC's cache, as they are after what was forgotten, and what is in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.core.chain import FACES
from pipelines.core.errors import UserError
from pipelines.versions.dataset_version import known_versions, rows_of
from pipelines.versions.dvc import cached_files, is_cached, pointed_hash
from pipelines.versions.forgotten import describe_entries, gate
from pipelines.versions.git import git
from pipelines.versions.git_tags import read_at


@dataclass(frozen=True)
class VersionContent:
    """A version: tag, date (UTC, ISO 8601), number of rows and of named people, and the sources that rows state.

    People and sources are None where the data is not in the cache.
    """

    tag: str
    date: str
    rows: int | None
    people: int | None
    sources: list[str] | None


def version_contents(root: Path, folder: str = FACES) -> list[VersionContent]:
    """Return what each version of `folder` holds, the oldest first."""
    found = []
    for tag in known_versions(root, folder):
        date = git(root, "for-each-ref", "--format=%(creatordate:iso-strict)", f"refs/tags/{tag}")
        tables = cached_tables(root, tag, folder)
        if tables is None:
            found.append(VersionContent(tag, date, rows_of(root, tag), None, None))
            continue
        people: set[str] = set()
        sources: set[str] = set()
        rows = 0
        for table in tables:
            read = pq.read_table(table, columns=["identity", "source"])
            rows += read.num_rows
            people.update(pc.unique(read["identity"].drop_null()).to_pylist())
            sources.update(pc.unique(read["source"].drop_null()).to_pylist())
        found.append(VersionContent(tag, date, rows, len(people), sorted(sources)))
    return found


def tables_of(root: Path, tag: str, folder: str = FACES) -> list[Path]:
    """Return the Parquet files of version `tag`; raise UserError where there is none, or its data is not here."""
    tables = cached_tables(root, tag, folder)
    if tables is None:
        raise UserError(f"version {tag}: its data is not in the DVC cache; `dvc fetch --all-tags` brings it")
    return tables


def cached_tables(root: Path, tag: str, folder: str = FACES) -> list[Path] | None:
    """Return the Parquet files of version `tag` in the DVC cache, without what was forgotten; None where one is not."""
    if tag not in (known := known_versions(root, folder)):
        raise UserError(f"version {tag}: no such tag; there are {', '.join(known) or 'none (`dynamicid ingest`)'}")
    md5 = pointed_hash(read_at(root, [tag], f"{folder}.dvc").get(tag, b""))
    forgotten = gate(root)
    left = None if md5 is None else forgotten.left_of(md5)
    if md5 is not None and left is None:
        raise UserError(f"version {tag}: nothing is left of it; {describe_entries(forgotten.of_dataset(md5))}")
    if left is None or not is_cached(root, left):
        return None
    return cached_files(root, left)
