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
from pipelines.serving.request import REQUIRED, check_columns, read_seed

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
    columns, rows = _shape(payload[shapes[0]], shapes[0])
    check_columns(columns)
    if not 1 <= rows <= limits.max_rows:
        raise UserError(f"{rows} rows; expected 1 to {limits.max_rows} pictures in a request")
    for seed in _seeds(payload[shapes[0]]):
        read_seed(seed)
    _fill(payload[shapes[0]])
    if shapes[0] == "instances" and isinstance(payload["instances"], list):
        # MLflow makes tensors of these, which lists of several lengths are not; rows are rows.
        payload["dataframe_records"] = payload.pop("instances")
    return payload


def _fill(table: Any) -> None:
    """Give rows what only other rows have: a gap would reach MLflow's signature as a number that is none."""
    if isinstance(table, list):
        given = {name for row in table for name in row}
        for row in table:
            row.update({name: value for name, value in _NOTHING.items() if name in given and row.get(name) is None})


def _seeds(table: Any) -> list[Any]:
    """Return the seeds as they were sent: MLflow turns 1.5 into 1 on its way to the model."""
    if isinstance(table, list):
        return [row.get("seed") for row in table]
    if isinstance(table.get("columns"), list):
        return [
            value for row in table["data"] for name, value in zip(table["columns"], row, strict=True) if name == "seed"
        ]
    seeds = table.get("seed")
    return seeds if isinstance(seeds, list) else [seeds]


def _shape(table: Any, name: str) -> tuple[list[str], int]:
    """Return the columns that occur, and the number of rows."""
    if name == "dataframe_split":
        if isinstance(table, dict) and isinstance(table.get("columns"), list) and isinstance(table.get("data"), list):
            columns = table["columns"]
            if all(isinstance(column, str) for column in columns):
                if any(not isinstance(row, list) or len(row) != len(columns) for row in table["data"]):
                    raise UserError("dataframe_split: every row of data needs one value per column")
                return columns, len(table["data"])
        raise UserError("dataframe_split: expected columns (texts) and data (rows)")
    if isinstance(table, list) and all(isinstance(row, dict) for row in table):
        for row in table:
            check_columns(row)
        return list(table[0]) if table else list(REQUIRED), len(table)
    if isinstance(table, dict) and name != "dataframe_records":
        lengths = {len(value) if isinstance(value, list) else 1 for value in table.values()}
        if len(lengths) > 1:
            raise UserError(f"{name}: columns of {sorted(lengths)} rows; expected as many everywhere")
        return list(table), lengths.pop() if lengths else 0
    raise UserError(f"{name}: expected a list of rows, each an object with references, prompt, …")


def _plain(error: Any) -> Any:
    """Keep code and reason; drop what was sent, and the stack trace."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import ErrorCode

    reason = error.message.rpartition("\nError: ")[2] if "\nError: " in error.message else error.message
    if len(reason) > _MAX_REASON:
        reason = reason[:_MAX_REASON] + " …"
    return MlflowException(reason, error_code=ErrorCode.Value(error.error_code))
