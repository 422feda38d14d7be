"""What never reaches Gradio."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import TestClient

from pipelines.webpage.door import Door


def knock(
    path: str, headers: dict[str, str], body: bytes = b"", method: str = "POST"
) -> tuple[int, bytes, list[bytes]]:
    """Return the status, the answer, and the bodies that came through."""
    bodies = []

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        bodies.append(await Request(scope, receive).body())
        await Response("in")(scope, receive, send)

    answer = TestClient(Door(inside, max_request_mb=1)).request(method, path, headers=headers, content=body)
    return answer.status_code, answer.content, bodies


def test_a_good_request_comes_through_as_it_was() -> None:
    body = b'{"data": [[{"path": "/here/a.png"}]]}'
    found = knock("/gradio_api/call/draw", {"Content-Type": "application/json", "Content-Length": str(len(body))}, body)
    assert found == (200, b"in", [body])
    assert knock("/gradio_api/upload", {"Content-Type": "multipart/form-data; boundary=x"}, b"--x")[0] == 200


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
def test_a_refusal_says_why(path: str, headers: dict[str, str], method: str, status: int, reason: bytes) -> None:
    found, answer, bodies = knock(path, headers, method=method)
    assert (found, bodies) == (status, [])
    assert reason in answer


@pytest.mark.parametrize("kind", ["application/json", "application/x+json", "text/plain", ""])
def test_no_content_type_carries_an_address_past_it(kind: str) -> None:
    status, answer, bodies = knock(
        "/gradio_api/queue/join", {"Content-Type": kind}, b'{"data": [{"path": "http://example.org/a.png"}]}'
    )
    assert (status, bodies) == (400, [])
    assert b"upload it instead" in answer
