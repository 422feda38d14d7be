"""What is compared of a dataset version: numbers of a sample of its photos, none of their pixels kept."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipelines.core.errors import StageFailed
from pipelines.core.records import DATASET_SCHEMA, OK, PROCESSED_SCHEMA, read_rows

NUMBERS: tuple[str, ...] = ("yaw", "pitch", "brightness", "size")
WORDS: tuple[str, ...] = ("expression", "outcome")
EMBEDDING = "embedding"
FEATURES: tuple[str, ...] = (EMBEDDING, *NUMBERS, *WORDS)


@dataclass(frozen=True)
class Sample:
    """Photos of one dataset version, row by row.

    `person` (N,) is who is shown (the photo itself where nobody is named); `numbers` has (N,) float64 each: `yaw`,
    `pitch` in degrees, `brightness` (mean luminance of the stored picture, 0 to 1), `size` (shorter side of the photo
    as found, log2 of pixels); `words` (N,) str each: `expression`, `outcome` (`ok` or the reason of a rejection);
    `embeddings` (N, 512). NaN, and an empty word, where a rejected photo has none. `photos` counts the whole version.
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
    """Read at most `size` photos of a version from its two folders; the same version always gives the same ones.

    A photo's id is a hash, so the first ids in order are a fair sample, and versions that share photos share them here
    too. Raises UserError where a folder holds no rows, StageFailed where they do not belong together.
    """
    ids = np.array(read_rows(processed, PROCESSED_SCHEMA, ["image_id"])["image_id"].to_pylist())
    if not len(ids):
        raise StageFailed(f"{processed}: no rows to compare; run preprocess")
    chosen = np.unique(ids)[:size]
    table = _of(processed, PROCESSED_SCHEMA, chosen, _COLUMNS)
    sides = _sides(faces, chosen)
    found = table["image_id"].to_pylist()
    if missing := [one for one in found if one not in sides]:
        raise StageFailed(
            f"{processed}: {len(missing)} photos are not in {faces} (such as {missing[0][:12]}); run preprocess on it"
        )
    ok = np.array([status == OK for status in table["status"].to_pylist()])
    people = [who if who is not None else one for who, one in zip(table["identity"].to_pylist(), found, strict=True)]
    numbers = {name: _floats(table[name].to_pylist(), ok) for name in ("yaw", "pitch")}
    numbers["brightness"] = np.array([_brightness(bytes_) for bytes_ in table["image"].to_pylist()])
    numbers["size"] = np.log2([sides[one] or np.nan for one in found])
    embeddings = np.full((len(found), 512), np.nan, np.float32)
    for row, values in enumerate(table["embedding"].to_pylist()):
        if values is not None and ok[row]:
            embeddings[row] = values
    reasons = zip(table["status"].to_pylist(), table["reason"].to_pylist(), strict=True)
    words = {
        "expression": np.array([word or "" for word in table["expression"].to_pylist()]),
        "outcome": np.array([status if status == OK else reason or status for status, reason in reasons]),
    }
    words["expression"][~ok] = ""
    return Sample(np.array(found), np.array(people), numbers, words, embeddings, len(ids))


_COLUMNS = ["image_id", "identity", "status", "reason", "image", "yaw", "pitch", "expression", "embedding"]


def _of(folder: Path, schema: object, ids: np.ndarray, columns: list[str]):  # type: ignore[no-untyped-def]
    import pyarrow as pa
    import pyarrow.dataset as ds

    wanted = ds.field("image_id").isin(pa.array(ids.tolist()))
    table = read_rows(folder, schema, columns, wanted)  # type: ignore[arg-type]
    order = np.argsort(np.array(table["image_id"].to_pylist()), kind="stable")
    table = table.take(order)
    names = table["image_id"].to_pylist()
    # A repeat of the same bytes is a row of its own, rejected as a duplicate; the photo counts once.
    first = [row for row, name in enumerate(names) if row == 0 or names[row - 1] != name]
    return table.take(pa.array(first, pa.int64()))


def _sides(faces: Path, ids: np.ndarray) -> dict[str, int | None]:
    table = _of(faces, DATASET_SCHEMA, ids, ["image_id", "width", "height"])
    sizes = zip(table["width"].to_pylist(), table["height"].to_pylist(), strict=True)
    shorter = [min(width, height) if width and height else None for width, height in sizes]
    return dict(zip(table["image_id"].to_pylist(), shorter, strict=True))


def _floats(values: Iterable[float | None], ok: np.ndarray) -> np.ndarray:
    numbers = np.array([np.nan if value is None else value for value in values], dtype=float)
    return np.where(ok, numbers, np.nan)


def _brightness(picture: bytes | None) -> float:
    from PIL import Image

    if picture is None:
        return float("nan")
    with Image.open(io.BytesIO(picture)) as image:
        image.draft("L", (64, 64))  # the decoder's own reduction: an eighth of the work
        return float(np.asarray(image.convert("L"), np.float32).mean() / 255)
