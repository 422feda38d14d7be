"""The guard reads headers in one way, refuses other sites, and counts, times and parses bodies as they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import TestClient

from pipelines.core import request_guard
from pipelines.core.errors import UserError
from pipelines.core.request_guard import JSON, Body, RequestGuard, parse_json

Headers = dict[str, str] | list[tuple[str, str]]
FORM = "multipart/form-data"
ROUTES = {"/json": Body(JSON, 1000, max_values=100), "/form": Body(FORM, 1000), "/nothing": None}


def admit(request: Request) -> Body | None:
    if request.url.path not in ROUTES:
        raise HTTPException(404, "no such address")
    return ROUTES[request.url.path]


def send(
    path: str, headers: Headers, body: bytes | Iterable[bytes] = b"", method: str = "POST"
) -> tuple[int, str, list[bytes]]:
    """Return the status, the answer, and the bodies that the application got."""
    bodies = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        bodies.append(await Request(scope, receive).body())
        await Response("passed")(scope, receive, send)

    client = TestClient(RequestGuard(application, admit=admit), base_url="http://here:80")
    answer = client.request(method, path, headers=headers, content=body)
    return answer.status_code, answer.text, bodies


def typed(media_type: str, *more: tuple[str, str]) -> Headers:
    return [("Content-Type", media_type), *more]


def test_a_valid_request_is_passed_on_unchanged() -> None:
    body = b'{"data": [1,  2]}'
    assert send("/json", typed(JSON), body) == (200, "passed", [body])
    assert send("/json", typed("Application/JSON; charset=UTF-8"), body)[0] == 200
    assert send("/form", typed(f"{FORM}; boundary=x"), iter([b"--", b"x"])) == (200, "passed", [b"--x"])
    assert send("/nothing", {}, method="GET") == (200, "passed", [b""])


@pytest.mark.parametrize(
    "headers",
    [
        typed(FORM, ("Content-Type", JSON)),
        typed(JSON, ("Content-Length", "2"), ("Content-Length", "3")),
        typed(JSON, ("Origin", "http://here"), ("Origin", "http://elsewhere")),
        typed(JSON, ("Content-Length", "2"), ("Transfer-Encoding", "chunked")),
    ],
)
def test_headers_that_can_be_read_in_two_ways_are_refused(headers: Headers) -> None:
    status, reason, bodies = send("/json", headers, b"[]")
    assert (status, bodies) == (400, [])
    assert "given" in reason


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/json", typed(FORM)),
        ("/json", {}),
        ("/json", typed("text/plain")),
        ("/json", typed("application/x+json")),
        ("/json", typed(f"{JSON}; charset=utf-16")),
        ("/json", typed(JSON, ("Content-Encoding", "gzip"))),
        ("/form", typed(JSON)),
    ],
)
def test_a_route_takes_one_media_type(path: str, headers: Headers) -> None:
    status, reason, bodies = send(path, headers, b"[]")
    assert (status, bodies) == (415, [])
    assert "expected" in reason


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://here"}, 200),
        ({"Origin": "http://HERE"}, 200),
        ({"Origin": "https://elsewhere"}, 403),
        ({"Origin": "http://here.elsewhere"}, 403),
        ({"Origin": "http://here:81"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, 403),
    ],
)
def test_pages_of_other_sites_are_refused(headers: Headers, status: int) -> None:
    assert send("/nothing", headers, method="GET")[0] == status


@pytest.mark.parametrize("path", ["/json", "/form"])
def test_a_body_is_counted_while_it_arrives(path: str) -> None:
    media_type = JSON if path == "/json" else FORM
    taken = []

    def endless() -> Iterator[bytes]:
        for number in range(100):
            taken.append(number)
            yield b" " * 100

    assert send(path, typed(media_type), b" " * 1001)[0] == 413, "by its Content-Length"
    status, reason, bodies = send(path, typed(media_type), endless())
    assert (status, bodies) == (413, [])
    assert "larger than" in reason


def test_no_body_where_none_is_taken() -> None:
    assert send("/nothing", typed(JSON), b"[]")[0] == 400
    assert send("/nothing", {}, iter([b"[]"]))[0] == 400
    assert send("/elsewhere", {}, b"x" * 5000)[:2] == (404, '{"detail":"no such address"}')


@pytest.mark.parametrize("path", ["/json", "/form"])
def test_a_slow_body_is_timed_out_and_its_connection_closed(path: str) -> None:
    """Parts arrive, and then none; the application waits for the next one."""
    parts = iter([b"[", b"1"])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if (part := next(parts, None)) is None:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": part, "more_body": True}

    async def keep(message: Any) -> None:
        sent.append(message)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await Request(scope, receive).body()

    media_type = JSON if path == "/json" else FORM
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "root_path": ""}
    scope["headers"] = [(b"host", b"here"), (b"content-type", media_type.encode()), (b"transfer-encoding", b"chunked")]
    asyncio.run(RequestGuard(application, admit=admit, seconds=0.01)(scope, receive, keep))
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        ('{"a": 1}'.encode("utf-16"), "not JSON"),
        (b'{"a": "\xff"}', "not JSON"),
        (b"[" * 60 + b"]" * 60, "nested too deeply"),
        (b"[" * 100_000, "more than 100 values"),
        (b"[" + b"0," * 200 + b"0]", "more than 100 values"),
        (b'[{"a": 1},' + b"{}," * 60 + b"{}]", "more than 100 values"),
    ],
)
def test_other_json_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        parse_json(body, 100)


def test_the_application_gets_what_the_check_returns() -> None:
    """So that it cannot read the body in another way than the check."""

    def check(payload: Any) -> Any:
        if "path" in payload:
            raise UserError("a path")
        return {"checked": payload}

    got = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        got.append(await Request(scope, receive).json())
        await Response("passed")(scope, receive, send)

    client = TestClient(RequestGuard(application, admit=lambda _: Body(JSON, 1000, check=check)))
    assert client.post("/", json={"a": 1, "b": "ü"}).status_code == 200
    refused = client.post("/", json={"path": 1})
    assert (refused.status_code, refused.json()) == (400, {"detail": "a path"})
    assert got == [{"checked": {"a": 1, "b": "ü"}}]


def test_an_error_of_the_application_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("secret " * 1000)

    answer = TestClient(RequestGuard(application, admit=lambda _: None)).get("/%1b[31m")
    assert (answer.status_code, answer.json()) == (400, {"detail": "request not understood: KeyError"})
    (line,) = (record.getMessage() for record in caplog.records if record.name == RequestGuard.__module__)
    assert "secret" not in line
    assert "\x1b" not in line


def test_of_too_many_large_bodies_the_largest_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others' smaller ones, large or not, pass; the large ones one after another."""
    monkeypatch.setattr(request_guard, "_LARGE", 100)
    monkeypatch.setattr(request_guard, "_LARGE_TOGETHER", 700)
    inside: list[int] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        inside.append(1)
        assert len(inside) == 1, "one large body at a time"
        await asyncio.sleep(0)
        inside.pop()
        await Response("passed")(scope, receive, send)

    guard = RequestGuard(application, admit=admit)

    async def ask(size: int, *, ends: bool = True) -> int:
        parts = [{"type": "http.request", "body": b" " * (size - 2) + b"[]", "more_body": not ends}]
        statuses: list[int] = []

        async def receive() -> Any:
            return parts.pop() if parts else await asyncio.sleep(60)

        async def send(message: Any) -> None:
            statuses.append(message.get("status"))

        scope = {"type": "http", "method": "POST", "path": "/json", "headers": [(b"content-type", JSON.encode())]}
        await guard({**scope, "query_string": b"", "server": ("here", 80)}, receive, send)
        return statuses[0]

    async def together() -> list[int]:
        slow = [asyncio.create_task(ask(size, ends=False)) for size in (400, 200)]
        await asyncio.sleep(0)
        answers = [await ask(150), await ask(90), *await asyncio.gather(ask(150), ask(150))]
        answers.append(await asyncio.wait_for(slow[0], 5))
        assert not slow[1].done(), "the smaller one may go on"
        slow[1].cancel()
        return answers

    assert asyncio.run(together()) == [200, 200, 200, 200, 503]
