"""Connections of page and served model: few from one address, none that sends its headers for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 128
_HEADER_SECONDS = 20.0


class LimitedConnection(H11Protocol):
    """uvicorn's strict HTTP/1.1, which closes a connection that has had no request for two checks in a row.

    uvicorn closes connections that are silent after an answer, but waits without end for the first request, and for
    headers that arrive byte by byte.
    """

    header_seconds = _HEADER_SECONDS
    max_connections = MAX_CONNECTIONS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Close the connection at once where its address has too many."""
        super().connection_made(transport)
        address = self.client and self.client[0]
        clients = (getattr(other, "client", None) for other in self.connections)
        if sum(client is not None and client[0] == address for client in clients) > self.max_connections:
            transport.close()
            return
        self._check = self.loop.call_later(self.header_seconds, self._close_if_idle, None)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the checks, too."""
        if hasattr(self, "_check"):
            self._check.cancel()
        super().connection_lost(exc)

    def _close_if_idle(self, last: Any) -> None:
        """Close the connection where no request came since the check that saw `last` as its newest request."""
        if (self.cycle is None or self.cycle.response_complete) and self.cycle is last:
            self.timeout_keep_alive_handler()
            return
        self._check = self.loop.call_later(self.header_seconds, self._close_if_idle, self.cycle)
