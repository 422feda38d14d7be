"""An attacker of page or served model: large, nested and slow bodies, endless headers, guesses, a full queue."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import multiprocessing
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

API = "/gradio_api"
# Linux gives the whole net 127/8 to the loopback: the attacker has an address of its own.
SOURCE = ("127.0.0.9", 0)
_JSON = {"Content-Type": "application/json"}


class Kind(NamedTuple):
    """A request that is repeated: its path, its headers, and its body (None: without end)."""

    path: str
    headers: dict[str, str]
    body: bytes | None


def page_kinds(cookie: str, photo: str) -> dict[str, Kind]:
    """Return the attacks on the page; `cookie` is that of the attacker's account, `photo` an upload of it."""
    drawing = json.dumps({"data": [[{"path": photo, "meta": {"_type": "gradio.FileData"}}], "a photo", None, None, 0]})
    known = {**_JSON, "Cookie": cookie}
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    return {
        "60 MB of JSON": Kind(f"{API}/queue/join", known, b"[" + b"0," * 30_000_000),
        "60 MB before login": Kind(f"{API}/queue/join", _JSON, b"[" * 60_000_000),
        "JSON without end": Kind(f"{API}/call/draw", known, None),
        "1 MB of lists": Kind(f"{API}/call/draw", known, b"[" + b"[]," * 340_000 + b"0]"),
        "1 MB of text": Kind(f"{API}/call/draw", known, json.dumps({"data": ["x" * 10**6]}).encode()),
        "guesses": Kind("/login", form, b"username=client-0&password=a+guess"),
        "drawings": Kind(f"{API}/call/draw", known, drawing.encode()),
    }


def serving_kinds() -> dict[str, Kind]:
    """Return the attacks on the served model."""
    text = b'{"inputs": [{"prompt": "a", "references": ["' + b"A" * 60_000_000 + b'"]}]}'
    return {
        "60 MB of JSON": Kind("/invocations", _JSON, b"[" + b"0," * 30_000_000),
        "60 MB of text": Kind("/invocations", _JSON, text),
        "JSON without end": Kind("/invocations", _JSON, None),
        "1 MB of lists": Kind("/invocations", _JSON, b"[" + b"[]," * 340_000 + b"0]"),
        "10 MB of headers": Kind("/invocations", {**_JSON, "X-Long": "a" * 10_000_000}, b"{}"),
        "wrong rows": Kind("/invocations", _JSON, b'{"inputs": [{"prompt": "a", "references": ["aGk="]}]}'),
    }


@contextlib.contextmanager
def attacked(port: int, kinds: Callable[[], dict[str, Kind]]) -> Iterator[Counter[str]]:
    """Attack `port` from another process until the block ends; then the counter has the kinds of answers."""
    spawn = multiprocessing.get_context("spawn")
    ended, answers = spawn.Event(), spawn.Queue()
    process = spawn.Process(target=_attack, args=(port, kinds, ended, answers))
    process.start()
    counted: Counter[str] = Counter()
    try:
        yield counted
    finally:
        ended.set()
        counted.update(answers.get(timeout=120))
        process.join()


def _attack(port: int, kinds_of: Callable[[], dict[str, Kind]], ended: Any, answers: Any) -> None:
    """Repeat every kind of attack without a pause, each in a thread; leave the cores to others, as from elsewhere."""
    os.nice(19)
    kinds = kinds_of()
    counted: Counter[str] = Counter()

    def repeat(name: str, kind: Kind) -> None:
        while not ended.is_set():
            body = kind.body or itertools.repeat(b"[" * 65_536)
            counted[f"{name}: {_send(port, kind, body)}"] += 1

    threads = [threading.Thread(target=repeat, args=item) for item in kinds.items()]
    with _slow_bodies(port, kinds["JSON without end"]):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    answers.put(dict(counted))


def _send(port: int, kind: Kind, body: Any) -> str:
    """Return the status of the answer, or how the connection ended."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60, source_address=SOURCE)
    try:
        connection.request("POST", kind.path, body, kind.headers, encode_chunked=not isinstance(body, bytes))
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException) as error:
        # Closed while the body was being sent.
        return type(error).__name__
    finally:
        connection.close()
    return str(answer.status)


@contextlib.contextmanager
def _slow_bodies(port: int, kind: Kind) -> Iterator[None]:
    """Hold 50 connections whose bodies never end."""
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60, source_address=SOURCE)
            stack.callback(connection.close)
            connection.putrequest("POST", kind.path)
            for name, value in {**kind.headers, "Content-Length": "1000"}.items():
                connection.putheader(name, value)
            connection.endheaders(b"[")
        yield
