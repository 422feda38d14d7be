"""What page and served model count: at the guard and while drawing, with few labels, also in several workers."""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import TestClient

from pipelines.core import server_metrics
from pipelines.core.errors import UserError
from pipelines.core.request_guard import JSON, Body, RequestGuard
from pipelines.core.server_metrics import (
    DRAWN,
    FOLDER,
    METRICS,
    OTHER,
    OUTCOMES,
    REASONS,
    ServerMetrics,
    drawing,
    refused,
)

MODEL = {"name": "dynamicid", "version": "3", "adapter": "0123456789ab"}
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> ServerMetrics:
    monkeypatch.delenv(FOLDER, raising=False)
    monkeypatch.setattr(server_metrics, "_open", None)
    return ServerMetrics("model", [MODEL]).open()


def guarded(metrics: ServerMetrics) -> TestClient:
    """A server whose application answers with the status that is its address."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await Request(scope, receive).body()
        await Response(status_code=int(scope["path"][1:]))(scope, receive, send)

    def admit(request: Request) -> Body | None:
        if request.scope["path"].startswith("/refused"):
            raise HTTPException(int(request.scope["path"][-3:]), "no")
        return Body(JSON, 1000) if request.method == "POST" else None

    return TestClient(RequestGuard(application, admit=admit, metrics=metrics), base_url="http://here:80")


def samples(metrics: ServerMetrics) -> Samples:
    found = guarded(metrics).get(METRICS)
    assert found.status_code == 200
    families = text_string_to_metric_families(found.text)
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples}


def value(metrics: ServerMetrics, name: str, **labels: str) -> float:
    return samples(metrics)[name, tuple(sorted({"server": "model", **labels}.items()))]


def test_every_request_is_counted_by_its_outcome_and_a_refusal_by_its_reason(metrics: ServerMetrics) -> None:
    client = guarded(metrics)
    for path in ("/200", "/200", "/304", "/404", "/refused/401", "/refused/418", "/500", "/504", "/503"):
        client.get(path)
    client.post("/200", content=b"{", headers={"Content-Type": JSON})
    counted = {outcome: value(metrics, "dynamicid_requests_total", outcome=outcome) for outcome in OUTCOMES}
    assert counted == {"answered": 3, "refused": 5, "failed": 2, "gone": 0}
    reasons = {
        reason: value(metrics, "dynamicid_refusals_total", reason=reason) for reason in (*REASONS.values(), OTHER)
    }
    expected = {"no_such_address": 1, "not_logged_in": 1, OTHER: 1, "queue_full": 1, "invalid": 1}
    assert {reason: count for reason, count in reasons.items() if count} == expected


def test_who_has_the_answer_finds_it_counted(metrics: ServerMetrics) -> None:
    seen = []

    async def send(message: Any) -> None:
        seen.append((message["type"], value(metrics, "dynamicid_requests_total", outcome="answered")))

    async def answer() -> None:
        with metrics.request({"path": "/200"}, send) as noting:
            await Response(b"whole", status_code=200)({"type": "http"}, None, noting)  # type: ignore[arg-type]

    asyncio.run(answer())
    assert seen == [("http.response.start", 1), ("http.response.body", 1)]
    assert value(metrics, "dynamicid_requests_total", outcome="answered") == 1


def test_a_client_that_leaves_is_counted(metrics: ServerMetrics) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await Request(scope, receive).body()

    guard = RequestGuard(application, admit=lambda _: None, metrics=metrics)
    TestClient(guard, raise_server_exceptions=False).get("/")
    assert value(metrics, "dynamicid_requests_total", outcome="gone") == 1


def test_pictures_are_counted_and_those_that_were_drawn_are_timed(metrics: ServerMetrics) -> None:
    with drawing():
        pass
    for error in (UserError("no face"), ValueError("broken")):
        with pytest.raises(type(error)), drawing():
            raise error
    assert [value(metrics, "dynamicid_pictures_total", outcome=outcome) for outcome in DRAWN] == [1, 1, 1]
    assert value(metrics, "dynamicid_drawing_seconds_count") == 1
    assert value(metrics, "dynamicid_drawing_seconds_bucket", le="0.5") == 1
    refused()
    assert value(metrics, "dynamicid_refusals_total", reason="invalid") == 1


def test_requests_that_wait_are_those_that_are_not_drawn(metrics: ServerMetrics) -> None:
    with metrics.admitted(True), metrics.admitted(True), metrics.admitted(False):
        with drawing():
            assert value(metrics, "dynamicid_waiting_requests") == 1
        assert value(metrics, "dynamicid_waiting_requests") == 2
    assert value(metrics, "dynamicid_waiting_requests") == 0
    with drawing():
        assert value(metrics, "dynamicid_waiting_requests") == 0, "its client has left"
    with metrics.admitted(True) as answered:
        answered()
        assert value(metrics, "dynamicid_waiting_requests") == 0, "who has the answer does not wait"
    assert value(metrics, "dynamicid_waiting_requests") == 0


def test_the_page_asks_its_queue() -> None:
    page = ServerMetrics("page", [MODEL, {**MODEL, "version": "4"}], lambda: 5)
    found = samples(page)
    assert found["dynamicid_waiting_requests", (("server", "page"),)] == 5
    versions = [dict(labels)["version"] for name, labels in found if name == "dynamicid_model_info"]
    assert versions == ["3", "4"], "two models side by side"


def test_no_request_makes_a_new_label(metrics: ServerMetrics) -> None:
    """All labels are there from the start, at 0, so that the first of a kind is an increase; and no others come."""
    before = set(samples(metrics))
    assert ("dynamicid_model_info", tuple(sorted({"server": "model", **MODEL}.items()))) in before
    client = guarded(metrics)
    for path in ("/200", "/refused/ada/418", "/refused/429", "/599"):
        client.get(path, headers={"Authorization": "Basic YWRhOnNlY3JldA=="})
    assert set(samples(metrics)) == before
    ours = [name for name, _ in before if name.startswith("dynamicid")]
    assert 20 < len(ours) < 60


def test_without_a_server_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_metrics, "_open", None)
    with drawing():
        refused()


WORKER = """
import asyncio, sys
from pipelines.core.server_metrics import ServerMetrics, drawing
version, = sys.argv[1:]
metrics = ServerMetrics("model", [{"name": "dynamicid", "version": version, "adapter": "0"}]).open()
with drawing():
    pass
async def show():
    async def receive(): return {"type": "http.request"}
    async def send(message): print(message.get("body", b"").decode())
    await metrics.page({"type": "http", "headers": []}, receive, send)
with metrics.admitted(True):
    asyncio.run(show())
    if version == "1":
        import os; os._exit(0)
"""


def test_several_workers_add_up_and_those_that_ended_neither_wait_nor_serve(tmp_path: Path, project: Path) -> None:
    shown = ""
    for version in ("1", "2"):
        command = [sys.executable, "-c", WORKER, version]
        environment = {FOLDER: str(tmp_path / "counts"), "PYTHONPATH": str(project)}
        shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    lines = [line for line in shown.splitlines() if line.startswith("dynamicid")]
    assert 'dynamicid_pictures_total{outcome="drawn",server="model"} 2.0' in lines
    assert 'dynamicid_drawing_seconds_count{server="model"} 2.0' in lines
    assert 'dynamicid_waiting_requests{server="model"} 1.0' in lines
    (info,) = (line for line in lines if line.startswith("dynamicid_model_info"))
    assert 'version="2"' in info


def test_a_worker_that_knows_only_its_own_requests_says_so(
    metrics: ServerMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: "uvicorn")
    answer = guarded(metrics).get(METRICS)
    assert answer.status_code == 503
    assert "several workers" in answer.text
    assert FOLDER in answer.text


def test_a_folder_of_counts_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(FOLDER, str(tmp_path / "file" / "counts"))
    with pytest.raises(UserError, match=f"{FOLDER}: .*name a folder that can be written"):
        ServerMetrics("page", [MODEL])


def test_the_alerts_name_metrics_and_labels_that_exist(metrics: ServerMetrics, project: Path) -> None:
    rules = yaml.safe_load((project / "docker" / "alerts.yml").read_text())["groups"][0]["rules"]
    found = samples(metrics)
    known = {name for name, _ in found}
    values = {(name, *pair) for name, labels in found for pair in labels}
    labels = {label for _, pairs in found for label, _ in pairs} | {"instance"}
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 6
    for rule in rules:
        named = set(re.findall(r"\bdynamicid_\w+", rule["expr"]))
        assert named, rule["alert"]
        assert named <= known, rule["alert"]
        for name, selector in re.findall(r"(dynamicid_\w+)\{([^}]*)\}", rule["expr"]):
            for label, text in re.findall(r'(\w+)!?="(\w*)"', selector):
                assert (name, label, text) in values, rule["alert"]
        for group in re.findall(r"\bby \(([^)]*)\)", rule["expr"]):
            assert set(re.split(r",\s*", group)) <= labels, rule["alert"]
        assert rule["expr"].count("(") == rule["expr"].count(")")
        assert set(rule["annotations"]) == {"summary", "description"}
    words = " ".join(rule["expr"] for rule in rules)
    for name in ("requests_total", "refusals_total", "pictures_total", "drawing_seconds", "waiting", "model_info"):
        assert f"dynamicid_{name}" in words, "every kind of count has an alert"


def test_the_alert_of_a_long_queue_comes_before_it_is_full(project: Path) -> None:
    from pipelines.webpage.fair_queue import MAX_WAITING

    limit = int(re.findall(r"dynamicid_waiting_requests\) > (\d+)", (project / "docker" / "alerts.yml").read_text())[0])
    assert limit == MAX_WAITING // 2
