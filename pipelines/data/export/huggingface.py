"""A Hugging Face dataset: `data/train-….parquet` with an Image feature, and a README.md that describes them.

The schema carries the features as `datasets` writes them (key "huggingface" of the Parquet metadata), so that
`load_dataset` and the dataset viewer know the column `image` as pictures.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.data.export.rows import Row

# Everything of DATASET_SCHEMA but the sizes, which the photo itself tells.
_STRINGS: tuple[str, ...] = (
    "image_id",
    "identity",
    "file_name",
    "prompt",
    "face_prompt",
    "source",
    "licence",
    "consent",
)
_FEATURES = {"image": {"_type": "Image"}, **{name: {"dtype": "string", "_type": "Value"} for name in _STRINGS}}
SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        *((name, pa.string()) for name in _STRINGS),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)
# The viewer and shuffled reading want small groups.
_GROUP_ROWS = 100
_GROUP_BYTES = 64 * 2**20


class HubWriter:
    """Writes photos of a dataset, byte for byte, into shards of about `shard_bytes`; the same rows give the same."""

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        self._folder = folder
        self._shard_bytes = shard_bytes
        self._writer: pq.ParquetWriter | None = None
        self._shards = self._rows = self._bytes = self._group_bytes = 0
        self._group: list[Row] = []
        (folder / "data").mkdir(parents=True, exist_ok=True)

    def add(self, row: Row) -> None:
        """Append a dataset row."""
        size = len(row["image"])
        if self._bytes and self._bytes + size > self._shard_bytes:
            self._end_shard()
        picture = {"bytes": row["image"], "path": row["file_name"].rpartition("/")[2]}
        self._group.append({"image": picture, **{name: row[name] for name in _STRINGS}})
        self._rows += 1
        self._bytes += size
        self._group_bytes += size
        if len(self._group) >= _GROUP_ROWS or self._group_bytes >= _GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Complete the last shard, give all of them their final names and write the card."""
        self._end_shard()
        for number in range(self._shards):
            self._part(number).rename(self._folder / "data" / f"train-{number:05d}-of-{self._shards:05d}.parquet")
        (self._folder / "README.md").write_text(_card(self._rows), encoding="utf-8")

    def _part(self, number: int) -> Path:
        return self._folder / "data" / f"train-{number:05d}.part"

    def _flush(self) -> None:
        if not self._group:
            return
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._part(self._shards),
                SCHEMA,
                compression={
                    **dict.fromkeys(("image.bytes", "image.path"), "NONE"),
                    **dict.fromkeys(_STRINGS, "ZSTD"),
                },
                use_dictionary=["identity", "source", "licence", "consent"],
                write_statistics=list(_STRINGS),
            )
        self._writer.write_table(pa.Table.from_pylist(self._group, schema=SCHEMA))
        self._group.clear()
        self._group_bytes = 0

    def _end_shard(self) -> None:
        self._flush()
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
        self._shards += 1
        self._bytes = 0


def _card(rows: int) -> str:
    features = "\n".join(f"  - name: {name}\n    dtype: string" for name in _STRINGS)
    return (
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n"
        f"dataset_info:\n  features:\n  - name: image\n    dtype: image\n{features}\n"
        f"  splits:\n  - name: train\n    num_examples: {rows}\n---\n\n"
        "# Face photos\n\nFaces are biometric data: what the people agreed to stands in the columns `consent`, "
        "`licence` and `source` of each row, and holds for every copy.\n"
    )
