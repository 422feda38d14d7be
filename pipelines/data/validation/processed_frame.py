"""Make a data frame of the processed rows, of pandas or of Spark, and name the doubtful faces."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as ds

from pipelines.core.row_schemas import OK, PROCESSED_SCHEMA, open_rows
from pipelines.core.words import counted
from pipelines.data.spark import data_frame
from pipelines.data.validation.processed_rows import DESCRIBED, ROW_KEY, Piece, RowReader, described

if TYPE_CHECKING:
    import pandas as pd

# Pieces of some 8,000 rows that one Spark task reads.
_PIECES_OF_TASK = 8
_LISTED = 20


def processed_frame(folder: Path, other_names: Collection[str] = ()) -> pd.DataFrame:
    """Return a frame with one row per processed row; `other_names`: people with another name in another split.

    Where an accepted row lacks a required value, the frame holds a value that fails its check (0, infinity, "missing");
    in rejected rows these columns, except `split`, are null. Derived columns: `embedding_norm`; `points_finite` and
    `bbox_inside` (1 or 0); `reason_fits` (1 or 0: rejected rows have a reason, accepted ones none); `accepted` (1 or 0,
    null for duplicates); `accepted_identity` and `test_identity` (null in other rows); `splits_of_identity` (number of
    splits); `names_expression`, `names_pose` (1, or 0 where it is open) and `names_both` (in split train only);
    `repeats` (number of rows with the same name and bytes); `other_names` (1 or 0).
    """
    import pandas as pd

    reader = RowReader(folder, other_names)
    if not reader.pieces:
        return empty_frame()
    return _with_derived(pd.concat([reader.read(piece) for piece in reader.pieces], ignore_index=True))


def empty_frame() -> pd.DataFrame:
    """Return the frame of no rows."""
    return _with_derived(described(PROCESSED_SCHEMA.empty_table(), 0, ()))


def spark_frame(context: Any, folder: Path, other_names: Collection[str] = ()) -> Any:
    """Return the frame of `processed_frame` as a DataFrame of Spark, whose workers read the shards."""
    from pyspark.sql import Window
    from pyspark.sql import functions as sql

    reader = RowReader(folder, other_names)

    def read(piece: Piece) -> pa.Table:
        return pa.Table.from_pandas(reader.read(piece), DESCRIBED, preserve_index=False)

    rows = data_frame(context, reader.pieces, read, DESCRIBED, -(-len(reader.pieces) // _PIECES_OF_TASK) or 1)
    accepted = rows["status"] == OK
    people = rows.groupBy("identity").agg(sql.countDistinct("split").alias("splits_of_identity"))
    derived = {
        "accepted_identity": sql.when(accepted, rows["identity"]),
        "test_identity": sql.when(accepted & (rows["split"] == "test"), rows["identity"]),
        "repeats": sql.count("*").over(Window.partitionBy(ROW_KEY)),
    }
    return rows.withColumns(derived).drop(ROW_KEY).join(people, "identity", "left")


def _with_derived(frame: pd.DataFrame) -> pd.DataFrame:
    """Add the columns that other rows decide, too."""
    identity = frame["identity"]
    frame["accepted_identity"] = identity.where(frame["status"] == OK)
    frame["test_identity"] = identity.where((frame["status"] == OK) & (frame["split"] == "test"))
    frame["splits_of_identity"] = frame.groupby("identity")["split"].transform("nunique")
    frame["repeats"] = frame.groupby(ROW_KEY)[ROW_KEY].transform("size")
    return frame.drop(columns=ROW_KEY)


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
        yield f"and {counted(rows.num_rows - _LISTED, 'more doubtful face')}: `det_score` in {folder}"


def _below(value: float, bound: float) -> str:
    """Return a value with as many digits, two at least, as tell it from the bound above it."""
    return next((text for digits in range(2, 9) if float(text := f"{value:.{digits}f}") < bound), f"{value:g}")
