"""Write a Hugging Face dataset: `data/train-….parquet` with an Image feature, and a README.md that describes it.

The Parquet metadata describe the features as `datasets` does (key "huggingface"), so that `load_dataset` and the
dataset viewer recognise the column `image` as pictures.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa

from pipelines.data.export.rows import Row
from pipelines.data.export.target import Target
from pipelines.data.ingest.shards import RollingWriter

# All other columns of DATASET_SCHEMA except format and sizes, which the photo itself has.
_STRINGS = ("image_id", "identity", "file_name", "prompt", "face_prompt", "source", "licence", "consent")
_FEATURES = {"image": {"_type": "Image"}, **{name: {"dtype": "string", "_type": "Value"} for name in _STRINGS}}
SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        *((name, pa.string()) for name in _STRINGS),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)
# The viewer and shuffled reading need small row groups.
_GROUP_ROWS = 100
_GROUP_BYTES = 64 * 2**20


class HubWriter(RollingWriter):
    """Writes photos of a dataset, unchanged, into shards of about `shard_bytes`; equal rows give equal files."""

    def __init__(self, target: Target, shard_bytes: int) -> None:
        super().__init__(
            SCHEMA,
            shard_bytes,
            _GROUP_ROWS,
            _GROUP_BYTES,
            compression={**dict.fromkeys(("image.bytes", "image.path"), "NONE"), **dict.fromkeys(_STRINGS, "ZSTD")},
            use_dictionary=["identity", "source", "licence", "consent"],
            write_statistics=list(_STRINGS),
        )
        self._folder = target.folder
        self._shards = self._count = 0
        (self._folder / "data").mkdir()

    def add(self, row: Row) -> None:
        """Append a dataset row."""
        picture = {"bytes": row["image"], "path": row["file_name"].rpartition("/")[2]}
        self.append({"image": picture, **{name: row[name] for name in _STRINGS}}, len(row["image"]))
        self._count += 1

    def part(self) -> Path:
        """Return a temporary path for the shard being written: its final name holds the number of shards."""
        return self._folder / "data" / f"train-{self._shards:05d}.part"

    def complete(self) -> None:
        """Count the shard."""
        self._shards += 1

    def close(self) -> None:
        """Complete the last shard, give all of them their final names and write the card."""
        self.end_shard()
        for number, part in enumerate(sorted((self._folder / "data").glob("*.part"))):
            part.rename(part.with_name(f"train-{number:05d}-of-{self._shards:05d}.parquet"))
        (self._folder / "README.md").write_text(_card(self._count), encoding="utf-8")


def _card(rows: int) -> str:
    features = "\n".join(f"  - name: {name}\n    dtype: string" for name in _STRINGS)
    return (
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n"
        f"dataset_info:\n  features:\n  - name: image\n    dtype: image\n{features}\n"
        f"  splits:\n  - name: train\n    num_examples: {rows}\n---\n\n"
        "# Face photos\n\nFaces are biometric data: what the people agreed to stands in the columns `consent`, "
        "`licence` and `source` of each row, and holds for every copy.\n"
    )
