"""A check before Gradio: refuse requests that are too large, are malformed, or would make Gradio fetch an address.

Gradio limits single uploads only, and fetches URLs that are given in place of uploaded files. The page must open no
connection to other machines.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOG = logging.getLogger(__name__)
_MEGABYTE = 2**20
_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
_ADDRESSES = ("http:", "https:", "ftp:", "data:", "//")
# Deeper than any request of the page, and far below Python's recursion limit.
_MAX_DEPTH = 40


class RequestGuard:
    """ASGI middleware that refuses with a status from 400 to 499 and the reason in `detail`, as Gradio itself does."""

    def __init__(self, app: ASGIApp, *, max_request_mb: int) -> None:
        self._app = app
        self._max_mb = max_request_mb

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request or pass it on to the application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        refusal = self._check_headers(request)
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        # Gradio parses every body that is not a form as JSON, whatever its content type.
        if refusal is None and request.method not in ("GET", "HEAD", "OPTIONS") and kind not in _FORMS:
            try:
                body = await request.body()
            except ClientDisconnect:
                return
            if reason := json_problem(body):
                refusal = _refused(400, reason)
            receive = _replay(body, receive)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception as error:
            # Gradio's queue reports errors of drawing itself; an exception here comes from parsing the request.
            if started:
                raise
            _LOG.warning("request to %s not understood", scope["path"], exc_info=True)
            reason = f"request not understood: {type(error).__name__}: {str(error)[:200]}"
            await _refused(400, reason)(scope, receive, send)

    def _check_headers(self, request: Request) -> JSONResponse | None:
        _, mark, wanted = request.scope["path"].partition("/file=")
        if mark and _is_address(wanted):
            return _refused(403, "addresses are not fetched; only files of this page are served")
        if "transfer-encoding" in request.headers:
            return _refused(411, "send a Content-Length: the size of a request must be known before it is read")
        length = request.headers.get("content-length", "0")
        # The server reads at most Content-Length bytes.
        if not length.isdecimal() or int(length) > self._max_mb * _MEGABYTE:
            return _refused(413, f"the request is larger than {self._max_mb} MB; send smaller pictures")
        return None


def _refused(status: int, reason: str) -> JSONResponse:
    return JSONResponse({"detail": reason}, status)


def json_problem(body: bytes) -> str | None:
    """Return why a JSON body is refused (malformed, nested too deeply, an address in place of a file), else None."""
    if not body:
        return None
    try:
        payload = json.loads(body)
    except RecursionError:
        return "JSON nested too deeply"
    except ValueError as error:
        return f"not JSON: {str(error)[:200]}"
    level: list[Any] = [payload]
    for _ in range(_MAX_DEPTH):
        for node in level:
            # The page itself sends, beside the path of a file, the `url` under which it serves it.
            if isinstance(node, dict) and (_is_address(node.get("path")) or _is_address(node.get("url"), ("data:",))):
                return "a file is an address; upload it instead: addresses are not fetched"
        level = [child for node in level for child in _children(node)]
        if not level:
            return None
    return "JSON nested too deeply"


def _children(node: Any) -> list[Any]:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [child for child in children if isinstance(child, dict | list)]


def _is_address(text: Any, kinds: tuple[str, ...] = _ADDRESSES) -> bool:
    return isinstance(text, str) and text.strip().lower().startswith(kinds)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that yields the body that was read already, then the messages after it."""
    whole = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def once() -> Message:
        return next(whole, None) or await receive()

    return once
