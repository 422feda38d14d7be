"""Every form of input that MLflow documents gives the same rows, from a request and from a file."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from pipelines.core.errors import UserError
from pipelines.core.sections.operations import Serve
from pipelines.serving import request_guard
from pipelines.serving.csv_rows import read_csv
from pipelines.serving.request import OPTIONAL, read_row

LIMITS = Serve.model_construct(
    max_request_mb=64, max_upload_mb=20, max_pixels=40_000_000, max_people=4, max_rows=16, max_steps=100
)


def photo() -> str:
    buffer = io.BytesIO()
    Image.effect_noise((400, 400), 50).save(buffer, "PNG")  # more than Python's limit for a cell
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture(scope="module")
def row() -> dict[str, Any]:
    boxes = [[0.0, 0.0, 1.0, 0.5], [0.0, 0.5, 1.0, 1.0]]
    return {
        "references": [photo(), photo()],
        "prompt": 'two people, "red" shirts',
        "face_prompts": ["happy, it's", ""],
        "boxes": boxes,
        "seed": 7,
    }


@pytest.fixture
def parsers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow's readers of files, as a loaded model leaves them."""
    from mlflow.pyfunc import scoring_server

    for name in ("parse_csv_input", "_parse_json_data"):
        monkeypatch.setattr(scoring_server, name, getattr(scoring_server, name))
    request_guard._read_files(scoring_server, LIMITS, OPTIONAL)
    return scoring_server


def test_every_form_of_a_file_gives_the_same_rows(row: dict[str, Any], parsers: Any, tmp_path: Path) -> None:
    from mlflow.models.utils import _enforce_schema

    from pipelines.registry.log_model import signature

    forms = {
        "dataframe_split": {"columns": list(row), "data": [list(row.values())]},
        "dataframe_records": [row],
        "instances": [row],
        "inputs": {name: [value] for name, value in row.items()},
    }

    class Metadata:
        """Of a model with a signature."""

    inputs = signature().inputs
    frames = {
        name: parsers._parse_json_data(json.dumps({name: form}), Metadata, inputs).data for name, form in forms.items()
    }
    pd.DataFrame([row]).to_csv(tmp_path / "rows.csv")
    frames["csv"] = parsers.parse_csv_input(str(tmp_path / "rows.csv"))
    plain = [json.dumps(value) if isinstance(value, list) else value for value in row.values()]
    pd.DataFrame([plain], columns=list(row)).to_csv(tmp_path / "json.csv", index=False)
    frames["csv with JSON, from stdin"] = parsers.parse_csv_input((tmp_path / "json.csv").open(encoding="utf-8"))
    requests = {}
    for name, frame in frames.items():
        (one,) = _enforce_schema(frame, inputs).to_dict(orient="records")
        requests[name] = read_row(one, LIMITS)
    assert len(requests) == 6
    assert all(request == requests["dataframe_records"] for request in requests.values())


def test_a_plain_cell_is_one_entry_and_an_empty_one_is_not_given(row: dict[str, Any]) -> None:
    table = f"references,prompt,face_prompts,seed\n{row['references'][0]},a portrait,happy,\n"
    (read,) = read_csv(table.encode(), LIMITS)["dataframe_records"]
    assert read == {"references": [row["references"][0]], "prompt": "a portrait", "face_prompts": ["happy"]}


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (b"\xff\xfe", "not CSV in UTF-8"),
        (b"references,prompt\na\n", "every row needs one cell per column"),
        (b'references,prompt\n"a,b\n', "not CSV in UTF-8"),
    ],
)
def test_what_is_no_table_is_refused(table: bytes, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        read_csv(table, LIMITS)


def test_a_wrong_file_is_named_as_a_request_is(parsers: Any, tmp_path: Path) -> None:
    from mlflow.exceptions import MlflowException

    (tmp_path / "rows.csv").write_text("reference,prompt\na,b\n")
    with pytest.raises(
        MlflowException, match="references missing, unknown column reference; expected references, prompt"
    ):
        parsers.parse_csv_input(str(tmp_path / "rows.csv"))


def test_the_model_is_imported_without_a_remark_of_mlflow() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import pipelines.registry.pyfunc"], capture_output=True, text=True, check=True
    )
    assert "type hints" not in done.stderr
