"""Read the processed rows as a data frame: a vector becomes one number, and pictures are not read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from PIL import Image

from pipelines.core.row_schemas import OK, PROCESSED_SCHEMA, REJECTED, list_matrix, open_rows

if TYPE_CHECKING:
    import pandas as pd

_PLAIN = [
    "image_id",
    "identity",
    "file_name",
    "split",
    "status",
    "reason",
    "expression",
    "pose",
    "yaw",
    "pitch",
    "roll",
    "det_score",
]
# Columns of lists, and the length that each must have.
_VECTORS = {"embedding": 512, "landmarks": 136, "keypoints": 10, "bbox": 4}
_TEXTS = ["prompt", "face_prompt"]
_MOTION = ["expression", "pose", "pose_source"]
_MISSING = "missing"
# Rows whose vectors are in memory at once: about 30 MB.
_BATCH = 8192
_LISTED = 20


def processed_frame(folder: Path) -> pd.DataFrame:
    """Return a frame with one row per processed row.

    Where an accepted row lacks a required value, the frame holds a value that fails its check (0, infinity, "missing");
    in rejected rows these columns, except `split`, are null. Derived columns: `embedding_norm`; `points_finite` and
    `bbox_inside` (1 or 0); `reason_fits` (1 or 0: rejected rows have a reason, accepted ones none); `accepted` (1 or 0,
    null for duplicates); `accepted_identity` and `test_identity` (null in other rows); `splits_of_identity` (number of
    splits); `names_expression`, `names_pose` (1, or 0 where it is open) and `names_both` (in split train only);
    `repeats` (number of rows with the same name and bytes).
    """
    import pandas as pd

    dataset = open_rows(folder, PROCESSED_SCHEMA)
    side = _picture_side(dataset)
    columns = [*_PLAIN, "pose_source", *_VECTORS, *_TEXTS]
    no_rows = pa.RecordBatch.from_pylist([], pa.schema([PROCESSED_SCHEMA.field(name) for name in columns]))
    parts = [_part(batch, side) for batch in dataset.to_batches(columns=columns, batch_size=_BATCH) if batch.num_rows]
    frame = pd.concat(parts or [_part(no_rows, side)], ignore_index=True)
    identity = frame["identity"]
    frame["accepted_identity"] = identity.where(frame["status"] == OK)
    frame["test_identity"] = identity.where((frame["status"] == OK) & (frame["split"] == "test"))
    frame["splits_of_identity"] = frame.groupby("identity")["split"].transform("nunique")
    frame["repeats"] = frame.groupby("row_key")["row_key"].transform("size")
    return frame.drop(columns="row_key")


def doubtful_faces(folder: Path, bound: float | None) -> Iterator[str]:
    """Yield a line for each of the accepted faces with the lowest scores below `bound`, and one for the others."""
    if bound is None:
        return
    wanted = (ds.field("status") == OK) & (ds.field("det_score") < bound)
    rows = open_rows(folder, PROCESSED_SCHEMA).to_table(columns=["file_name", "det_score"], filter=wanted)
    for row in rows.sort_by("det_score").slice(0, _LISTED).to_pylist():
        score = f"score {_below(row['det_score'], bound)} < {bound:g}"
        yield f"doubtful face: {row['file_name']} ({score}); a statue, a mask, a picture?"
    if rows.num_rows > _LISTED:
        yield f"and {rows.num_rows - _LISTED} more doubtful faces: `det_score` in {folder}"


def _below(value: float, bound: float) -> str:
    """Return a value with as many digits, two at least, as tell it from the bound above it."""
    return next((text for digits in range(2, 9) if float(text := f"{value:.{digits}f}") < bound), f"{value:g}")


def _part(batch: pa.RecordBatch, side: int) -> pd.DataFrame:
    import pandas as pd

    ok = pc.equal(batch.column("status"), OK).fill_null(False).to_numpy(zero_copy_only=False)
    frame = pa.Table.from_batches([batch.select([name for name in _PLAIN if name != "file_name"])]).to_pandas()
    frame["split"] = frame["split"].where(~ok | frame["split"].notna(), _MISSING)
    expression, pose, measured = (batch.column(name).is_valid().to_numpy(zero_copy_only=False) for name in _MOTION)
    # Rows of an older format have no source of the pose: there it is read from the face prompt or the angle.
    pose |= ~measured
    frame["names_expression"] = np.where(ok, expression.astype(float), np.nan)
    frame["names_pose"] = np.where(ok, pose.astype(float), np.nan)
    frame["names_both"] = np.where(ok & (frame["split"] == "train"), (expression & pose).astype(float), np.nan)
    for name in ("yaw", "pitch", "roll"):
        # An accepted row without an angle must fail the range check, so it gets infinity.
        frame[name] = frame[name].where(~ok | np.isfinite(frame[name]), np.inf).where(ok)
    frame["det_score"] = frame["det_score"].where(ok)
    for name in _TEXTS:
        given = batch.column(name).is_valid().to_numpy(zero_copy_only=False)
        frame[name] = np.where(ok, np.where(given, 1.0, 0.0), np.nan)
    vectors = {name: list_matrix(batch.column(name), width) for name, width in _VECTORS.items()}
    frame["embedding_norm"] = np.where(ok, np.nan_to_num(np.linalg.norm(vectors["embedding"], axis=1)), np.nan)
    finite = np.isfinite(vectors["landmarks"]).all(1) & np.isfinite(vectors["keypoints"]).all(1)
    frame["points_finite"] = np.where(ok, finite.astype(float), np.nan)
    frame["bbox_inside"] = np.where(ok, _inside(vectors["bbox"], side).astype(float), np.nan)
    rejected = (frame["status"] == REJECTED).to_numpy()
    frame["reason_fits"] = (frame["reason"].notna().to_numpy() == rejected).astype(float)
    frame["accepted"] = np.where(frame["reason"] == "duplicate", np.nan, ok.astype(float))
    keys = pd.DataFrame({name: batch.column(name).to_pandas() for name in ("file_name", "image_id")})
    frame["row_key"] = pd.util.hash_pandas_object(keys, index=False).to_numpy()
    return frame


def _inside(boxes: np.ndarray, side: int) -> np.ndarray:
    x0, y0, x1, y1 = boxes.T
    with np.errstate(invalid="ignore"):
        return (x0 >= 0) & (y0 >= 0) & (x1 <= side) & (y1 <= side) & (x1 > x0) & (y1 > y0)


def _picture_side(dataset: ds.Dataset) -> int:
    """Return the side in pixels of the stored pictures, from the header of the first; 0 where there is none."""
    accepted = (ds.field("status") == OK) & ds.field("image").is_valid()
    # No read-ahead: one picture is enough.
    lazily = {"batch_size": 16, "batch_readahead": 0, "fragment_readahead": 0, "use_threads": False}
    first = dataset.head(1, columns=["image"], filter=accepted, **lazily)
    if not first.num_rows:
        return 0
    with Image.open(io.BytesIO(first["image"][0].as_py())) as picture:
        return max(picture.size)
