"""Is a folder of processed photos made from a dataset folder? Every row of one must then be in the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from pipelines.core.errors import StageFailed
from pipelines.core.people import normal_name
from pipelines.core.row_schemas import DATASET_SCHEMA, PROCESSED_SCHEMA, open_rows, read_rows
from pipelines.core.words import counted

# What preprocessing copies from a dataset: who is on a photo, and what may be done with it.
_COPIED = ("image_id", "identity", "file_name", "source", "licence", "consent")


def check_same_photos(faces: Path, processed: Path) -> None:
    """Raise StageFailed unless `processed` has the photos of `faces`, with the same people, consent and licences."""
    here, there = _row_hashes(faces, DATASET_SCHEMA), _row_hashes(processed, PROCESSED_SCHEMA)
    if np.array_equal(np.sort(here), np.sort(there)):
        return
    lines = []
    for folder, schema, rows, other, others in (
        (processed, PROCESSED_SCHEMA, there, faces, here),
        (faces, DATASET_SCHEMA, here, processed, there),
    ):
        odd = np.flatnonzero(~np.isin(rows, others))
        if len(odd):
            example = str(read_rows(folder, schema, ["image_id"])["image_id"][int(odd[0])])
            lines.append(f"{counted(len(odd), 'photo')} of {folder} not in {other} (such as {example[:12]})")
    lines = lines or [f"{processed} and {faces} have not the same number of photos"]
    raise StageFailed(
        f"{' and '.join(lines)}, or have another person, consent or licence there: the two folders are of different "
        f"versions; `dynamicid repro preprocess` makes {processed} again"
    )


def _row_hashes(folder: Path, schema: pa.Schema) -> np.ndarray:
    """Return a hash (uint64) of each row's copied columns."""
    batches = open_rows(folder, schema).to_batches(columns=list(_COPIED), cache_metadata=False)
    hashes: list[np.ndarray] = [np.empty(0, np.uint64)]
    for batch in batches:
        rows = batch.to_pandas()
        rows["identity"] = [normal_name(name) for name in rows["identity"]]  # datasets of earlier versions hold others
        hashes.append(pd.util.hash_pandas_object(rows, index=False).to_numpy())
    return np.concatenate(hashes)
