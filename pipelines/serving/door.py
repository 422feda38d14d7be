"""What stands before MLflow's scoring server: requests it would stumble over are refused, and every refusal is words.

`mlflow models serve` answers 500 where a header is missing or the JSON cannot be parsed in depth, drops columns it does
not know, and echoes what was sent, and stack traces, into its errors. The server is MLflow's own; only its entry
`invocations` is led through this door, when a model of ours is loaded inside it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from pipelines.core.errors import UserError
from pipelines.core.sections.operations import Serve
from pipelines.serving.request import check_columns, read_seed

_SERVER = "mlflow.pyfunc.scoring_server"
_SHAPES = ("dataframe_records", "dataframe_split", "inputs", "instances")
_MAX_REASON = 600
# What stands for "not given", by column.
_NOTHING: dict[str, Any] = {"face_prompts": [], "boxes": [], "seed": 0}
_MEGABYTE = 2**20


def install(limits: Serve) -> bool:
    """Lead the requests of the scoring server in this process through the door; False where there is no server."""
    server: Any = sys.modules.get(_SERVER)
    # The application module is being imported while the model loads: without it the library is merely imported.
    if server is None or f"{_SERVER}.app" not in sys.modules:
        return False
    if not hasattr(server.invocations, "door"):
        server.invocations = guarded(server.invocations, limits)
    return True


def guarded(invocations: Callable[..., Any], limits: Serve) -> Callable[..., Any]:
    """Return `invocations` of MLflow's scoring server with checks before it and plain words after it."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import BAD_REQUEST, INVALID_PARAMETER_VALUE
    from mlflow.pyfunc.scoring_server import InvocationsResponse

    def refused(status: int, code: str, reason: str) -> Any:
        return InvocationsResponse(json.dumps({"error_code": code, "message": reason}), status, "application/json")

    @wraps(invocations)
    def door(data: Any, content_type: str | None, model: Any, input_schema: Any) -> Any:
        if len(data) > limits.max_request_mb * _MEGABYTE:
            reason = f"request of {len(data) / _MEGABYTE:.0f} MB; at most {limits.max_request_mb} MB"
            return refused(413, "REQUEST_TOO_LARGE", reason)
        if not content_type or content_type.split(";")[0].strip().lower() != "application/json":
            reason = f"Content-Type {str(content_type)[:80]!r}; expected application/json"
            return refused(415, "UNSUPPORTED_MEDIA_TYPE", reason)
        try:
            payload = read_payload(data, limits)
        except UserError as error:
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from None
        try:
            return invocations(payload, content_type, model, input_schema)
        except MlflowException as error:
            raise _plain(error) from None
        except Exception as error:
            # What the model raises arrives as an MlflowException: this is MLflow's parser, stumbling.
            raise MlflowException(f"request not understood: {error}"[:_MAX_REASON], error_code=BAD_REQUEST) from None

    door.door = True  # type: ignore[attr-defined]
    return door


def read_payload(data: bytes, limits: Serve) -> dict[str, Any]:
    """Parse the JSON and check what MLflow would not: its shape, the columns, the number of rows. UserError."""
    try:
        payload = json.loads(data)
    except RecursionError:
        raise UserError("JSON nested too deeply; expected rows of references, prompt, …") from None
    except ValueError as error:
        raise UserError(f"not JSON: {str(error)[:200]}") from None
    shapes = [name for name in payload if name in _SHAPES] if isinstance(payload, dict) else []
    if len(shapes) != 1:
        raise UserError(f"expected a JSON object with one of {', '.join(_SHAPES)}")
    rows = _rows(payload[shapes[0]], shapes[0])
    if not 1 <= len(rows) <= limits.max_rows:
        raise UserError(f"{len(rows)} rows; expected 1 to {limits.max_rows} pictures in a request")
    for row in rows:
        read_seed(row.get("seed"))
    # A gap would reach MLflow's signature as NaN: rows get what only other rows have.
    given = {name for row in rows for name in row}
    for row in rows:
        row.update({name: value for name, value in _NOTHING.items() if name in given and row.get(name) is None})
    # One shape for all: of some, MLflow makes tensors, which lists of several lengths are not.
    return {**{name: value for name, value in payload.items() if name != shapes[0]}, "dataframe_records": rows}


def _rows(table: Any, name: str) -> list[dict[str, Any]]:
    """Return a table of any shape as rows whose columns are ours."""
    if name == "dataframe_split":
        known = isinstance(table, dict) and set(table) <= {"columns", "data", "index"}
        columns: Any = table.get("columns") if known else None
        data: Any = table.get("data") if known else None
        texts = isinstance(columns, list) and all(isinstance(column, str) for column in columns)
        if not texts or not isinstance(data, list) or len(set(columns)) != len(columns):
            raise UserError("dataframe_split: expected columns (texts) and data (rows)")
        if any(not isinstance(row, list) or len(row) != len(columns) for row in data):
            raise UserError("dataframe_split: every row of data needs one value per column")
        check_columns(columns)
        return [dict(zip(columns, row, strict=True)) for row in data]
    if isinstance(table, list) and all(isinstance(row, dict) for row in table):
        for row in table:
            check_columns(row)
        return table
    if isinstance(table, dict) and name != "dataframe_records":
        lengths = {len(value) if isinstance(value, list) else 1 for value in table.values()}
        if len(lengths) > 1:
            raise UserError(f"{name}: columns of {sorted(lengths)} rows; expected as many everywhere")
        check_columns(table)
        if not all(isinstance(value, list) for value in table.values()):
            return [table]
        return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    raise UserError(f"{name}: expected a list of rows, each an object with references, prompt, …")


def _plain(error: Any) -> Any:
    """Keep code and reason; drop what was sent, and the stack trace."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import ErrorCode

    reason = error.message.rpartition("\nError: ")[2] if "\nError: " in error.message else error.message
    if len(reason) > _MAX_REASON:
        reason = reason[:_MAX_REASON] + " …"
    return MlflowException(reason, error_code=ErrorCode.Value(error.error_code))
