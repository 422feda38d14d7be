"""What stands before Gradio: requests that are too large, that cannot be read, or that would make it fetch addresses.

Gradio limits single uploads only, and follows addresses in place of uploaded files: a page that is to send nothing
anywhere must not.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_LOG = logging.getLogger(__name__)
_MEGABYTE = 2**20
_FORMS = (b"multipart/form-data", b"application/x-www-form-urlencoded")
_ADDRESSES = ("http:", "https:", "ftp:", "data:", "//")
# Deeper than any request of the page, and far from where Python gives up.
_DEEPEST = 40


class Door:
    """ASGI middleware: refuses with a status from 400 to 499 and a reason in `detail`, as Gradio itself does."""

    def __init__(self, app: Any, *, max_request_mb: int) -> None:
        self._app = app
        self._max_mb = max_request_mb

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the request through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        # Whatever is not a form is read as JSON, whatever it calls itself.
        if refusal is None and scope["method"] not in ("GET", "HEAD", "OPTIONS") and kind not in _FORMS:
            body = await _read(receive)
            reason = fault(body)
            refusal = None if reason is None else (400, reason)
            receive = _again(body, receive)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        begun = False

        async def told(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, told)
        except Exception as error:
            # What drawing raises is told by Gradio's queue: this is Gradio's parser, stumbling over what was sent.
            if begun:
                raise
            _LOG.warning("request to %s not understood", scope["path"], exc_info=True)
            await _answer(send, 400, f"request not understood: {type(error).__name__}: {str(error)[:200]}")

    def _refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        """Judge by the head alone."""
        _, mark, wanted = scope["path"].partition("/file=")
        if mark and _is_address(wanted):
            return 403, "addresses are not fetched; only files of this page are served"
        if b"transfer-encoding" in headers:
            return 411, "send a Content-Length: the size of a request must be known before it is read"
        length = headers.get(b"content-length", b"0")
        # The server reads no more than was announced.
        if not length.isdigit() or int(length) > self._max_mb * _MEGABYTE:
            return 413, f"the request is larger than {self._max_mb} MB; send smaller pictures"
        return None


def fault(body: bytes) -> str | None:
    """Return what is wrong with a JSON body, or None: it cannot be read, or it holds a file that is an address."""
    if not body:
        return None
    try:
        payload = json.loads(body)
    except RecursionError:
        return "JSON nested too deeply"
    except ValueError as error:
        return f"not JSON: {str(error)[:200]}"
    level: list[Any] = [payload]
    for _ in range(_DEEPEST):
        for node in level:
            # The page itself sends where a file is served from, in `url`, beside its path.
            if isinstance(node, dict) and (_is_address(node.get("path")) or _is_inline(node.get("url"))):
                return "a file is an address; upload it instead: addresses are not fetched"
        level = [child for node in level for child in _children(node)]
        if not level:
            return None
    return "JSON nested too deeply"


def _children(node: Any) -> list[Any]:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [child for child in children if isinstance(child, dict | list)]


def _is_address(text: Any) -> bool:
    return isinstance(text, str) and text.strip().lower().startswith(_ADDRESSES)


def _is_inline(text: Any) -> bool:
    return isinstance(text, str) and text.strip().lower().startswith("data:")


async def _read(receive: Receive) -> bytes:
    parts = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives `body` once, and then what comes after it."""
    given = False

    async def once() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return once


async def _answer(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
