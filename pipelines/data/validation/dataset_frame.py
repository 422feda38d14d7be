"""Read the metadata of a dataset version as a data frame; no pixel is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.core.row_schemas import DATASET_SCHEMA, open_rows, read_rows
from pipelines.core.sections.data import Rights
from pipelines.data.rights import COLUMNS, compared, refusals, refuses_photo
from pipelines.data.spark import data_frame
from pipelines.data.validation.own_checks import GIVEN

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ["image_id", "identity", "file_name", "format", "width", "height", "n_bytes", "prompt", *COLUMNS]
_CONSENT, _REFUSES, _PERMITTED = "consent_of_permitted", "refuses", "permitted"


def dataset_frame(folder: Path, rights: Rights) -> pd.DataFrame:
    """Return a frame with one row per photo of a dataset folder.

    Added columns: `shorter_side` and `pixels` (null where the header cannot be read) and `photos_of_identity` (null
    where there is no identity). `prompt` and `file_name` hold only "given" or null. `consent_of_permitted` is null for
    photos that `rights` does not permit, and where no consent is needed; "" where one is needed and none is given.
    """
    return frame_of(read_rows(folder, DATASET_SCHEMA, _COLUMNS), rights)


def frame_of(table: pa.Table, rights: Rights) -> pd.DataFrame:
    """Return the frame of rows of a dataset."""
    rows = _described(table, rights)
    counts = {item["values"]: item["counts"] for item in pc.value_counts(rows["identity"]).to_pylist()}
    refused = pc.is_in(rows["image_id"], pc.unique(rows["image_id"].filter(rows[_REFUSES])))
    permitted = pc.and_not(rows[_PERMITTED], refused)
    used = pc.is_in(rows["image_id"], pc.unique(rows["image_id"].filter(permitted)))
    consent = pc.if_else(used, rows[_CONSENT], pa.scalar(None, pa.string()))
    frame = rows.drop_columns([_REFUSES, _PERMITTED]).set_column(rows.column_names.index(_CONSENT), _CONSENT, consent)
    frame = frame.to_pandas(deduplicate_objects=True, self_destruct=True)
    frame["photos_of_identity"] = frame["identity"].map(counts).where(frame["identity"].notna())
    return frame


def spark_frame(context: Any, folder: Path, rights: Rights) -> Any:
    """Return the frame of `dataset_frame` as a DataFrame of Spark, whose workers read the shards."""
    from pyspark.sql import Window
    from pyspark.sql import functions as sql

    def read(shard: str) -> pa.Table:
        return _described(pq.read_table(shard, columns=_COLUMNS, use_threads=False), rights)

    shards = [str(Path(file).resolve()) for file in open_rows(folder, DATASET_SCHEMA).files]
    rows = data_frame(context, shards, read, _described(DATASET_SCHEMA.empty_table(), rights).schema, len(shards))
    photo = Window.partitionBy("image_id")
    used = sql.max(_PERMITTED).over(photo) & ~sql.max(_REFUSES).over(photo)
    people = rows.groupBy("identity").agg(sql.count("*").cast("double").alias("photos_of_identity"))
    rows = rows.withColumn(_CONSENT, sql.when(used, rows[_CONSENT])).drop(_PERMITTED, _REFUSES)
    return rows.join(people, "identity", "left").select(*rows.columns, "photos_of_identity")


def _described(table: pa.Table, rights: Rights) -> pa.Table:
    """Return what a row alone decides of a frame: `consent_of_permitted` is the row's own consent, also where it is not
    permitted; `refuses` says whether that consent refuses the photo, `permitted` whether `rights` permits the row."""
    width, height = (table[name].cast(pa.int64()) for name in ("width", "height"))
    reasons = refusals(rights, table)
    consents = table["consent"].combine_chunks().dictionary_encode()
    texts = pa.array([compared(value) or None for value in consents.dictionary.to_pylist()], pa.string())
    needed = "" if rights.consent.unknown == "deny" else None
    consent = texts.take(consents.indices)
    return pa.table(
        {
            "image_id": table["image_id"],
            "identity": table["identity"],
            "file_name": _given(table["file_name"]),
            "format": table["format"],
            "n_bytes": table["n_bytes"],
            "shorter_side": pc.min_element_wise(width, height, skip_nulls=False),
            "pixels": pc.multiply(width, height),
            "prompt": _given(table["prompt"]),
            _CONSENT: pc.coalesce(consent, pc.if_else(reasons.is_null(), pa.scalar(needed, pa.string()), consent)),
            _REFUSES: refuses_photo(reasons),
            _PERMITTED: reasons.is_null(),
        }
    )


def _given(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Replace every text by GIVEN and keep nulls, since millions of different texts would fill the memory."""
    return pc.if_else(pc.is_valid(column), GIVEN, pa.scalar(None, pa.string()))
