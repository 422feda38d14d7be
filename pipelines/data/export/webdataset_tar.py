"""Write tar shards in webdataset's convention: `<key>.<suffix>` photo, `<key>.txt`, `<key>.json`."""

from __future__ import annotations

import io
import json
import re
import tarfile

from pipelines.data.export.names import file_path, stem_of, suffix_of, unlike_labels, with_mark
from pipelines.data.export.rows import Row, known_labels, sidecar
from pipelines.data.export.target import Target
from pipelines.data.ingest.photo_files import TAR_SUFFIXES

_SHARD = re.compile(rf"[^/]+({'|'.join(re.escape(suffix) for suffix in TAR_SUFFIXES)})/")


class TarWriter:
    """Writes photos of a dataset, unchanged, into `faces-000000.tar …` of about `shard_bytes` each.

    Members have no owner and no time, so that equal rows give equal bytes.
    """

    def __init__(self, target: Target, shard_bytes: int) -> None:
        self._folder = target.folder
        self._shard_bytes = shard_bytes
        self._archive: tarfile.TarFile | None = None
        self._shards = 0
        self._bytes = 0
        self._keys: set[str] = set()

    def add(self, row: Row) -> None:
        """Append a dataset row as one sample."""
        size = len(row["image"])
        if self._archive is None or (self._bytes and self._bytes + size > self._shard_bytes):
            self._next()
        self._bytes += size
        key = self._key(row)
        # A picture with the suffix of labels would be read as those of its sample.
        suffix = suffix_of(row["format"], unlike_labels(file_path(row["file_name"]), row["format"]))
        self._member(f"{key}{suffix}", row["image"])
        text = sidecar(row)
        if text is not None:
            self._member(f"{key}.txt", text)
        self._member(f"{key}.json", json.dumps(known_labels(row), ensure_ascii=False).encode())

    def close(self) -> None:
        """Complete the last shard."""
        if self._archive is not None:
            self._archive.close()
            self._archive = None

    def _next(self) -> None:
        self.close()
        file = self._folder / f"faces-{self._shards:06d}.tar"
        self._archive = tarfile.open(  # noqa: SIM115 (open until the shard is full)
            file, "w", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape"
        )
        self._shards += 1
        self._bytes = 0
        self._keys.clear()

    def _key(self, row: Row) -> str:
        # A photo ingested from a shard gets the same name again, without the name of the shard.
        own = stem_of(file_path(_SHARD.sub("", row["file_name"], count=1)))
        folder, slash, base = own.rpartition("/")
        # The key ends at the first dot of the last part.
        key = f"{folder}{slash}{base.replace('.', '_')}"
        if key in self._keys:
            key = with_mark(key, row["image_id"])
        self._keys.add(key)
        return key

    def _member(self, name: str, data: bytes) -> None:
        if self._archive is None:
            raise ValueError(f"{name}: no shard is open; call add")
        member = tarfile.TarInfo(name)
        member.size = len(data)
        member.mode = 0o644
        self._archive.addfile(member, io.BytesIO(data))
