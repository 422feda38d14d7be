"""The features that drift compares: numbers and words of a sample of a version's photos, without pixels."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.core.errors import StageFailed
from pipelines.core.row_schemas import DATASET_SCHEMA, OK, PROCESSED_SCHEMA, open_rows, read_rows
from pipelines.core.words import counted

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

NUMBERS: tuple[str, ...] = ("yaw", "pitch", "brightness", "size")
WORDS: tuple[str, ...] = ("expression", "outcome")
EMBEDDING = "embedding"
# What each feature is, and the smallest spread of numbers: less is of no account, and in photos of one source, such as
# drawn ones of one size, there may be none. Yaw and pitch in degrees, mean luminance, log2 of pixels (1 is a doubling).
SMALLEST: dict[str, float] = {"yaw": 5.0, "pitch": 5.0, "brightness": 0.05, "size": 1.0}
MEANINGS: dict[str, str] = {
    "embedding": "who is on the photos",
    "yaw": "heads turned to the side",
    "pitch": "heads turned up or down",
    "brightness": "how bright the photos are",
    "size": "the shorter side of the photos as they came",
    "expression": "which expressions there are",
    "outcome": "which photos preprocessing accepted, and why it rejected others",
}
FEATURES: tuple[str, ...] = (EMBEDDING, *NUMBERS, *WORDS)


@dataclass(frozen=True)
class Sample:
    """Photos of one dataset version, row by row.

    `person` (N,) is the identity (the image id where it is unknown); `numbers` has (N,) float64 each: `yaw`, `pitch` in
    degrees, `brightness` (mean luminance of the stored picture, 0 to 1), `size` (log2 of the shorter side of the
    original photo in pixels); `words` (N,) str each: `expression`, `outcome` (`ok` or the reason of a rejection);
    `embeddings` (N, 512). Missing values of rejected photos are NaN or "". `photos` counts the whole version.
    """

    image_ids: np.ndarray
    person: np.ndarray
    numbers: dict[str, np.ndarray]
    words: dict[str, np.ndarray]
    embeddings: np.ndarray
    photos: int

    def __len__(self) -> int:
        return len(self.image_ids)

    def rows(self, chosen: np.ndarray) -> Sample:
        """Return the photos at `chosen` (indices or mask)."""
        return replace(
            self,
            image_ids=self.image_ids[chosen],
            person=self.person[chosen],
            numbers={key: values[chosen] for key, values in self.numbers.items()},
            words={key: values[chosen] for key, values in self.words.items()},
            embeddings=self.embeddings[chosen],
        )


def read_sample(faces: Path, processed: Path, size: int) -> Sample:
    """Read at most `size` photos of a version from its two folders, always the same ones.

    Ids are hashes, so the first ids in order are a random sample, and samples of versions with common photos overlap.
    Raises UserError where a folder has no shards, StageFailed where `processed` has no rows or photos not in `faces`.
    """
    chosen, photos = _first_ids(processed, size)
    if not photos:
        raise StageFailed(f"{processed}: no rows to compare; run preprocess")
    rows = _of(processed, PROCESSED_SCHEMA, chosen, _COLUMNS)
    sizes = _of(faces, DATASET_SCHEMA, chosen, ["image_id", "width", "height"])
    if len(missing := rows.index.difference(sizes.index)):
        raise StageFailed(
            f"{processed}: {counted(len(missing), 'photo')} not in {faces} (such as {missing[0][:12]}); run "
            "preprocess on it"
        )
    ok = (rows["status"] == OK).to_numpy()
    sides = sizes.loc[rows.index].astype(float)
    numbers = {name: np.where(ok, rows[name].to_numpy(float), np.nan) for name in ("yaw", "pitch")}
    numbers["brightness"] = np.array([_brightness(picture) for picture in rows["image"]])
    numbers["size"] = np.log2(sides.where(sides > 0).min(axis=1, skipna=False).to_numpy())
    embeddings = np.full((len(rows), 512), np.nan, np.float32)
    for row in np.flatnonzero(ok & rows["embedding"].notna().to_numpy()):
        embeddings[row] = rows["embedding"].iloc[row]
    outcome = rows["status"].where(ok, rows["reason"].fillna(rows["status"]))
    words = {
        "expression": np.where(ok, rows["expression"].fillna(""), "").astype(str),
        "outcome": outcome.to_numpy(str),
    }
    people = rows["identity"].fillna(rows.index.to_series())
    return Sample(rows.index.to_numpy(str), people.to_numpy(str), numbers, words, embeddings, photos)


_COLUMNS = ["image_id", "identity", "status", "reason", "image", "yaw", "pitch", "expression", "embedding"]


def _first_ids(folder: Path, size: int) -> tuple[pa.Array, int]:
    """Return the first `size` image ids of a folder in order, each once, and the number of rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    first, count = pa.array([], pa.string()), 0
    for batch in open_rows(folder, PROCESSED_SCHEMA).to_batches(columns=["image_id"], cache_metadata=False):
        count += batch.num_rows
        known = pc.unique(pa.concat_arrays([first, batch.column("image_id")]))
        first = known.take(pc.select_k_unstable(known, size, [("", "ascending")]))
    return first.sort(), count


def _of(folder: Path, schema: pa.Schema, ids: pa.Array, columns: list[str]) -> pd.DataFrame:
    """Return the rows of the photos `ids`, indexed and sorted by image id, one row per id."""
    import pyarrow.dataset as ds

    rows = read_rows(folder, schema, columns, ds.field("image_id").isin(ids)).to_pandas()
    # Photos with the same bytes have further rows, which are rejected as duplicates.
    return rows.sort_values("image_id", kind="stable").drop_duplicates("image_id").set_index("image_id")


def _brightness(picture: bytes | None) -> float:
    from PIL import Image

    if picture is None:
        return float("nan")
    with Image.open(io.BytesIO(picture)) as image:
        image.draft("L", (64, 64))  # the decoder's own reduction: an eighth of the work
        return float(np.asarray(image.convert("L"), np.float32).mean() / 255)
