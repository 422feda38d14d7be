"""A version that was registered before the rooms were rearranged loads, draws the same picture, serves and rolls back.

`fixtures/version_of_0_1_0.tar.xz` was made by that release: a logged model on random base models of coarse weights (so
that it packs small), a request, the picture that it drew, and the tags of two versions that the gates had promoted.
"""

from __future__ import annotations

import base64
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.registry import promotion
from pipelines.registry.registry import CHAMPION, champion_of, open_registry

# A processor of another kind rounds differently; another model gives quite another picture.
ROUNDING = 2


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(Path(__file__).with_name("fixtures") / "version_of_0_1_0.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "registered_version"


@pytest.fixture(scope="module")
def request_row(old: Path) -> dict[str, Any]:
    return json.loads((old / "request.json").read_text())


def pixels(encoded: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)), np.int16)


def same(old: Path, encoded: str) -> bool:
    difference = pixels(base64.b64decode(encoded)) - pixels((old / "picture.png").read_bytes())
    return bool(np.abs(difference).max() <= ROUNDING)


def test_it_loads_and_draws_the_same_picture(
    old: Path, request_row: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    import pandas as pd

    monkeypatch.chdir(old)  # its parameters name the base models relative to the working directory
    model = mlflow.pyfunc.load_model(str(old / "version"))
    assert same(old, model.predict(pd.DataFrame([request_row]))["image"][0])
    other = model.predict(pd.DataFrame([{**request_row, "seed": 1}]))["image"][0]
    assert not same(old, other)


def test_it_serves(old: Path, request_row: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.serving_load import send, served

    monkeypatch.chdir(old)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with served(str(old / "version")) as url:
        answer = send(url, json.dumps({"dataframe_records": [request_row]}).encode())
        assert answer.status == 200, answer.body
        assert same(old, json.loads(answer.body)["predictions"][0]["image"])
        refused = send(url, json.dumps({"dataframe_records": [{"prompt": "x"}]}).encode())
    assert refused.status == 400
    assert b"references missing" in refused.body


def test_it_rolls_back(old: Path, mlflow_checkout: Path) -> None:
    client = open_registry(mlflow_checkout)
    client.create_registered_model("dynamicid")
    for tags in json.loads((old / "tags.json").read_text()).values():
        client.create_model_version("dynamicid", (old / "version").as_uri(), tags=tags)
    client.set_registered_model_alias("dynamicid", CHAMPION, "2")
    move = promotion.rollback(mlflow_checkout, "dynamicid", by="anna")
    assert (move.champion, move.before) == ("1", "2")
    assert str(champion_of(client, "dynamicid").version) == "1"
