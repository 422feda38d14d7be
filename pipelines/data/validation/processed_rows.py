"""Read what each processed row alone says of itself: a vector becomes one number, and pictures are not read."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from PIL import Image
from pyarrow import fs

from pipelines.core.row_schemas import OK, PROCESSED_SCHEMA, REJECTED, list_matrix, open_rows

if TYPE_CHECKING:
    import pandas as pd

_KEPT = ("image_id", "identity", "split", "status", "reason", "expression", "pose")
_ANGLES = ("yaw", "pitch", "roll")
# Columns of lists, and the length that each must have.
_VECTORS = {"embedding": 512, "landmarks": 136, "keypoints": 10, "bbox": 4}
_TEXTS = ("prompt", "face_prompt")
_COLUMNS = [*_KEPT, "file_name", "pose_source", *_ANGLES, "det_score", *_VECTORS, *_TEXTS]
_MOTION = ("expression", "pose", "pose_source")
_MISSING = "missing"
ROW_KEY = "row_key"
_NUMBERS = (
    *(*_ANGLES, "det_score", *_TEXTS, "names_expression", "names_pose", "names_both", "embedding_norm"),
    *("points_finite", "bbox_inside", "reason_fits", "accepted", "other_names"),
)
# The columns of `RowReader.read`; ROW_KEY is a hash of name and bytes.
DESCRIBED = pa.schema(
    [*((name, pa.string()) for name in _KEPT), *((name, pa.float64()) for name in _NUMBERS), (ROW_KEY, pa.int64())]
)
# Rows whose vectors are in memory at once: about 60 MB.
_BATCH = 8192


@dataclass(frozen=True)
class Piece:
    """Some row groups of a shard: one, or as many as have at most _BATCH rows."""

    shard: str
    groups: list[int]


class RowReader:
    """Reads the processed rows of a folder in pieces; Spark's workers get a copy of it.

    `other_names`: people who seem to be in another split under another name. Raises as `open_rows`.
    """

    def __init__(self, folder: Path, other_names: Collection[str]) -> None:
        dataset = open_rows(folder, PROCESSED_SCHEMA)
        self.pieces = [piece for file in dataset.files for piece in _pieces(file)]
        self._schema, self._side, self._other_names = dataset.schema, _picture_side(dataset), sorted(other_names)

    def read(self, piece: Piece) -> pd.DataFrame:
        """Return the columns DESCRIBED of the rows of a piece, in their order."""
        import pandas as pd

        fragment = ds.ParquetFileFormat().make_fragment(piece.shard, fs.LocalFileSystem(), row_groups=piece.groups)
        rows = fragment.to_table(schema=self._schema, columns=_COLUMNS, use_threads=False)
        slices = (rows.slice(start, _BATCH) for start in range(0, rows.num_rows, _BATCH))
        return pd.concat([described(some, self._side, self._other_names) for some in slices], ignore_index=True)


def _pieces(file: str) -> Iterator[Piece]:
    shard, metadata, size = str(Path(file).resolve()), pq.read_metadata(file), 0
    groups: list[int] = []
    for number in range(metadata.num_row_groups):
        rows = metadata.row_group(number).num_rows
        if groups and size + rows > _BATCH:
            yield Piece(shard, groups)
            groups, size = [], 0
        groups.append(number)
        size += rows
    if size:
        yield Piece(shard, groups)


def described(rows: pa.Table, side: int, other_names: Collection[str]) -> pd.DataFrame:
    """Return the columns DESCRIBED of processed rows whose pictures have `side` pixels."""
    import pandas as pd

    ok = pc.equal(rows["status"], OK).fill_null(False).to_numpy()
    frame = rows.select([*_KEPT, *_ANGLES, "det_score"]).to_pandas()
    frame["split"] = frame["split"].where(~ok | frame["split"].notna(), _MISSING)
    expression, pose, measured = (rows[name].is_valid().to_numpy() for name in _MOTION)
    # Rows of an older format have no source of the pose: there it is read from the face prompt or the angle.
    pose = pose | ~measured
    frame["names_expression"] = np.where(ok, expression.astype(float), np.nan)
    frame["names_pose"] = np.where(ok, pose.astype(float), np.nan)
    frame["names_both"] = np.where(ok & (frame["split"] == "train"), (expression & pose).astype(float), np.nan)
    for name in _ANGLES:
        # An accepted row without an angle must fail the range check, so it gets infinity.
        frame[name] = frame[name].astype(float).where(~ok | np.isfinite(frame[name]), np.inf).where(ok)
    # As numbers of 64 bits, which both engines compare with a bound in the same way.
    frame["det_score"] = frame["det_score"].astype(float).where(ok)
    for name in _TEXTS:
        given = rows[name].is_valid().to_numpy()
        frame[name] = np.where(ok, np.where(given, 1.0, 0.0), np.nan)
    vectors = {name: list_matrix(rows[name], width) for name, width in _VECTORS.items()}
    frame["embedding_norm"] = np.where(ok, np.nan_to_num(np.linalg.norm(vectors["embedding"], axis=1)), np.nan)
    finite = np.isfinite(vectors["landmarks"]).all(1) & np.isfinite(vectors["keypoints"]).all(1)
    frame["points_finite"] = np.where(ok, finite.astype(float), np.nan)
    frame["bbox_inside"] = np.where(ok, _inside(vectors["bbox"], side).astype(float), np.nan)
    rejected = (frame["status"] == REJECTED).to_numpy()
    frame["reason_fits"] = (frame["reason"].notna().to_numpy() == rejected).astype(float)
    frame["accepted"] = np.where(frame["reason"] == "duplicate", np.nan, ok.astype(float))
    frame["other_names"] = frame["identity"].isin(other_names).astype(float)
    keys = rows.select(["file_name", "image_id"]).to_pandas()
    frame[ROW_KEY] = pd.util.hash_pandas_object(keys, index=False).to_numpy().view(np.int64)
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
