"""Read the metadata of a dataset version as a data frame; no pixel is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.row_schemas import DATASET_SCHEMA, open_rows, read_rows
from pipelines.core.sections.data import Rights
from pipelines.data.rights import COLUMNS, compared, refusal_of, refused_photos
from pipelines.data.validation.own_checks import GIVEN

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ["image_id", "identity", "file_name", "format", "width", "height", "n_bytes", "prompt"]


def dataset_frame(folder: Path, rights: Rights) -> pd.DataFrame:
    """Return a frame with one row per photo of a dataset folder.

    Added columns: `shorter_side` and `pixels` (null where the header cannot be read) and `photos_of_identity` (null
    where there is no identity). `prompt` and `file_name` hold only "given" or null. `consent_of_permitted` is null for
    photos that `rights` does not permit, and where no consent is needed; "" where one is needed and none is given.
    """
    table = read_rows(folder, DATASET_SCHEMA, [*_COLUMNS, *COLUMNS])
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
            "consent_of_permitted": _consents(
                table, rights, refused_photos(open_rows(folder, DATASET_SCHEMA).files, rights)
            ),
        }
    ).to_pandas(deduplicate_objects=True, self_destruct=True)
    frame["photos_of_identity"] = frame["identity"].map(counts).where(frame["identity"].notna())
    return frame


def _consents(table: pa.Table, rights: Rights, refused: frozenset[str]) -> pa.Array:
    """Return the consent of each row of a photo that `rights` permits, in the form that is compared, else null."""
    names = ("image_id", *COLUMNS)
    rows = [
        dict(zip(names, row, strict=True)) for row in zip(*(table[name].to_pylist() for name in names), strict=True)
    ]
    permits = [refusal_of(rights, row, refused) is None for row in rows]
    used = {row["image_id"] for row, permitted in zip(rows, permits, strict=True) if permitted}
    none = {True: "" if rights.consent.unknown == "deny" else None, False: None}
    return pa.array(
        [
            (compared(row["consent"]) or none[permitted]) if row["image_id"] in used else None
            for row, permitted in zip(rows, permits, strict=True)
        ],
        pa.string(),
    )


def _given(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Replace every text by GIVEN and keep nulls, since millions of different texts would fill the memory."""
    return pc.if_else(pc.is_valid(column), GIVEN, pa.scalar(None, pa.string()))
