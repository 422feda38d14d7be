"""`mlflow models serve` on a registered version: pictures for good requests, reasons for bad ones."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from benchmarks.serving_load import alive, load, reason_of, send, send_malformed
from tests.pipelines.photos import encoded


def row(photos: list[bytes], **more: Any) -> dict[str, Any]:
    references = [base64.b64encode(photo).decode() for photo in photos]
    return {"references": references, "prompt": "a photo of a person", **more}


def ask(server: str, payload: Any) -> tuple[int, Any]:
    answer = send(server, json.dumps(payload).encode())
    return answer.status, json.loads(answer.body)


def drawn(server: str, payload: Any) -> list[np.ndarray]:
    status, answer = ask(server, payload)
    assert status == 200, answer
    encoded = [prediction["image"] for prediction in answer["predictions"]]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text, validate=True)))) for text in encoded]


def counts(server: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return what the server counts, by name and sorted values of labels."""
    import requests
    from prometheus_client.parser import text_string_to_metric_families

    families = text_string_to_metric_families(requests.get(f"{server}/metrics", timeout=60).text)
    return {(one.name, tuple(sorted(one.labels.values()))): one.value for family in families for one in family.samples}


def test_prometheus_gets_what_was_drawn_and_refused_and_the_version(server: str, photos: list[bytes]) -> None:
    """The first test, as a server may still be drawing for what later ones sent."""
    before = counts(server)
    drawn(server, {"dataframe_records": [row(photos[:1]), row(photos[:1], seed=1)]})
    assert ask(server, {"dataframe_records": [row(photos[:1], width=4096, height=4096)]})[0] == 400
    after = counts(server)
    more = {key: value - before[key] for key, value in after.items() if key[0].startswith("dynamicid")}
    assert more["dynamicid_pictures_total", ("drawn", "model")] == 2
    assert more["dynamicid_pictures_total", ("model", "refused")] == 1
    assert more["dynamicid_drawing_seconds_count", ("model",)] == 2
    assert more["dynamicid_requests_total", ("answered", "model")] == 1
    assert more["dynamicid_requests_total", ("model", "refused")] == 1
    assert more["dynamicid_refusals_total", ("invalid", "model")] == 1
    assert after["dynamicid_waiting_requests", ("model",)] == 0
    (info,) = (labels for name, labels in after if name == "dynamicid_model_info")
    assert {"dynamicid", "1", "model"} < set(info)


def test_a_list_of_references_is_one_person(server: str, photos: list[bytes]) -> None:
    one, other = row(photos)["references"]
    lists = [{"references": [[one, other]], "faces": [[0, 1]]}, {"references": [[one, other], other]}]
    for table in ({"dataframe_records": [row(photos) | more for more in lists]}, {"inputs": row(photos) | lists[0]}):
        status, answer = ask(server, table)
        assert status == 200, answer
        assert "may show different people" in answer["predictions"][0]["note"]
    status, answer = ask(server, {"inputs": row(photos) | {"references": [[one] * 9]}})
    assert (status, answer["message"]) == (400, "person 1: 9 references; expected 1 to 8")


def test_strength_angles_and_a_driving_photo_are_followed(server: str, photos: list[bytes]) -> None:
    one, other = row(photos)["references"]
    happy = {**row(photos[:1]), "face_prompts": ["happy"]}
    rows = [happy, happy | {"strength": [0.2]}, happy | {"yaw": [-75.0]}, row(photos[:1]) | {"driving": [other]}]
    status, answer = ask(server, {"dataframe_records": rows[:2]})
    assert status == 200, answer
    pictures = [drawn["image"] for drawn in answer["predictions"]]
    status, answer = ask(server, {"dataframe_records": rows[2:]})
    assert status == 200, answer
    assert len({*pictures, *(drawn["image"] for drawn in answer["predictions"])}) == 4
    assert "yaw -75 is beyond what the adapter knows, -60 to 60 degrees" in answer["predictions"][0]["note"]
    two = row(photos) | {"driving": ["", one], "strength": [0.5, None], "face_prompts": ["sad", ""]}
    status, answer = ask(server, {"inputs": two})
    assert status == 200, answer
    nobody = base64.b64encode(encoded(Image.new("RGB", (200, 200)), "PNG")).decode()
    for more, reason in (
        ({"driving": [nobody]}, "driving photo of person 1: no face found"),
        ({"roll": [20]}, "roll 20: to this adapter every face is upright"),
        ({"strength": [2]}, "strength 2: expected a number from 0 to 1.5"),
    ):
        status, answer = ask(server, {"inputs": row(photos[:1]) | more})
        assert status == 400, answer
        assert reason in answer["message"]


def test_one_picture_per_row(server: str, photos: list[bytes]) -> None:
    """Columns that are not given, or only in some rows, stand for none of it."""
    boxes = [[0.0, 0.0, 1.0, 0.5], [0.0, 0.5, 1.0, 1.0]]
    rows = [
        row(photos[:1]),
        row(photos, face_prompts=["happy", ""], boxes=boxes, seed=3),
    ]
    plain, two = drawn(server, {"dataframe_records": rows})
    assert plain.shape == two.shape == (64, 64, 3)
    assert plain.std() > 0
    assert not np.array_equal(plain, two)
    assert np.array_equal(drawn(server, {"dataframe_records": rows[:1]})[0], plain), "a row alone is the same"
    assert not np.array_equal(drawn(server, {"dataframe_records": [row(photos[:1], seed=1)]})[0], plain)


@pytest.mark.parametrize("shape", ["dataframe_split", "inputs", "instances"])
def test_every_shape_of_mlflow_draws_the_same(server: str, photos: list[bytes], shape: str) -> None:
    one = row(photos[:1], seed=5)
    tables = {
        "dataframe_split": {"columns": list(one), "data": [list(one.values())]},
        "inputs": [one],
        "instances": [one],
    }
    expected = drawn(server, {"dataframe_records": [one]})
    assert np.array_equal(drawn(server, {shape: tables[shape]}), expected)


def test_a_table_draws_the_same(server: str, photos: list[bytes]) -> None:
    import pandas as pd

    one = row(photos[:1], seed=5)
    answer = send(server, pd.DataFrame([one]).to_csv().encode(), "text/csv")
    assert answer.status == 200, answer.body
    assert json.loads(answer.body) == ask(server, {"dataframe_records": [one]})[1]


def test_eight_clients_get_what_one_gets(server: str, photos: list[bytes]) -> None:
    alone = load(server, photos, count=6, clients=1, seeds=6)
    together = load(server, photos, count=30, clients=8, seeds=6)
    for found in (alone, together):
        assert found["errors"] == 0, found["first_error"]
        assert found["most_answers_of_one_seed"] == 1
        assert found["pictures"] == 6


def test_malformed_requests_are_refused_with_a_reason(server: str, photos: list[bytes]) -> None:
    """Every request that is known to be malformed, several at a time: 4xx each, and the server keeps drawing."""
    found = send_malformed(server, photos[0], count=130, clients=4)
    assert found["not_refused"] == []
    assert sum(found["statuses"].values()) == 130
    assert alive(server)
    assert load(server, photos, count=2, clients=2, seeds=1)["errors"] == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"references": ["no base64!"]}, "reference 1: not base64; expected a JPEG or PNG"),
        ({"face_prompt": "sad"}, "unknown column face_prompt; expected references, prompt"),
        ({"boxes": [[0, 0, 1.5, 1]]}, "box 0,0,1.5,1: expected y0,x0,y1,x1 between 0 and 1"),
    ],
)
def test_the_reason_says_what_to_change(server: str, photos: list[bytes], change: dict[str, Any], reason: str) -> None:
    payload = {"dataframe_records": [row(photos[:1], **change)]}
    status, answer = ask(server, payload)
    assert status == 400
    assert answer["message"].startswith(reason)
    assert answer["error_code"] == "INVALID_PARAMETER_VALUE"
    assert "Traceback" not in json.dumps(answer), "internals of the server stay hidden"
    assert payload["dataframe_records"][0]["prompt"] not in answer["message"]


def test_a_photo_without_a_face_is_named(server: str, photos: list[bytes]) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (200, 200), "grey").save(buffer, "PNG")
    status, answer = ask(server, {"dataframe_records": [row([photos[0], buffer.getvalue()])]})
    assert status == 400
    assert answer["message"] == "reference 2: no face found; use a photo that shows one face large and clear"


def test_other_media_types_and_huge_requests_have_their_own_status(server: str) -> None:
    answer = send(server, b"references,prompt\n1,2\n", "text/plain")
    assert answer.status == 415
    assert reason_of(answer) == "Content-Type 'text/plain'; expected application/json, in UTF-8, not compressed"
    answer = send(server, b" " * (65 * 2**20))
    assert answer.status == 413
    assert reason_of(answer) == "the request is larger than 64 MB, the limit for application/json"


def test_json_of_another_encoding_or_of_many_values_is_refused_before_it_costs(
    server: str, photos: list[bytes]
) -> None:
    """60 MB of small values were 2.6 GB of Python objects."""
    one = {"dataframe_records": [row(photos[:1])]}
    for encoding in ("utf-16", "utf-32", "utf-8-sig"):
        assert send(server, json.dumps(one).encode(encoding)).status == 400
    before = memory_mb(server)
    answer = send(server, b'{"inputs": [' + b"[]," * (20 * 2**20) + b"[]]}")
    assert (answer.status, reason_of(answer)) == (400, "JSON with more than 20000 values")
    assert memory_mb(server) < before + 500
    answer = send(server, json.dumps({"dataframe_records": [row(photos[:1], seed=10**4200)]}).encode())
    assert answer.status == 400
    assert reason_of(answer).startswith("seed: 1000")


def test_other_addresses_and_sites_are_closed(server: str, photos: list[bytes]) -> None:
    import requests

    body = json.dumps({"dataframe_records": [row(photos[:1])]})
    foreign = {"Content-Type": "application/json", "Origin": "https://elsewhere.example"}
    assert requests.post(f"{server}/invocations", body, headers=foreign, timeout=60).status_code == 403
    assert requests.get(f"{server}/docs", timeout=60).status_code == 404
    assert requests.get(f"{server}/ping", timeout=60).status_code == 200


def test_a_page_under_another_name_is_refused(server: str, photos: list[bytes]) -> None:
    """DNS rebinding: the name of another site points here, so that its pages are no longer of another site."""
    import requests

    body = json.dumps({"dataframe_records": [row(photos[:1])]})
    port = server.rpartition(":")[2]
    statuses = {}
    for host in ("rebound.example", "localhost.rebound.example", "localhost", "127.0.0.1"):
        named = {"Content-Type": "application/json", "Host": f"{host}:{port}", "Origin": f"http://{host}:{port}"}
        statuses[host] = requests.post(f"{server}/invocations", body, headers=named, timeout=60).status_code
    assert list(statuses.values()) == [403, 403, 200, 200]
    program = {"Content-Type": "application/json", "Host": "model.example"}
    assert requests.post(f"{server}/invocations", body, headers=program, timeout=60).status_code == 200


@pytest.mark.parametrize("sent", [b"GET /ping HTTP/1.1\r\nX-Long: ", b"GET /ping?"])
def test_endless_headers_end_the_connection(server: str, sent: bytes) -> None:
    """One header of 600 MB kept the server busy for ten minutes."""
    port = int(server.rpartition(":")[2])
    answer = b""
    with socket.create_connection(("127.0.0.1", port), 30) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(sent + b"a" * 2**17)
        while part := connection.recv(2**16):
            answer += part  # head and body may come in two parts
    assert not answer or answer.startswith(b"HTTP/1.1 400")
    assert alive(server)


def test_what_was_cut_from_a_prompt_is_in_the_answer(server: str, photos: list[bytes]) -> None:
    long = "a photo of a person " + "in a red coat " * 40 + "with a green hat"
    status, answer = ask(server, {"dataframe_records": [row(photos[:1]), row(photos[:1], prompt=long)]})
    assert status == 200
    short_cut, long_cut = (prediction["cut"] for prediction in answer["predictions"])
    assert short_cut == ""
    assert long_cut.endswith("with a green hat")
    assert not long_cut.startswith("a photo")


def test_words_of_a_face_prompt_that_are_not_used_are_in_the_answer(server: str, photos: list[bytes]) -> None:
    rows = [row(photos[:1], face_prompts=[text]) for text in ("sad", "sad, looking up")]
    status, answer = ask(server, {"dataframe_records": rows})
    assert status == 200
    used, unused = (prediction["note"] for prediction in answer["predictions"])
    assert "not used" not in used
    assert "not used: 'looking up'" in unused


def memory_mb(server: str) -> float:
    """Return the memory of the server's processes at most, so far."""
    port = int(server.rpartition(":")[2])
    listening = [link.pid for link in psutil.net_connections("tcp4") if link.laddr.port == port and link.pid]
    lines = [line for pid in set(listening) for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return max(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def test_the_model_of_a_server_is_named_as_far_as_it_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.serving.request_guard import _served

    folder = tmp_path / "a model, 100 %"
    (folder / "artifacts" / "adapter").mkdir(parents=True)
    (folder / "artifacts" / "adapter" / "config.json").write_text("{}")
    server = SimpleNamespace(_SERVER_MODEL_PATH="__model__")
    monkeypatch.setenv("__model__", folder.as_uri())
    unregistered = _served(server)
    assert (unregistered["name"], unregistered["version"], len(unregistered["adapter"])) == ("", "", 12)
    (folder / "registered_model_meta").write_text("model_name: dynamicid\nmodel_version: '3'\n")
    assert _served(server) == {**unregistered, "name": "dynamicid", "version": "3"}
    monkeypatch.chdir(tmp_path)
    for other in (SimpleNamespace(), SimpleNamespace(_SERVER_MODEL_PATH="__renamed__")):
        assert set(_served(other).values()) == {""}, "another release of MLflow"


def test_pictures_of_a_request_that_got_504_are_not_begun(
    project: Path, photos: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow answers after its time limit, but its thread goes on, and later requests would wait for it."""
    import threading

    import pandas as pd
    from mlflow.exceptions import MlflowException

    from pipelines.core.params import load_params
    from pipelines.registry import pyfunc

    clock = [0.0]

    def draw(request: Any) -> SimpleNamespace:
        clock[0] += 10
        return SimpleNamespace(image=Image.new("RGB", (8, 8)), cut="", note="")

    model = pyfunc.DynamicIDModel()
    model._limits, model._drawing = load_params(project / "profiles" / "tiny.yaml").serve, threading.Lock()
    model._generator = SimpleNamespace(draw=draw)
    monkeypatch.setattr(pyfunc, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    rows = pd.DataFrame([row(photos[:1], seed=seed) for seed in range(4)])
    monkeypatch.delenv("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT", raising=False)
    assert len(model.predict(None, rows)) == 4
    clock[0] = 0.0
    monkeypatch.setenv("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT", "15")
    with pytest.raises(MlflowException, match="the time limit of the request was over"):
        model.predict(None, rows)
    assert clock[0] == 20, "two pictures"
