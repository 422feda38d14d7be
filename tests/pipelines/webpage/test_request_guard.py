"""The guard refuses requests that are too large, are malformed or name addresses, and passes on all others."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import TestClient

from pipelines.webpage.request_guard import RequestGuard, json_problem


def send(path: str, headers: dict[str, str], body: bytes = b"", method: str = "POST") -> tuple[int, bytes, list[bytes]]:
    """Return the status, the answer, and the bodies that were passed on."""
    bodies = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        bodies.append(await Request(scope, receive).body())
        await Response("passed")(scope, receive, send)

    answer = TestClient(RequestGuard(application, max_request_mb=1)).request(
        method, path, headers=headers, content=body
    )
    return answer.status_code, answer.content, bodies


def test_a_valid_request_is_passed_on_unchanged() -> None:
    body = b'{"data": [[{"path": "/here/a.png"}]]}'
    answer = send("/gradio_api/call/draw", {"Content-Type": "application/json", "Content-Length": str(len(body))}, body)
    assert answer == (200, b"passed", [body])
    assert send("/gradio_api/upload", {"Content-Type": "multipart/form-data; boundary=x"}, b"--x")[0] == 200


@pytest.mark.parametrize(
    ("path", "headers", "method", "status", "reason"),
    [
        ("/gradio_api/upload", {"Content-Length": str(2**20 + 1)}, "POST", 413, b"larger than 1 MB"),
        ("/gradio_api/upload", {"Content-Length": "-1"}, "POST", 413, b"larger than 1 MB"),
        ("/gradio_api/upload", {"Transfer-Encoding": "chunked"}, "POST", 411, b"send a Content-Length"),
        ("/gradio_api/file=https://example.org/a.png", {}, "GET", 403, b"addresses are not fetched"),
        ("/file=HTTP://127.0.0.1", {}, "GET", 403, b"addresses are not fetched"),
    ],
)
def test_a_refusal_gives_the_reason(
    path: str, headers: dict[str, str], method: str, status: int, reason: bytes
) -> None:
    code, answer, bodies = send(path, headers, method=method)
    assert (code, bodies) == (status, [])
    assert reason in answer


@pytest.mark.parametrize("kind", ["application/json", "application/x+json", "text/plain", ""])
def test_an_address_is_refused_under_any_content_type(kind: str) -> None:
    status, answer, bodies = send(
        "/gradio_api/queue/join", {"Content-Type": kind}, b'{"data": [{"path": "http://example.org/a.png"}]}'
    )
    assert (status, bodies) == (400, [])
    assert b"upload it instead" in answer


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"data": [{"path": "a.png", "url": "http://127.0.0.1/gradio_api/file=a.png"}]}', None),
        (b"", None),
        (b"{", "not JSON"),
        (b"[" * 100 + b"]" * 100, "nested too deeply"),
        (b'{"data": [{"path": " HTTPS://example.org/a.png"}]}', "addresses are not fetched"),
        (b'{"data": [{"path": "a", "url": "data:image/png;base64,AAAA"}]}', "addresses are not fetched"),
    ],
)
def test_json_bodies_are_checked(body: bytes, reason: str | None) -> None:
    problem = json_problem(body)
    assert problem is None if reason is None else problem is not None and reason in problem
