"""The guard in front of MLflow's scoring server: a request is decided on before MLflow sees it.

`mlflow models serve` reads bodies of any size and encoding before it looks at them, answers 500 where a header is
missing or the JSON is nested too deeply, drops unknown columns, and echoes the request and stack traces in its errors.
The server is MLflow's; when one of our models is loaded in it, the guard that the page has, too, comes before it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, wraps
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pipelines.core.connections import LimitedConnection
from pipelines.core.documents import read_yaml
from pipelines.core.errors import UserError
from pipelines.core.request_guard import JSON, Body, RequestGuard, parse_json
from pipelines.core.sections.operations import Serve
from pipelines.core.server_metrics import METRICS, ServerMetrics, model_labels
from pipelines.serving.csv_rows import CSV, read_csv
from pipelines.serving.motion_request import COLUMNS as MOTION
from pipelines.serving.request import COLUMNS, FORMER, check_columns, read_seed

_SERVER = "mlflow.pyfunc.scoring_server"
_SHAPES = ("dataframe_records", "dataframe_split", "inputs", "instances")
_READ = ("/ping", "/health", "/version", METRICS)
_MAX_REASON = 600
# The value of a column that is not given.
_DEFAULTS: dict[str, Any] = {
    **{"face_prompts": [], "boxes": [], "seed": 0, "faces": []},
    **{"negative_prompt": "", "width": 0, "height": 0, "number": 1, "sampler": ""},
    **{name: [] for name in MOTION},
}
_CODES = {403: "PERMISSION_DENIED", 404: "ENDPOINT_NOT_FOUND", 408: "REQUEST_TIMEOUT", 413: "REQUEST_TOO_LARGE"}
_CODES |= {400: "INVALID_PARAMETER_VALUE", 415: "UNSUPPORTED_MEDIA_TYPE", 503: "TEMPORARILY_UNAVAILABLE"}


def install(limits: Serve, columns: Sequence[str] = FORMER) -> bool:
    """Guard the scoring server of this process, whose model takes the optional `columns`; return False without one.

    Where the process only predicts from a file, what is in the file is read and checked in the same way.
    """
    server: Any = sys.modules.get(_SERVER)
    if server is None:
        return False
    # In a server, the application module is being imported while the model loads; elsewhere it is absent.
    if f"{_SERVER}.app" not in sys.modules:
        _read_files(server, limits, columns)
        return False
    if not hasattr(server.invocations, "is_guard"):
        server.invocations = with_short_errors(server.invocations)
        _limit_connections()
        _guard_next_application(limits, columns, ServerMetrics("model", [_served(server)]).open())
    return True


def _served(server: Any) -> dict[str, str]:
    """Return what the server's metrics say of its model, which MLflow has downloaded with its name and version.

    Where another release of MLflow does not say where that is, all of it is "".
    """
    from mlflow.utils.file_utils import local_file_uri_to_path

    folder = Path(local_file_uri_to_path(os.environ.get(getattr(server, "_SERVER_MODEL_PATH", ""), "")))
    meta, adapter = folder / "registered_model_meta", folder / "artifacts" / "adapter"
    known = read_yaml(meta) if meta.is_file() else {}
    return model_labels(adapter, str(known.get("model_name", "")), str(known.get("model_version", "")))


def _read_files(server: Any, limits: Serve, columns: Sequence[str]) -> None:
    """Have `mlflow models predict`, which reads a file after it has loaded the model, take what the server takes."""
    if hasattr(server.parse_csv_input, "is_guard"):
        return
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    plain = server._parse_json_data

    def checked(parse: Callable[[bytes], Any], data: bytes) -> dict[str, Any]:
        try:
            return read_payload(parse(data), limits, columns)
        except UserError as error:
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from None

    def parse_json_data(data: str, *others: Any, **named: Any) -> Any:
        payload = checked(partial(parse_json, max_values=Body(JSON, 0).max_values), data.encode())
        return plain(json.dumps(payload), *others, **named)

    def parse_csv_input(csv_input: Any, schema: Any = None) -> Any:
        data = csv_input.read().encode() if hasattr(csv_input, "read") else Path(csv_input).read_bytes()
        rows = checked(partial(read_csv, limits=limits), data)["dataframe_records"]
        return server.dataframe_from_parsed_json(rows, pandas_orient="records", schema=schema)

    parse_csv_input.is_guard = True  # type: ignore[attr-defined]
    server._parse_json_data, server.parse_csv_input = parse_json_data, parse_csv_input


class _Connection(LimitedConnection):
    # All connections of a proxy come from one address.
    max_connections = sys.maxsize


def _limit_connections() -> None:
    """Have uvicorn read requests by h11, which it has chosen httptools for before the model is loaded.

    httptools takes headers of any size, in a time that grows with its square.
    """
    with contextlib.suppress(ImportError):
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

        HttpToolsProtocol.__new__ = lambda _, *args, **options: _Connection(*args, **options)  # type: ignore[method-assign, assignment]


def _guard_next_application(limits: Serve, columns: Sequence[str], metrics: ServerMetrics) -> None:
    """Put the guard around the FastAPI application that the server makes after the model is loaded."""
    import fastapi

    plain = fastapi.FastAPI

    class Guarded(plain):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **options: Any) -> None:
            fastapi.FastAPI = plain  # type: ignore[misc]
            super().__init__(*args, **options)

        def build_middleware_stack(self) -> Any:
            return guarded(super().build_middleware_stack(), limits, columns, metrics)

    fastapi.FastAPI = Guarded  # type: ignore[misc]


def guarded(
    application: Any, limits: Serve, columns: Sequence[str] = COLUMNS, metrics: ServerMetrics | None = None
) -> RequestGuard:
    """Return the ASGI application of MLflow's server behind the guard."""
    check = partial(read_payload, limits=limits, columns=columns)
    body = Body(JSON, limits.max_request_mb * 2**20, check=check)
    table = replace(body, media_type=CSV, parse=partial(read_csv, limits=limits))

    def admit(request: Request) -> Body | None:
        # With each POST a browser sends Origin, also where a site's name was let point to this machine (DNS rebinding).
        if "origin" in request.headers and not _is_own(request.headers.get("host", "")):
            raise HTTPException(403, "a web page may send requests to an address or localhost, not to a name")
        path = request.scope["path"]
        if request.method == "POST" and path == "/invocations":
            is_table = request.headers.get("content-type", "").partition(";")[0].strip().lower() == CSV
            return table if is_table else body
        if request.method in ("GET", "HEAD") and path in _READ:
            return None
        raise HTTPException(404, "no such address, or not with this method; POST to /invocations")

    return RequestGuard(application, admit=admit, refusal=refusal, metrics=metrics)


def _is_own(host: str) -> bool:
    """Whether a `Host` is localhost or an address, which no other site can have."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    with contextlib.suppress(ValueError):
        return bool(ip_address(name.strip("[]")))
    return name.lower() == "localhost"


def refusal(status: int, reason: str) -> Response:
    """Return a refusal in MLflow's form."""
    code = _CODES.get(status, "BAD_REQUEST")
    return JSONResponse({"error_code": code, "message": reason[:_MAX_REASON]}, status)


def with_short_errors(invocations: Callable[..., Any]) -> Callable[..., Any]:
    """Return `invocations` of MLflow's scoring server with errors that hold neither request nor stack trace."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import BAD_REQUEST

    @wraps(invocations)
    def guard(*arguments: Any, **named: Any) -> Any:
        try:
            return invocations(*arguments, **named)
        except MlflowException as error:
            raise _shortened(error) from None
        except Exception as error:
            # Errors of the model are MlflowException, so this one comes from MLflow's parser.
            reason = f"request not understood: {type(error).__name__}"
            raise MlflowException(reason, error_code=BAD_REQUEST) from None

    guard.is_guard = True  # type: ignore[attr-defined]
    return guard


def read_payload(payload: Any, limits: Serve, columns: Sequence[str] = COLUMNS) -> dict[str, Any]:
    """Return the rows of parsed JSON; raise UserError on a wrong shape, column, value or number of rows.

    Always as records: MLflow turns the other shapes into tensors, which fails for lists of different lengths.
    """
    shapes = [name for name in payload if name in _SHAPES] if isinstance(payload, dict) else []
    if len(shapes) != 1:
        raise UserError(f"expected a JSON object with one of {', '.join(_SHAPES)}")
    # Clients of MLflow send empty `params`, of which the model has none.
    if others := [name for name, value in payload.items() if name != shapes[0] and (name != "params" or value)]:
        raise UserError(f"unknown key {others[0][:40]} beside {shapes[0]}; expected the columns of the rows in it")
    rows = _rows(payload[shapes[0]], shapes[0])
    for row in rows:
        check_columns(row, columns)
    if not 1 <= len(rows) <= limits.max_rows:
        raise UserError(f"{len(rows)} rows; expected 1 to {limits.max_rows} pictures in a request")
    for row in rows:
        read_seed(row.get("seed"))
    # MLflow's signature would get NaN where a row lacks a column that others have: fill in the default.
    given = {name for row in rows for name in row}
    for row in rows:
        row.update({name: value for name, value in _DEFAULTS.items() if name in given and row.get(name) is None})
    return {"dataframe_records": rows}


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
        check_columns(table)
        # One row, or columns: of a row the prompt is a text, whatever the lengths of its lists.
        if not isinstance(table["prompt"], list):
            return [table]
        if not all(isinstance(value, list) and len(value) == len(table["prompt"]) for value in table.values()):
            raise UserError(f"{name}: expected columns of {len(table['prompt'])} values each, as many as prompts")
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
