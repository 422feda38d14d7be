"""Checks in front of MLflow's scoring server: refuse requests that it handles badly, with a plain reason.

`mlflow models serve` answers 500 where a header is missing or the JSON is nested too deeply, drops unknown columns, and
echoes the request and stack traces in its errors. The server is MLflow's; only its function `invocations` is wrapped
when one of our models is loaded in it.
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
# The value of a column that is not given.
_DEFAULTS: dict[str, Any] = {"face_prompts": [], "boxes": [], "seed": 0}
_MEGABYTE = 2**20


def install(limits: Serve) -> bool:
    """Guard the scoring server of this process; return False where there is none."""
    server: Any = sys.modules.get(_SERVER)
    # In a server, the application module is being imported while the model loads; elsewhere it is absent.
    if server is None or f"{_SERVER}.app" not in sys.modules:
        return False
    if not hasattr(server.invocations, "is_guard"):
        server.invocations = guarded(server.invocations, limits)
    return True


def guarded(invocations: Callable[..., Any], limits: Serve) -> Callable[..., Any]:
    """Return `invocations` of MLflow's scoring server with checks before it and shortened errors after it."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import BAD_REQUEST, INVALID_PARAMETER_VALUE
    from mlflow.pyfunc.scoring_server import InvocationsResponse

    def refused(status: int, code: str, reason: str) -> Any:
        return InvocationsResponse(json.dumps({"error_code": code, "message": reason}), status, "application/json")

    @wraps(invocations)
    def guard(data: Any, content_type: str | None, model: Any, input_schema: Any) -> Any:
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
            raise _shortened(error) from None
        except Exception as error:
            # Errors of the model are MlflowException, so this one comes from MLflow's parser.
            raise MlflowException(f"request not understood: {error}"[:_MAX_REASON], error_code=BAD_REQUEST) from None

    guard.is_guard = True  # type: ignore[attr-defined]
    return guard


def read_payload(data: bytes, limits: Serve) -> dict[str, Any]:
    """Parse the JSON; raise UserError on a wrong shape, column or number of rows, which MLflow does not check."""
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
    # MLflow's signature would get NaN where a row lacks a column that others have: fill in the default.
    given = {name for row in rows for name in row}
    for row in rows:
        row.update({name: value for name, value in _DEFAULTS.items() if name in given and row.get(name) is None})
    # Always as records: MLflow turns the other shapes into tensors, which fails for lists of different lengths.
    return {**{name: value for name, value in payload.items() if name != shapes[0]}, "dataframe_records": rows}


def _rows(table: Any, name: str) -> list[dict[str, Any]]:
    """Return a table of any shape as rows; raise UserError on an unknown column."""
    if name == "dataframe_split":
        split: dict[str, Any] = table if isinstance(table, dict) and set(table) <= {"columns", "data", "index"} else {}
        columns, data = split.get("columns", ()), split.get("data", ())
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
            raise UserError(f"{name}: columns of {sorted(lengths)} rows; expected the same number in all")
        check_columns(table)
        if not all(isinstance(value, list) for value in table.values()):
            return [table]
        return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    raise UserError(f"{name}: expected a list of rows, each an object with references, prompt, …")


def _shortened(error: Any) -> Any:
    """Return the error with its code and reason, without the request and the stack trace."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import ErrorCode

    reason = error.message.rpartition("\nError: ")[2] if "\nError: " in error.message else error.message
    if len(reason) > _MAX_REASON:
        reason = reason[:_MAX_REASON] + " …"
    return MlflowException(reason, error_code=ErrorCode.Value(error.error_code))
