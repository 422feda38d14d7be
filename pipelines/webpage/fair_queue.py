"""The queue of drawings: callers take turns, and none of them fills it."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from gradio.queueing import Event, Queue
from starlette.exceptions import HTTPException

from pipelines.webpage.sessions import Sessions

# Requests that may wait while one is drawn, and how many of them may be one caller's.
MAX_WAITING = 64
SHARE = 16


class FairQueue(Queue):
    """Gradio's queue, in which the first request of every caller comes before the second of any.

    A caller is an account, or without accounts an address.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, max_size=MAX_WAITING)
        # Gradio's drops the oldest of all, also while its caller waits.
        self.pending_messages_per_session: dict[str, Any] = {}  # type: ignore[assignment]
        self.sessions = Sessions(self.blocks)
        self._one_push = asyncio.Lock()

    async def push(self, body: Any, request: Any, username: str | None) -> Any:
        """Put a request into the queue; HTTPException (429) where its caller has `SHARE` waiting already."""
        async with self._one_push:
            queues = self.event_queue_per_concurrency_id.values()
            caller = username or request.client.host
            if sum(_caller(event) == caller for queue in queues for event in queue.queue) >= SHARE:
                raise HTTPException(429, f"{SHARE} of your requests are waiting already; wait for one of them")
            pushed = await super().push(body, request, username)
            if pushed[0]:
                # A call of the API has the session that Gradio made for it.
                self.sessions.use(caller, body.session_hash)
            for queue in queues:
                queue.queue[:] = in_turns(queue.queue)
            return pushed


def _caller(event: Event) -> str:
    return event.username or event.request.client.host


def in_turns(events: list[Any], caller: Any = _caller) -> list[Any]:
    """Return `events` with the first of every caller, then the second of every caller, …; otherwise in their order."""
    before: Counter[str] = Counter()
    turns = []
    for event in events:
        turns.append(before[caller(event)])
        before[caller(event)] += 1
    return [event for _, event in sorted(zip(turns, events, strict=True), key=lambda pair: pair[0])]
