"""Does a dataset continue an earlier version of it, or is it another one under the same name?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.parquet as pq

from pipelines.core.errors import UserError
from pipelines.core.row_schemas import DATASET_SCHEMA, open_rows
from pipelines.core.words import counted
from pipelines.versions.dataset_version import known_versions
from pipelines.versions.dvc import cached_files, is_cached, pointed_hash
from pipelines.versions.git_tags import read_at
from pipelines.versions.lock import present_hashes


def check_continues(root: Path, folder: str) -> None:
    """Raise UserError where `folder` has no photo of any earlier version, and would be called their next one.

    Versions whose data is not in the DVC cache cannot be compared: then the present `.dvc` file must name one of them,
    or the data be the same.
    """
    versions = known_versions(root, folder)
    if not versions:
        return
    pointers = read_at(root, versions, f"{folder}.dvc")
    hashes = {tag: md5 for tag in reversed(versions) if (md5 := pointed_hash(pointers.get(tag, b"")))}
    known = {tag: md5 for tag, md5 in hashes.items() if is_cached(root, md5)}
    present = root / f"{folder}.dvc"
    named = present.is_file() and pointed_hash(present.read_bytes()) in hashes.values()
    if named and len(known) < len(hashes):
        return
    rows = open_rows(root / folder, DATASET_SCHEMA)
    photos = {photo for batch in rows.to_batches(columns=["image_id"]) for photo in batch["image_id"].to_pylist()}
    if any(photo in photos for photo in _photos(root, known.values())):
        return
    if present_hashes(root, [folder]).get(folder) in hashes.values():
        return
    absent = [tag for tag in hashes if tag not in known]
    unseen = f" ({', '.join(absent)}: the data is not here; `dvc pull` may bring it)" if absent else ""
    raise UserError(
        f"{folder}: none of its {counted(len(photos), 'photo')} is in {', '.join(known) or 'an earlier version'}"
        f"{unseen}, so it is not the next version but another dataset, which belongs in a checkout of its own; "
        "`dynamicid dataset publish --accept-unrelated` makes it the next version all the same"
    )


def _photos(root: Path, hashes: Iterable[str]) -> Iterator[str]:
    """Yield the photos of versions, each shard once."""
    for shard in dict.fromkeys(file for md5 in hashes for file in cached_files(root, md5) or ()):
        if shard.is_file():
            for batch in pq.ParquetFile(shard).iter_batches(columns=["image_id"]):
                yield from batch["image_id"].to_pylist()
