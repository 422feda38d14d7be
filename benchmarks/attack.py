"""An attacker with one account on the page: large, nested and slow bodies, guesses of passwords, a full queue."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import multiprocessing
import os
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

API = "/gradio_api"
# Linux gives the whole net 127/8 to the loopback: the attacker has an address of its own.
SOURCE = ("127.0.0.9", 0)


@contextlib.contextmanager
def attacked(port: int, cookie: str, photo: str) -> Iterator[Counter[str]]:
    """Attack the page on `port` from another process until the block ends; then the counter has the kinds of answers.

    `cookie` is that of the attacker's account, `photo` an upload of it.
    """
    spawn = multiprocessing.get_context("spawn")
    ended, answers = spawn.Event(), spawn.Queue()
    process = spawn.Process(target=_attack, args=(port, cookie, photo, ended, answers))
    process.start()
    counted: Counter[str] = Counter()
    try:
        yield counted
    finally:
        ended.set()
        counted.update(answers.get(timeout=120))
        process.join()


def _attack(port: int, cookie: str, photo: str, ended: Any, answers: Any) -> None:
    """Repeat every kind of attack without a pause, each in a thread; leave the cores to the page, as from elsewhere."""
    os.nice(19)
    drawing = json.dumps({"data": [[{"path": photo, "meta": {"_type": "gradio.FileData"}}], "a photo", None, None, 0]})
    known = {"Cookie": cookie}
    kinds: dict[str, tuple[str, dict[str, str], Any]] = {
        "60 MB of JSON": (f"{API}/queue/join", known, b"[" + b"0," * 30_000_000),
        "60 MB before login": (f"{API}/queue/join", {}, b"[" * 60_000_000),
        "JSON without end": (f"{API}/call/draw", known, None),
        "1 MB of lists": (f"{API}/call/draw", known, b"[" + b"[]," * 340_000 + b"0]"),
        "1 MB of text": (f"{API}/call/draw", known, json.dumps({"data": ["x" * 10**6]}).encode()),
        "guesses": ("/login", {}, b"username=client-0&password=a+guess"),
        "drawings": (f"{API}/call/draw", known, drawing.encode()),
    }
    counted: Counter[str] = Counter()

    def repeat(kind: str) -> None:
        path, headers, body = kinds[kind]
        form = "application/x-www-form-urlencoded" if kind == "guesses" else "application/json"
        while not ended.is_set():
            endless = itertools.repeat(b"[" * 65_536)
            counted[f"{kind}: {_send(port, path, {**headers, 'Content-Type': form}, body or endless)}"] += 1

    threads = [threading.Thread(target=repeat, args=[kind]) for kind in kinds]
    with _slow_bodies(port, cookie):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    answers.put(dict(counted))


def _send(port: int, path: str, headers: dict[str, str], body: Any) -> str:
    """Return the status of the answer, or how the connection ended."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60, source_address=SOURCE)
    try:
        connection.request("POST", path, body, headers, encode_chunked=not isinstance(body, bytes))
        answer = connection.getresponse()
        answer.read()
    except OSError as error:
        # Closed while the body was being sent.
        return type(error).__name__
    finally:
        connection.close()
    return str(answer.status)


@contextlib.contextmanager
def _slow_bodies(port: int, cookie: str) -> Iterator[None]:
    """Hold 50 connections whose bodies never end."""
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60, source_address=SOURCE)
            stack.callback(connection.close)
            connection.putrequest("POST", f"{API}/call/draw")
            for name, value in (("Cookie", cookie), ("Content-Type", "application/json"), ("Content-Length", "1000")):
                connection.putheader(name, value)
            connection.endheaders(b"[")
        yield
