"""An ASGI guard in front of a server: headers with one meaning, requests of the own site only, bodies within limits.

The page and the served model stand behind it. A route states who may call it and which body it takes (`Body`); the
guard decides before it reads, counts while it reads, and parses JSON once, before the application sees any of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipelines.core.errors import UserError
from pipelines.core.server_metrics import METRICS, ServerMetrics

_LOG = logging.getLogger(__name__)
JSON = "application/json"
# Headers of which two programs could each read another one, if they were given twice.
_ONCE = ("authorization", "content-encoding", "content-length", "content-type", "host", "origin", "transfer-encoding")
# A body has _SECONDS, and one more for every _RATE bytes that arrive (as Apache's `RequestReadTimeout … MinRate`).
_SECONDS, _RATE = 20.0, 64 * 1024
# How much of a refused body is read and thrown away, so that its sender reads the reason instead of a reset.
_LINGER_SECONDS, _LINGER_BYTES = 1.0, 2**20
# Bodies above _LARGE are handled one after another, and hold at most _LARGE_TOGETHER while they arrive and wait.
_LARGE, _LARGE_TOGETHER = 4 * 2**20, 256 * 2**20
# Deeper than any request, and far below Python's recursion limit.
_MAX_DEPTH = 40


@dataclass(frozen=True)
class Body:
    """The body that a route takes: its media type and size; for JSON also the number of values, and a check.

    `check` gets the parsed JSON and returns what the application gets in its place, or raises UserError with the reason
    of a refusal. `parse` reads another media type in place of JSON, of which the application gets JSON, too.
    """

    media_type: str
    max_bytes: int
    max_values: int = 20_000
    check: Callable[[Any], Any] | None = None
    parse: Callable[[bytes], Any] | None = None

    @property
    def is_parsed(self) -> bool:
        """Whether the guard reads the body as a whole."""
        return self.media_type == JSON or self.parse is not None


def detail(status: int, reason: str) -> Response:
    """Return a refusal in the form of FastAPI: {"detail": reason}."""
    return JSONResponse({"detail": reason}, status)


def not_understood(error: Exception) -> str:
    """Return the reason of a refusal for an error of the application, without its text."""
    return f"request not understood: {type(error).__name__}"


class RequestGuard:
    """ASGI middleware that answers with a status from 400 to 499 and one line of reason, or calls the application.

    `admit` gets the request, whose body must not be read, and returns the body that its route takes, None for none; it
    raises Starlette's HTTPException to refuse. `refusal` makes the answer from status and reason. `metrics` counts the
    requests, and answers for the application at `METRICS` where `admit` lets a request through.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        admit: Callable[[Request], Body | None],
        refusal: Callable[[int, str], Response] = detail,
        seconds: float = _SECONDS,
        metrics: ServerMetrics | None = None,
    ) -> None:
        self._app = app
        self._admit = admit
        self._refusal = refusal
        self._seconds = seconds
        self._metrics = metrics
        self._large = _LargeBodies()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request or pass it on to the application."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        with contextlib.nullcontext(send) if self._metrics is None else self._metrics.request(scope, send) as counted:
            await self._answer(scope, receive, counted)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        reader = _BodyReader(receive, self._seconds, self._large)
        started = False

        def answered() -> None:
            """Nothing counts."""

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            answered()
            if message["type"] == "http.response.start" and not reader.complete:
                # Otherwise the server would read the rest of the body, however long.
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        try:
            passed_on = await self._check(scope, reader)
            metrics = self._metrics
            app = self._app if metrics is None or scope["path"] != METRICS else metrics.page
            admitted = (
                contextlib.nullcontext(answered) if metrics is None else metrics.admitted(reader.body is not None)
            )
            with admitted as answered:
                async with self._large.turn if reader.is_held and reader.complete else contextlib.nullcontext():
                    await app(scope, passed_on, send_and_note)
        except ClientDisconnect:
            return
        except HTTPException as error:
            if started:
                raise
            await _discard(receive)
            answer = self._refusal(error.status_code, str(error.detail))
            answer.headers.update(error.headers or {})
            await answer(scope, receive, send_and_note)
        except Exception as error:
            # One line of log: the text of the error may hold all of the request.
            last = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__} at {last.filename}:{last.lineno}"
            _LOG.warning("request to %.200r not understood: %s", scope["path"], what)
            if not started:
                answer = self._refusal(400, not_understood(error))
                await answer(scope, receive, send_and_note)
        finally:
            self._large.readers.discard(reader)

    async def _check(self, scope: Scope, reader: _BodyReader) -> Receive:
        """Return the `receive` for the application; raises HTTPException with the reason of a refusal."""
        headers = Headers(scope=scope)
        _check_headers(headers)
        reader.body = body = self._admit(Request(scope))
        length = headers.get("content-length")
        if body is None:
            if length not in (None, "0") or "transfer-encoding" in headers:
                raise HTTPException(400, "this address takes no body")
            reader.complete = True
            return reader
        media_type, _, parameters = (part.strip().lower() for part in headers.get("content-type", "").partition(";"))
        is_other_charset = body.is_parsed and parameters.replace('"', "") not in ("", "charset=utf-8")
        if media_type != body.media_type or is_other_charset or "content-encoding" in headers:
            given = f"{headers.get('content-type', 'none')[:80]!r} {headers.get('content-encoding', '')[:20]}".strip()
            raise HTTPException(415, f"Content-Type {given}; expected {body.media_type}, in UTF-8, not compressed")
        if length is not None and int(length) > body.max_bytes:
            raise _too_large(body)
        if not body.is_parsed:
            return reader
        passed_on = await _checked(reader, body)
        MutableHeaders(scope=scope)["content-type"] = JSON
        return passed_on


def _check_headers(headers: Headers) -> None:
    """Raise HTTPException where headers have two meanings, or a page of another site sent the request."""
    for name in _ONCE:
        if len(headers.getlist(name)) > 1:
            raise HTTPException(400, f"{name} is given {len(headers.getlist(name))} times; expected once")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdecimal() and len(length) < 16):
        raise HTTPException(400, "Content-Length is no number of bytes")
    if "content-length" in headers and "transfer-encoding" in headers:
        raise HTTPException(400, "Content-Length and Transfer-Encoding are both given; expected one of them")
    origin = headers.get("origin")
    # Browsers send Origin or Sec-Fetch-Site with what a page of another site asks for; following a link is allowed.
    is_foreign = origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower()
    is_other_site = headers.get("sec-fetch-site") in ("cross-site", "same-site")
    if is_foreign or (is_other_site and headers.get("sec-fetch-dest") != "document"):
        raise HTTPException(403, "a page of another site may not send requests here")


def _too_large(body: Body) -> HTTPException:
    size = f"{body.max_bytes / 2**20:g} MB" if body.max_bytes >= 2**20 else f"{body.max_bytes / 2**10:g} KB"
    return HTTPException(413, f"the request is larger than {size}, the limit for {body.media_type}")


class _LargeBodies:
    """The large bodies of JSON that arrive or wait; where they hold too much, the largest that arrives is refused."""

    def __init__(self) -> None:
        self.readers: set[_BodyReader] = set()
        self.turn = asyncio.Lock()

    def count(self, reader: _BodyReader) -> None:
        """Count `reader`, whose body has grown."""
        self.readers.add(reader)
        while sum(one.received for one in self.readers) > _LARGE_TOGETHER:
            largest = max((one for one in self.readers if not one.complete), key=lambda one: one.received, default=None)
            if largest is None:
                return
            self.readers.discard(largest)
            largest.refuse()


class _BodyReader:
    """A `receive` that raises HTTPException where the body is larger than `body` permits, or arrives too slowly."""

    def __init__(self, receive: Receive, seconds: float, large: _LargeBodies) -> None:
        self._receive = receive
        self._large = large
        self._deadline = time.monotonic() + seconds
        self._timeout: asyncio.Timeout | None = None
        self._is_refused = False
        self.received = 0
        self.body: Body | None = None
        self.complete = False

    @property
    def is_held(self) -> bool:
        """Whether the body is large, and held in memory as a whole."""
        return self.body is not None and self.body.is_parsed and self.received > _LARGE

    def refuse(self) -> None:
        """Refuse the body, now or with its next part."""
        self._is_refused = True
        if self._timeout is not None:
            self._timeout.reschedule(0)

    async def __call__(self) -> Message:
        if self.complete or self.body is None:
            return await self._receive()
        left = max(0.0, self._deadline + self.received / _RATE - time.monotonic())
        try:
            async with asyncio.timeout(left) as self._timeout:
                message = await self._receive()
        except TimeoutError:
            if not self._is_refused:
                raise HTTPException(408, "the body arrives too slowly; send it faster, or less of it") from None
        self._timeout = None
        if not self._is_refused:
            self._note(message)
        if self._is_refused:
            reason = "too many large requests at once; send it again in a while, or less at once"
            raise HTTPException(503, reason, {"Retry-After": "10"})
        return message

    def _note(self, message: Message) -> None:
        assert self.body is not None
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)
        if self.received > self.body.max_bytes:
            raise _too_large(self.body)
        if self.is_held:
            self._large.count(self)


async def _checked(receive: Receive, body: Body) -> Receive:
    """Read, parse and check a body; return the `receive` that passes it on. Raises HTTPException (400)."""
    parts = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts += message.get("body", b"")
        more = message.get("more_body", False)
    data = bytes(parts)
    try:
        payload = parse_json(data, body.max_values) if body.parse is None else body.parse(data)
        if body.check is not None:
            data = json.dumps(body.check(payload)).encode()
    except UserError as error:
        raise HTTPException(400, str(error)) from None
    whole = iter([{"type": "http.request", "body": data, "more_body": False}])

    async def replay() -> Message:
        return next(whole, None) or await receive()

    return replay


def parse_json(data: bytes, max_values: int) -> Any:
    """Return the parsed UTF-8 JSON; raise UserError where it is none, is nested too deeply or has too many values.

    Values are counted before they are made: each of them needs a comma or a bracket. Those within texts count, too.
    """
    if sum(map(data.count, (b",", b"[", b"{"))) > max_values:
        raise UserError(f"JSON with more than {max_values} values")
    try:
        payload = json.loads(data.decode("utf-8"))
    except RecursionError:
        raise UserError("JSON nested too deeply") from None
    except ValueError as error:
        raise UserError(f"not JSON: {str(error)[:200]}") from None
    level = [payload]
    for _ in range(_MAX_DEPTH):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return payload
    raise UserError("JSON nested too deeply")


async def _discard(receive: Receive) -> None:
    """Read what is left of a body, for a moment and up to a megabyte."""
    left = _LINGER_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            while left > 0 and (message := await receive()).get("more_body", False):
                left -= len(message.get("body", b""))
