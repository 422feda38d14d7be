"""Rows of a CSV file, as MLflow's own clients write them: cells hold texts, numbers, and lists as JSON or as Python.

MLflow reads such a file with pandas, which leaves lists as texts that no signature with lists accepts.
"""

from __future__ import annotations

import ast
import csv
import io
import json
from itertools import islice
from typing import Any

from pipelines.core.errors import UserError
from pipelines.core.sections.operations import Serve
from pipelines.serving.motion_request import COLUMNS as MOTION

CSV = "text/csv"
_LISTS = ("references", "face_prompts", "boxes", "faces", *MOTION)
_NUMBERS = ("seed", "width", "height", "number")
# The column of row numbers that pandas writes, without a name and as pandas names it when it reads.
_INDEX = ("", "Unnamed: 0")
# The module has one limit for all readers of the process; Python's own is 128 KiB, less than a photo.
_LARGEST_CELL = 2**30


def read_csv(data: bytes, limits: Serve) -> dict[str, Any]:
    """Return the rows of a CSV in UTF-8 as MLflow's `dataframe_records`; an empty cell is a value that is not given.

    Raises UserError where it is none, or has more rows than `limits` permits.
    """
    csv.field_size_limit(_LARGEST_CELL)
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        rows = list(islice(reader, limits.max_rows + 1))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"not CSV in UTF-8: {str(error)[:200]}") from None
    if any(None in row or None in row.values() for row in rows):
        raise UserError("CSV: every row needs one cell per column")
    return {"dataframe_records": [_row(row) for row in rows]}


def _row(cells: dict[str, str]) -> dict[str, Any]:
    given = {name: cell for name, cell in cells.items() if cell.strip() and name not in _INDEX}
    return {name: _value(name, cell) for name, cell in given.items()}


def _value(name: str, cell: str) -> Any:
    """Return the value of a cell; what is no list or number stays a text, which the check of the row names."""
    if name in _LISTS:
        # One person's photo, face prompt or number needs no brackets.
        return _literal(cell) if cell.lstrip().startswith("[") else [cell]
    if name in _NUMBERS:
        try:
            return int(cell)
        except ValueError:
            return _literal(cell)
    return cell


def _literal(cell: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        try:
            return read(cell.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return cell
