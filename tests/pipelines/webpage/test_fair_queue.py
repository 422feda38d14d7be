"""Callers take turns, and whoever has more than a share of the queue is refused."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from gradio.data_classes import PredictBodyInternal
from starlette.exceptions import HTTPException

from pipelines.webpage.fair_queue import MAX_WAITING, SHARE, FairQueue, in_turns
from pipelines.webpage.sessions import MAX_SESSIONS


def turns(events: str) -> str:
    return "".join(in_turns(list(events), caller=lambda event: event))


def test_the_first_of_every_caller_comes_before_the_second_of_any() -> None:
    assert turns("aaab") == "abaa"
    assert turns("aaabbc") == "abcaba"
    assert turns(turns("aaab")[1:] + "c") == "baca", "after the first was drawn"
    assert turns("") == ""


def ask(queue: Any, caller: str, user: str | None = None) -> Any:
    request: Any = SimpleNamespace(client=SimpleNamespace(host=caller))
    body = PredictBodyInternal(data=[], fn_index=0, request=None)
    return queue.push(body, request, user)


def test_nobody_fills_the_queue() -> None:
    with gr.Blocks() as blocks:
        gr.api(lambda: 1, api_name="one")

    async def fill() -> tuple[list[Any], list[str]]:
        queue = FairQueue(
            live_updates=True, concurrency_count=1, update_intervals=1, blocks=blocks, default_concurrency_limit=1
        )
        asked = await asyncio.gather(*(ask(queue, "192.0.2.1") for _ in range(30)), return_exceptions=True)
        assert (await ask(queue, "192.0.2.2"))[0]
        assert (await ask(queue, "192.0.2.1", "ada"))[0], "an account is another caller"
        (waiting,) = queue.event_queue_per_concurrency_id.values()
        full = [await ask(queue, f"192.0.2.{10 + number}") for number in range(MAX_WAITING)]
        assert [state for _, _, state in full].count("queue_full") == SHARE + 2
        return list(asked), [event.username or event.request.client.host for event in waiting.queue[:4]]

    asked, first = asyncio.run(fill())
    refused = [answer for answer in asked if isinstance(answer, HTTPException)]
    assert (len(refused), {answer.status_code for answer in refused}) == (30 - SHARE, {429})
    assert first[:3] == ["192.0.2.1", "192.0.2.2", "ada"]
    with pytest.raises(HTTPException, match="wait for one"):
        raise refused[0]


def test_calls_of_one_caller_push_no_answer_of_another_out() -> None:
    """Gradio keeps the answers of 2,000 sessions, of whomever, and the page's memory grew with every name of one."""
    with gr.Blocks() as blocks:
        gr.api(lambda: 1, api_name="one")

    async def flood() -> FairQueue:
        blocks._queue = queue = FairQueue(
            live_updates=True, concurrency_count=1, update_intervals=1, blocks=blocks, default_concurrency_limit=1
        )
        _, first, _ = await ask(queue, "192.0.2.1", "ada")
        for _ in range(2100):
            await ask(queue, "192.0.2.2", "grace")
            # As when each is drawn at once.
            (waiting,) = queue.event_queue_per_concurrency_id.values()
            waiting.queue[:] = [event for event in waiting.queue if event.username == "ada"]
        assert first in queue.pending_messages_per_session, "the answer that ada waits for"
        return queue

    queue = asyncio.run(flood())
    for kept in (queue.pending_messages_per_session, queue.pending_event_ids_session, queue.event_ids_to_events):
        assert len(kept) <= MAX_SESSIONS + 1
