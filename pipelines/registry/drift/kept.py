"""Keep the sample of a version's photos in the state of the project: compared again, its data is not brought back.

A file has a row a photo, with the columns by which `forget` finds whether a person is in it, and deletes it then.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.core.errors import UserError
from pipelines.core.files import atomic_file
from pipelines.core.locks import share
from pipelines.core.row_schemas import list_matrix
from pipelines.registry.drift.features import NUMBERS, WORDS, Sample
from pipelines.versions.forgotten import gate
from pipelines.versions.state import DRIFT, LOCK, shared_state

# Changes when a feature is measured in another way.
_VERSION = 1
_SIDE = 512


def keep_sample(root: Path, objects: Mapping[str, str], size: int, sample: Sample) -> None:
    """Keep the sample of at most `size` photos of the version whose folders have DVC's hashes `objects`."""
    names = [None if who == photo else who for who, photo in zip(sample.person, sample.image_ids, strict=True)]
    columns = {
        "image_id": sample.image_ids,
        "identity": pa.array(names, pa.string()),
        "photos": np.full(len(sample), sample.photos),
        "embedding": pa.array([None if np.isnan(row[0]) else row for row in sample.embeddings], pa.list_(pa.float32())),
        **sample.numbers,
        **sample.words,
    }
    file = _file(root, objects, size)
    with _shared(file.parent), atomic_file(file) as part:
        pq.write_table(pa.table(columns), part)


def kept_sample(root: Path, objects: Mapping[str, str], size: int) -> Sample | None:
    """Return what `keep_sample` has kept; None where there is no whole file of it.

    One that shows people or photos who were forgotten elsewhere, as the list of the forgotten says, is deleted.
    """
    file = _file(root, objects, size)
    try:
        with _shared(file.parent):
            rows = pq.read_table(file)
    except (FileNotFoundError, pa.ArrowInvalid):
        return None
    names, photos = rows["identity"].to_pylist(), rows["image_id"].to_pylist()
    if any(map(gate(root).reason, names, photos)):
        file.unlink(missing_ok=True)
        return None
    return Sample(
        rows["image_id"].to_numpy().astype(str),
        pc.coalesce(rows["identity"], rows["image_id"]).to_numpy().astype(str),
        {name: rows[name].to_numpy() for name in NUMBERS},
        {name: rows[name].to_numpy().astype(str) for name in WORDS},
        list_matrix(rows["embedding"], _SIDE, np.float32),
        rows["photos"][0].as_py(),
    )


def _file(root: Path, objects: Mapping[str, str], size: int) -> Path:
    key = hashlib.sha256(json.dumps([_VERSION, size, dict(objects)], sort_keys=True).encode()).hexdigest()
    return shared_state(root) / DRIFT / f"{key[:32]}.parquet"


def _shared(folder: Path) -> AbstractContextManager[Any]:
    return share(folder / LOCK, UserError(f"{folder}: `forget` or `clean` is at work there; wait for it to end"))
