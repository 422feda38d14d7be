"""Which addresses are open to whom is decided from headers alone; uploads are counted by caller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from pipelines.core.request_guard import JSON
from pipelines.core.sections.operations import Serve
from pipelines.webpage import budgets
from pipelines.webpage.admission import Admission
from pipelines.webpage.page_paths import PagePaths
from pipelines.webpage.sessions import Sessions

PARTS: dict[str, Any] = {"limits": Serve(), "paths": PagePaths(Path("/nowhere")), "sessions": Sessions(None)}


def admit(
    path: str, method: str = "GET", *, user: str | None = None, has_accounts: bool = True, **headers: str
) -> tuple[str, int] | int | None:
    """Return media type and limit of the body that is taken, None for no body, or the status of a refusal."""
    admission = Admission(lambda _: user, has_accounts=has_accounts, **PARTS)
    try:
        body = admission(request(path, method, **headers))
    except HTTPException as refusal:
        return refusal.status_code
    return None if body is None else (body.media_type, body.max_bytes)


def request(path: str, method: str, **headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    path, _, query = path.partition("?")
    scope: dict[str, Any] = {"type": "http", "method": method, "path": path, "query_string": query.encode()}
    return Request({**scope, "headers": raw, "client": ("192.0.2.7", 1)})


@pytest.mark.parametrize("path", ["/", "/assets/index.js", "/static/img/logo.svg", "/theme.css", "/login/"])
def test_the_login_is_open(path: str) -> None:
    assert admit(path) is None


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/config", "GET"),
        ("/gradio_api/info", "GET"),
        ("/gradio_api/file=/uploads/a/b.png", "GET"),
        ("/gradio_api/heartbeat/abc", "GET"),
        ("/gradio_api/queue/data", "GET"),
        ("/gradio_api/queue/join", "POST"),
        ("/gradio_api/call/draw", "POST"),
        ("/gradio_api/cancel", "POST"),
        ("/gradio_api/upload", "POST"),
    ],
)
def test_everything_else_needs_a_login_where_there_are_accounts(path: str, method: str) -> None:
    assert admit(path, method, content_length="5") == 401
    for known in ({"user": "ada"}, {"has_accounts": False}):
        assert admit(path, method, content_length="5", **known) in (None, (JSON, 2**18), ("multipart/form-data", 2**26))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/gradio_api/vibe-edit", "POST"),
        ("/gradio_api/run-history/connect", "POST"),
        ("/gradio_api/file/etc/passwd", "GET"),
        ("/gradio_api/stream/x", "POST"),
        ("/monitoring/summary", "GET"),
        ("/config", "POST"),
        ("/config", "DELETE"),
        ("/gradio_api/queue/join", "OPTIONS"),
        ("/assetsx", "GET"),
        ("http://elsewhere/", "GET"),
        ("/?deep_link=../../x", "GET"),
    ],
)
def test_other_addresses_and_methods_are_closed(path: str, method: str) -> None:
    assert admit(path, method, user="ada") == 404


def test_uploads_are_counted_by_caller() -> None:
    users = iter(["ada", "ada", "ada", "grace"])
    admission = Admission(lambda _: next(users), has_accounts=True, **PARTS)
    sent = [request("/gradio_api/upload", "POST", content_length=str(size * 2**20)) for size in (1000, 1000, 100, 100)]
    admission(sent[0])
    admission(sent[1])
    with pytest.raises(HTTPException, match="uploaded in an hour"):
        admission(sent[2])
    assert admission(sent[3]) is not None, "the other caller may"
    assert admit("/gradio_api/upload", "POST", user="ada", transfer_encoding="chunked") == 411


@pytest.mark.parametrize("size", [{"content_length": str(2**30)}, {"transfer_encoding": "chunked"}])
def test_so_is_json_whether_its_size_is_stated_or_not(size: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets.time, "time", lambda: 6000.0)
    admission = Admission(lambda _: "ada", has_accounts=True, **PARTS)
    large = request("/gradio_api/queue/join", "POST", **size)
    for _ in range(64):
        admission(large)
    with pytest.raises(HTTPException, match="16 MB sent in a minute"):
        admission(large)


def test_small_uploads_cost_too() -> None:
    admission = Admission(lambda _: "ada", has_accounts=True, **PARTS)
    small = request("/gradio_api/upload", "POST", content_length="1")
    for _ in range(8192):
        admission(small)
    with pytest.raises(HTTPException, match="uploaded in an hour"):
        admission(small)


def test_a_link_of_another_site_ends_no_login() -> None:
    assert admit("/logout", user="ada", sec_fetch_site="cross-site", sec_fetch_dest="document") == 403
    assert admit("/logout", user="ada", sec_fetch_site="same-origin") is None
    assert admit("/logout", user="ada") is None


def test_what_follows_the_address_is_short() -> None:
    """Gradio keeps the id of every upload whose progress is asked for."""
    assert admit("/gradio_api/upload?upload_id=" + "a" * 3000, "POST", user="ada", content_length="5") == 414


def test_a_session_of_another_caller_is_not_there() -> None:
    users = iter(["ada", "grace", "grace", "grace", "ada"])
    admission = Admission(lambda _: next(users), has_accounts=True, **{**PARTS, "sessions": Sessions(None)})
    body = admission(request("/gradio_api/queue/join", "POST", content_length="5"))
    assert body is not None
    assert body.check is not None
    body.check({"data": [], "session_hash": "of-ada"})
    for path in ("/gradio_api/queue/data?session_hash=of-ada", "/gradio_api/heartbeat/of-ada"):
        with pytest.raises(HTTPException, match="no such session"):
            admission(request(path, "GET"))
    body = admission(request("/gradio_api/cancel", "POST", content_length="5"))
    assert body is not None
    assert body.check is not None
    for wrong, reason in (
        ("of-ada", "no such session"),
        ("x" * 65, "1 to 64 characters"),
        (["x"], "1 to 64"),
        ("", "1 to 64"),
    ):
        with pytest.raises(HTTPException, match=reason):
            body.check({"data": [], "session_hash": wrong})
    assert admission(request("/gradio_api/queue/data?session_hash=of-ada", "GET")) is None
