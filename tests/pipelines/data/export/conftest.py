"""A small dataset, original and preprocessed, with awkward names and rights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipelines.core.params import Params
from pipelines.core.row_schemas import DATASET_SCHEMA, PROCESSED_SCHEMA, read_rows
from pipelines.data.ingest.shards import ShardWriter
from pipelines.stages.ingest import Inputs, Outputs, run
from tests.pipelines.photos import accepted_row, dataset_row, encoded, write_shards


def photo(number: int, kind: str = "JPEG", size: int = 24) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, (size, size, 3), dtype=np.uint8)
    return encoded(pixels, kind)


def row(
    number: int, file_name: str, identity: str | None, kind: str = "JPEG", **labels: str | None
) -> dict[str, object]:
    texts = dict.fromkeys(("face_prompt", "source", "licence", "consent")) | {"prompt": f"person {number} in a park"}
    size = {"format": kind, "width": 24, "height": 24}
    return dataset_row(file_name, photo(number, kind), identity, **{**size, **texts, **labels})


ROWS = [
    row(0, "anna/1.jpg", "anna", consent="granted", licence="CC-BY-4.0", source="studio", face_prompt="happy"),
    row(1, "anna/2.png", "anna", "PNG", consent="granted", prompt=None, face_prompt="sad"),
    row(2, "bert/a.b.jpg", "bert", consent="withdrawn", licence="CC-BY-4.0", prompt="a man\u2019s caf\u00e9"),
    row(3, "bert/1.jpg", "bert", prompt=None),
    row(4, "caf%E9.jpg", None),
]


def processed_row(number: int, given: dict[str, object], **changes: object) -> dict[str, object]:
    copied = ("image_id", "identity", "file_name", "prompt", "face_prompt", "source", "licence", "consent")
    columns = {name: given[name] for name in copied} | {"image": photo(100 + number, size=32)} | changes
    return accepted_row(100 + number, **columns)


@dataclass(frozen=True)
class Data:
    """A dataset and its processed rows; the last photo was rejected."""

    faces: Path
    processed: Path
    params: Params


@pytest.fixture
def data(tmp_path: Path, params: Params) -> Data:
    writer = ShardWriter(tmp_path / "data" / "faces", 2**20)
    for item in ROWS:
        writer.add(item)
    writer.close()
    rows = [processed_row(number, item) for number, item in enumerate(ROWS)]
    rows[4] |= {"status": "rejected", "reason": "no_face", "image": None, "landmarks": None, "embedding": None}
    processed = write_shards(tmp_path / "data" / "processed", PROCESSED_SCHEMA, [rows[::2], rows[1::2]])
    return Data(writer.folder, processed, params)


def ingest(params: Params, source: Path, faces: Path, layout: str = "auto") -> list[dict[str, object]]:
    """Ingest `source` into the new folder `faces` and return its rows."""
    run(params, Inputs(source, layout), Outputs(faces))
    return read_rows(faces, DATASET_SCHEMA).to_pylist()


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
