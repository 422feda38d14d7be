"""`mlflow models serve` under load: many clients at once, the same seed always the same bytes, nonsense refused.

    python benchmarks/serving_load.py --model models:/dynamicid@champion       # starts the server, and ends it
    python benchmarks/serving_load.py --url http://127.0.0.1:5001 --photo me.jpg

The last line is JSON. Exit 1 where a request failed, an answer differed, or nonsense was not refused with a reason.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import requests

from benchmarks.malformed_requests import malformed_requests

FACE_PROMPTS = ("", "happy", "sad, turned to the left", "surprised", "slightly turned to the right")


class Answer(NamedTuple):
    """One answer: its status, its body, and how long it took in seconds."""

    status: int
    body: bytes
    seconds: float


@contextlib.contextmanager
def served(model: str, *, timeout: float = 600.0) -> Iterator[str]:
    """Start `mlflow models serve` for `model` on a free port of loopback, yield its address, and end it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # The server is found by name: the environment of this Python comes first.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", model, "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--timeout", str(int(timeout))]
    process = subprocess.Popen(command, env={**os.environ, "PATH": path}, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, process, timeout)
        yield url
    finally:
        # The command is a shell around the server: its whole session is ours.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def _wait(url: str, process: subprocess.Popen[bytes], timeout: float) -> None:
    limit = time.monotonic() + timeout
    while not alive(url):
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode} before it answered")
        if time.monotonic() > limit:
            raise RuntimeError(f"no answer from {url} within {timeout:g} s")
        time.sleep(0.5)


def alive(url: str) -> bool:
    """Whether the server answers its health check."""
    try:
        return requests.get(f"{url}/ping", timeout=10).status_code == 200
    except requests.ConnectionError:
        return False


def send(url: str, body: bytes, content_type: str | None = "application/json") -> Answer:
    """Send one request; a failed connection is status 0."""
    started = time.monotonic()
    headers = {} if content_type is None else {"Content-Type": content_type}
    try:
        reply = requests.post(f"{url}/invocations", data=body, headers=headers, timeout=600)
    except requests.RequestException as error:
        return Answer(0, str(error).encode(), time.monotonic() - started)
    return Answer(reply.status_code, reply.content, time.monotonic() - started)


def load(url: str, photos: list[bytes], *, count: int, clients: int, seeds: int) -> dict[str, Any]:
    """Send `count` good requests from `clients` threads; `seeds` different ones, again and again."""

    def body(number: int) -> bytes:
        people = photos[: 1 + number % min(2, len(photos))]
        row = {
            "references": [base64.b64encode(photo).decode() for photo in people],
            "prompt": "a photo of a person",
            "face_prompts": [FACE_PROMPTS[(number + place) % len(FACE_PROMPTS)] for place in range(len(people))],
            "seed": number,
        }
        return json.dumps({"dataframe_records": [row]}).encode()

    bodies = [body(number) for number in range(seeds)]
    started = time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(lambda number: send(url, bodies[number % seeds]), range(count)))
    seconds = time.monotonic() - started
    different = [
        len({answers[number].body for number in range(seed, count, seeds)}) for seed in range(min(seeds, count))
    ]
    times = sorted(answer.seconds for answer in answers)
    return {
        "requests": count,
        "clients": clients,
        "errors": sum(answer.status != 200 for answer in answers),
        "first_error": next((a.body.decode(errors="replace")[:300] for a in answers if a.status != 200), None),
        "seeds": seeds,
        "most_answers_of_one_seed": max(different),
        "pictures": len({answer.body for answer in answers}),
        "per_second": round(count / seconds, 2),
        "median_s": round(statistics.median(times), 3),
        "slowest_s": round(times[-1], 3),
    }


def nonsense(url: str, photo: bytes, *, count: int, clients: int) -> dict[str, Any]:
    """Send `count` malformed requests; a refusal is a status from 400 to 499 with a reason in it."""
    bad = malformed_requests(photo, count)
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(lambda request: send(url, request.body, request.content_type), bad))
    wrong = [
        {"what": request.what, "status": answer.status, "answer": answer.body.decode(errors="replace")[:200]}
        for request, answer in zip(bad, answers, strict=True)
        if not 400 <= answer.status < 500 or not reason_of(answer)
    ]
    statuses = Counter(answer.status for answer in answers)
    return {"malformed": count, "statuses": dict(sorted(statuses.items())), "not_refused": wrong, "alive": alive(url)}


def reason_of(answer: Answer) -> str:
    """Return the reason that a refusal gives, or nothing."""
    try:
        return str(json.loads(answer.body)["message"])
    except (ValueError, KeyError, TypeError):
        return answer.body.decode(errors="replace").strip()


def _example() -> bytes:
    from pipelines.registry.log_model import input_example

    return base64.b64decode(input_example()["references"][0][0])


def main() -> int:
    """Measure and print; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--model", help="registered model or model folder to serve")
    where.add_argument("--url", help="a server that is running")
    parser.add_argument("--photo", action="append", type=Path, help="reference photo, repeatable (a drawn person)")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--malformed", type=int, default=100)
    asked = parser.parse_args()
    photos = [file.read_bytes() for file in asked.photo] if asked.photo else [_example()]
    with served(asked.model) if asked.model else contextlib.nullcontext(asked.url) as url:
        found = load(url, photos, count=asked.requests, clients=asked.clients, seeds=asked.seeds)
        found |= nonsense(url, photos[0], count=asked.malformed, clients=asked.clients)
        again = load(url, photos, count=1, clients=1, seeds=1)
    for name, value in found.items():
        print(f"{name:<26} {value}")
    good = not (found["errors"] or found["not_refused"] or again["errors"]) and found["alive"]
    good = good and found["most_answers_of_one_seed"] == 1
    print(json.dumps({**found, "passed": good}))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
