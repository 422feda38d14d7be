"""The page's API under load: many clients at once, the same seed always the same bytes, nonsense refused.

    python benchmarks/page_load.py --adapter models:/dynamicid@champion        # starts the page, and ends it
    python benchmarks/page_load.py --url http://127.0.0.1:7860 --photo me.jpg

The last line is JSON. Exit 1 where a request failed, an answer differed, or nonsense was not refused with a reason.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import requests

from benchmarks.malformed_calls import Call, malformed_calls

FACE_PROMPTS = ("", "happy", "sad, turned to the left", "surprised", "slightly turned to the right")
API = "gradio_api"


class Answer(NamedTuple):
    """The bytes of a picture, or the reason why there is none; how long it took in seconds."""

    picture: bytes | None
    reason: str
    seconds: float


@contextlib.contextmanager
def served(*options: str, home: Path | None = None, timeout: float = 600.0) -> Iterator[str]:
    """Start `dynamicid app` with `options` on a free port of loopback in `home`, yield its address, and end it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pipelines.cli", "app", "--port", str(port), *options]
    path = os.pathsep.join([str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        command, cwd=home, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
    )
    # Ends the reading below, should the page never answer.
    late = threading.Timer(timeout, process.kill)
    late.start()
    try:
        line = process.stdout.readline() if process.stdout else ""
        late.cancel()
        if not line:
            raise RuntimeError(f"the page ended with {process.wait()} before it answered")
        yield json.loads(line)["url"].rstrip("/")
    finally:
        late.cancel()
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()


def alive(url: str) -> bool:
    """Whether the page answers."""
    try:
        return requests.get(url, timeout=30).status_code == 200
    except requests.ConnectionError:
        return False


class Caller:
    """One client of the page, as `gradio_client` is one; pictures are downloaded into `folder`."""

    def __init__(self, url: str, folder: Path) -> None:
        from gradio_client import Client

        self._client = Client(url, download_files=folder, verbose=False, analytics_enabled=False)

    def draw(self, photos: Sequence[Path], number: int) -> Answer:
        """Ask for picture `number`: the same number is the same request."""
        from gradio_client import handle_file

        begun = time.monotonic()
        try:
            picture, _, _ = self._client.predict(
                references=[handle_file(photo) for photo in photos],
                prompt="a photo of a person",
                face_prompts=[FACE_PROMPTS[(number + place) % len(FACE_PROMPTS)] for place in range(len(photos))],
                seed=number,
                api_name="/draw",
            )
        except Exception as error:
            return Answer(None, f"{type(error).__name__}: {error}", time.monotonic() - begun)
        return Answer(Path(picture).read_bytes(), "", time.monotonic() - begun)


def load(url: str, photos: Sequence[Path], *, count: int, clients: int, seeds: int) -> dict[str, Any]:
    """Send `count` good requests from `clients` clients; `seeds` different ones, again and again."""
    with tempfile.TemporaryDirectory() as folder:
        callers = [Caller(url, Path(folder) / str(n)) for n in range(clients)]

        def answers_of(client: int) -> list[tuple[int, Answer]]:
            numbers = [number % seeds for number in range(client, count, clients)]
            return [(n, callers[client].draw(photos[: 1 + n % min(2, len(photos))], n)) for n in numbers]

        with ThreadPoolExecutor(clients) as pool:
            found = [answer for answers in pool.map(answers_of, range(clients)) for answer in answers]
    different = {number: {answer.picture for n, answer in found if n == number} for number, _ in found}
    times = sorted(answer.seconds for _, answer in found)
    return {
        "requests": count,
        "clients": clients,
        "errors": sum(answer.picture is None for _, answer in found),
        "first_error": next((answer.reason[:300] for _, answer in found if answer.picture is None), None),
        "seeds": seeds,
        "most_answers_of_one_seed": max(map(len, different.values())),
        "pictures": len({answer.picture for _, answer in found}),
        "median_s": round(statistics.median(times), 3),
        "slowest_s": round(times[-1], 3),
    }


def upload(url: str, data: bytes, name: str = "photo.png") -> requests.Response:
    """Upload a file as the page does; the answer is a list with its path on the server."""
    return requests.post(f"{url}/{API}/upload", files={"files": (name, data)}, timeout=60)


def reason_of(url: str, call: Call) -> str | None:
    """Send a malformed call; return the reason it was refused with, or None where it was not, or without one."""
    headers = {} if call.content_type is None else {"Content-Type": call.content_type}
    reply = requests.post(f"{url}/{API}/call/{call.endpoint}", data=call.body, headers=headers, timeout=600)
    if reply.status_code != 200:
        return str(reply.json()["detail"]) if 400 <= reply.status_code < 500 else None
    events = requests.get(f"{url}/{API}/call/{call.endpoint}/{reply.json()['event_id']}", timeout=600).text
    if "event: error" not in events:
        return None
    told = json.loads(events.rpartition("data:")[2])
    return (told or {}).get("error") or None


def nonsense(url: str, photo: bytes) -> dict[str, Any]:
    """Send malformed calls one after another; `photo` is one that would be accepted."""
    calls = list(malformed_calls(upload(url, photo).json()[0], lambda data: upload(url, data).json()[0]))
    reasons = {call.what: reason_of(url, call) for call in calls}
    return {
        "malformed": len(calls),
        "not_refused": [what for what, reason in reasons.items() if not reason],
        "reasons": len({reason for reason in reasons.values() if reason}),
        "alive": alive(url),
    }


def main() -> int:
    """Measure and print; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--adapter", help="adapter folder or registered model to open the page with")
    where.add_argument("--url", help="a page that is open")
    parser.add_argument("--photo", action="append", type=Path, help="reference photo, repeatable (a drawn person)")
    parser.add_argument("--requests", type=int, default=50)
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=10)
    asked = parser.parse_args()
    with contextlib.ExitStack() as stack:
        photos = asked.photo or [_drawn(Path(stack.enter_context(tempfile.TemporaryDirectory())))]
        opened = served("--adapter", asked.adapter) if asked.adapter else contextlib.nullcontext(asked.url.rstrip("/"))
        url = stack.enter_context(opened)
        found = load(url, photos, count=asked.requests, clients=asked.clients, seeds=asked.seeds)
        found |= nonsense(url, photos[0].read_bytes())
        again = load(url, photos, count=1, clients=1, seeds=1)
    for name, value in found.items():
        print(f"{name:<26} {value}")
    good = not (found["errors"] or found["not_refused"] or again["errors"]) and found["alive"]
    good = good and found["most_answers_of_one_seed"] == 1
    print(json.dumps({**found, "passed": good}))
    return 0 if good else 1


def _drawn(folder: Path) -> Path:
    from pipelines.webpage.examples import draw_examples

    return draw_examples(folder)[0].photos[0]


if __name__ == "__main__":
    sys.exit(main())
