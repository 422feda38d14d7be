"""A plugin of Airflow's API server: limit the guesses of a password, which its simple auth manager does not."""

from __future__ import annotations

import ipaddress
import json
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from airflow.plugins_manager import AirflowPlugin

# Where the simple auth manager checks passwords.
_LOGINS = ("/auth/token", "/auth/token/cli")
# Addresses that are remembered; the one that was silent longest is forgotten first.
_ADDRESSES = 10_000
_MAX_BODY = 8 * 2**10


class Guesses:
    """At most `limit` wrong passwords of one address within `seconds`; more have to wait."""

    def __init__(self, limit: int, seconds: float, clock: Callable[[], float]) -> None:
        self._limit, self._seconds, self._clock = limit, seconds, clock
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def take(self, address: str) -> float:
        """Count a guess before it is checked, as many may come at once; return the seconds to wait, 0 if it may be."""
        now = self._clock()
        times = self._times.setdefault(address, deque())
        self._times.move_to_end(address)
        while len(self._times) > _ADDRESSES:
            self._times.popitem(last=False)
        while times and times[0] <= now - self._seconds:
            times.popleft()
        if len(times) >= self._limit:
            return times[0] + self._seconds - now
        times.append(now)
        return 0.0

    def give_back(self, address: str) -> None:
        """Do not count the last guess of an address: its password was right, or none was checked."""
        if times := self._times.get(address):
            times.pop()


class LoginLimit:
    """ASGI middleware that answers 429 instead of checking a password where an address guessed too often."""

    def __init__(
        self, app: Any, limit: int = 10, seconds: float = 300, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app, self._guesses = app, Guesses(limit, seconds, clock)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or refuse it."""
        login = scope["type"] == "http" and scope["method"] == "POST" and scope["path"].endswith(_LOGINS)
        if not login:
            await self._app(scope, receive, send)
            return
        length = dict(scope.get("headers", ())).get(b"content-length", b"")
        if not (length.isdigit() and len(length) < 16 and int(length) <= _MAX_BODY):
            # Airflow reads a body whole before it checks the password.
            await _refuse(send, 413, "a login is smaller, and states its Content-Length")
            return
        address = _network(scope.get("client"))
        if wait := self._guesses.take(address):
            seconds = str(math.ceil(wait)).encode()
            await _refuse(send, 429, "too many wrong passwords; try again later", (b"retry-after", seconds))
            return
        status = 0

        async def noting(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            if status != 401:
                self._guesses.give_back(address)


def _network(client: Any) -> str:
    """Return what stands for the machine of a client: it has all loopback addresses, and all of half an IPv6 one."""
    address = client[0] if client else ""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    found = getattr(found, "ipv4_mapped", None) or found
    if found.is_loopback:
        return "loopback"
    return str(found if found.version == 4 else ipaddress.ip_network((found, 64), strict=False))


async def _refuse(send: Any, status: int, reason: str, *headers: tuple[bytes, bytes]) -> None:
    answer = [(b"content-type", b"application/json"), *headers]
    await send({"type": "http.response.start", "status": status, "headers": answer})
    await send({"type": "http.response.body", "body": json.dumps({"detail": reason}).encode()})


class LoginLimitPlugin(AirflowPlugin):
    """Registers the middleware with the API server."""

    name = "login_limit"
    fastapi_root_middlewares = [{"middleware": LoginLimit, "name": "limit of wrong passwords"}]  # noqa: RUF012
