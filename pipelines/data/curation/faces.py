"""Hold all faces of a source in memory, with the decision about each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pipelines.core.row_schemas import list_matrix
from pipelines.data.curation.records import FACES_SCHEMA, LEFT_OUT, REASONS, SELECTED

_LISTS = ("embedding", "landmarks", "texture", "thumbnail", "bbox")
_EMBEDDING, _POINTS, _TEXTURE = 512, 136, 256


class Faces:
    """N rows, one per face or photo without a face, in the order of file names and faces.

    `rows` (DataFrame) has the measurements and the decisions made so far. The arrays have the same N rows, with NaN or
    zeros for photos without a face: `embeddings` (N, 512), `landmarks` (N, 68, 2) in the unit crop frame, `textures`
    (N, 256) uint8 grey values, `boxes` (N, 4). About 3 kB a row; thumbnails are read for the report, those it shows.
    """

    def __init__(self, analysed: pa.Table) -> None:
        # The stubs of DataFrame do not have the types of its columns.
        self.rows: Any = analysed.select([name for name in analysed.schema.names if name not in _LISTS]).to_pandas()
        self.embeddings = list_matrix(analysed["embedding"], _EMBEDDING, np.float32)
        self.landmarks = list_matrix(analysed["landmarks"], _POINTS, np.float32).reshape(-1, 68, 2)
        self.boxes = list_matrix(analysed["bbox"], 4, np.float32)
        self.textures = _textures(analysed["texture"])
        for name in ("label", "identity", "selected_file", "prompt", "face_prompt"):
            self.rows[name] = pd.Series([None] * len(self.rows), dtype=object)
        for name in ("reason", "detail", "expression", "image_id"):
            self.rows[name] = self.rows[name].astype(object).where(self.rows[name].notna(), None)
        self.rows["similarity"] = np.nan
        self.rows["cluster"] = -1

    @property
    def candidates(self) -> np.ndarray:
        """A mask (N,) of the rows that are a face and have not been left out."""
        mask: np.ndarray = (self.rows["reason"].isna() & self.rows["face_index"].notna()).to_numpy()
        return mask

    def leave_out(self, rows: Iterable[int] | np.ndarray, reason: str, details: Iterable[str] | None = None) -> None:
        """Leave rows (numbers, or a mask) out for a reason of REASONS; a row keeps its first reason."""
        if reason not in REASONS:
            raise ValueError(f"{reason}: not in pipelines.data.curation.records.REASONS")
        numbers = np.asarray(list(rows) if not isinstance(rows, np.ndarray) else rows)
        numbers = np.flatnonzero(numbers) if numbers.dtype == bool else numbers.astype(int)
        texts = list(details) if details is not None else [None] * len(numbers)
        for number, text in zip(numbers, texts, strict=True):
            if self.rows.at[number, "reason"] is None:
                self.rows.at[number, "reason"] = reason
                self.rows.at[number, "detail"] = text

    def similarities(self, members: np.ndarray) -> np.ndarray:
        """Return the cosine of each member (row numbers) to the mean of the others; NaN for a single member."""
        if len(members) < 2:
            return np.full(len(members), np.nan)
        own = self.embeddings[members].astype(np.float64)
        others = own.sum(0) - own
        return np.einsum("ij,ij->i", own, others) / np.maximum(np.linalg.norm(others, axis=1), 1e-12)

    def quality(self) -> np.ndarray:
        """Return a score (N,) of each row as a picture of a face: larger is better, only the order counts."""
        rows = self.rows
        # Twice the size counts as much as four times the sharpness.
        value = np.log2(np.maximum(rows["side"].fillna(1), 1)) + 0.5 * np.log2(
            np.maximum(rows["sharpness"].fillna(0), 1)
        )
        result: np.ndarray = (value + rows["det_score"].fillna(0)).to_numpy(float)
        return result

    def table(self) -> pa.Table:
        """Return the rows of `faces.parquet`."""
        rows = self.rows.assign(status=np.where(self.rows["selected_file"].notna(), SELECTED, LEFT_OUT))
        columns: list[pa.Array] = []
        for field in FACES_SCHEMA:
            if field.name == "bbox":
                boxes = [None if np.isnan(box).any() else box for box in self.boxes]
                columns.append(pa.array(boxes, field.type))
            else:
                columns.append(pa.Array.from_pandas(rows[field.name], type=field.type))
        return pa.Table.from_arrays(columns, schema=FACES_SCHEMA)


def _textures(column: pa.ChunkedArray) -> np.ndarray:
    matrix = np.zeros((len(column), _TEXTURE), np.uint8)
    for row, value in enumerate(column):
        if value.is_valid:
            matrix[row] = np.frombuffer(value.as_buffer(), np.uint8)
    return matrix


def unit_textures(textures: np.ndarray) -> np.ndarray:
    """Return grey values (N, 256) as vectors of zero mean and unit norm, float32; zeros stay zeros."""
    grey = textures.astype(np.float32)
    grey -= grey.mean(1, keepdims=True)
    result: np.ndarray = grey / np.maximum(np.linalg.norm(grey, axis=1, keepdims=True), 1e-6)
    return result
