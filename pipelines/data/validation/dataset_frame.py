"""Read the metadata of a dataset version as a data frame; no pixel is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.row_schemas import DATASET_SCHEMA, read_rows

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ["image_id", "identity", "file_name", "format", "width", "height", "n_bytes", "prompt"]


def dataset_frame(folder: Path) -> pd.DataFrame:
    """Return a frame with one row per photo of a dataset folder.

    Added columns: `shorter_side` and `pixels` (null where the header cannot be read) and `photos_of_identity` (null
    where there is no identity). `prompt` and `file_name` hold only "given" or null.
    """
    table = read_rows(folder, DATASET_SCHEMA, _COLUMNS)
    width = table["width"].cast(pa.int64())
    height = table["height"].cast(pa.int64())
    counts = {item["values"]: item["counts"] for item in pc.value_counts(table["identity"]).to_pylist()}
    frame = pa.table(
        {
            "image_id": table["image_id"],
            "identity": table["identity"],
            "file_name": _given(table["file_name"]),
            "format": table["format"],
            "n_bytes": table["n_bytes"],
            "shorter_side": pc.min_element_wise(width, height, skip_nulls=False),
            "pixels": pc.multiply(width, height),
            "prompt": _given(table["prompt"]),
        }
    ).to_pandas(deduplicate_objects=True, self_destruct=True)
    frame["photos_of_identity"] = frame["identity"].map(counts).where(frame["identity"].notna())
    return frame


def _given(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Replace every text by "given" and keep nulls, since millions of different texts would fill the memory."""
    return pc.if_else(pc.is_valid(column), "given", pa.scalar(None, pa.string()))
