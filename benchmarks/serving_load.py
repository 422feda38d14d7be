"""Load-test `mlflow models serve`: many clients at once, one picture per seed, malformed requests refused.

    python benchmarks/serving_load.py --model models:/dynamicid@champion       # starts the server, and ends it
    python benchmarks/serving_load.py --url http://127.0.0.1:5001 --photo me.jpg
    python benchmarks/serving_load.py --model models:/dynamicid@champion --attack    # Linux

The last line is JSON. Exit 1 where a request failed, answers for one seed differed, a malformed request was not
refused with a reason, the server stopped answering, or with `--attack` the median of the others was twice that without
attacker.
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
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import requests

from benchmarks.attack import attacked, serving_kinds
from benchmarks.malformed_requests import malformed_requests

FACE_PROMPTS = ("", "happy", "sad, turned to the left", "surprised", "slightly turned to the right")


class Answer(NamedTuple):
    """An answer: its HTTP status (0 without a connection), its body, and the duration in seconds."""

    status: int
    body: bytes
    seconds: float


@contextlib.contextmanager
def served(
    model: str,
    *,
    python: Path | str = sys.executable,
    cwd: Path | None = None,
    env: Mapping[str, str] = os.environ,
    timeout: float = 600.0,
) -> Iterator[str]:
    """Start `mlflow models serve` for `model` on a free port of 127.0.0.1, yield its address, and end it."""
    port = free_port()
    # MLflow finds the server's program by name, so the environment of this Python comes first in PATH.
    path = os.pathsep.join([str(Path(python).parent), env.get("PATH", "")])
    command = [str(python), "-m", "mlflow", "models", "serve", "-m", model, "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--timeout", str(int(timeout))]
    process = subprocess.Popen(command, cwd=cwd, env={**env, "PATH": path}, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, process, timeout)
        yield url
    finally:
        # The command is a shell around the server, so all processes of its session are ended.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def free_port() -> int:
    """Return a free port of 127.0.0.1."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait(url: str, process: subprocess.Popen[bytes], timeout: float) -> None:
    limit = time.monotonic() + timeout
    while not alive(url):
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode} before it answered")
        if time.monotonic() > limit:
            raise RuntimeError(f"no answer from {url} within {timeout:g} s")
        time.sleep(0.5)


def alive(url: str) -> bool:
    """Return whether the server answers its health check."""
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
    """Send `count` valid requests, with `seeds` different seeds in turn, from `clients` threads; return figures."""

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
    errors = [answer.body.decode(errors="replace") for answer in answers if answer.status != 200]
    by_seed = [(number % seeds, answer.body) for number, answer in enumerate(answers)]
    figures = answer_figures(by_seed, errors, [answer.seconds for answer in answers])
    return {"requests": count, "clients": clients, "seeds": seeds, "per_second": round(count / seconds, 2), **figures}


def answer_figures(answers: list[tuple[int, Any]], errors: list[str], seconds: list[float]) -> dict[str, Any]:
    """Return figures from all answers (seed, content), their times in seconds, and the messages of failed ones."""
    different = {seed: {content for other, content in answers if other == seed} for seed, _ in answers}
    return {
        "errors": len(errors),
        "first_error": errors[0][:300] if errors else None,
        "most_answers_of_one_seed": max(map(len, different.values())),
        "pictures": len({content for _, content in answers}),
        "median_s": round(statistics.median(seconds), 3),
        "slowest_s": round(max(seconds), 3),
    }


def compare(
    run: Callable[[], dict[str, Any]], attack: Callable[[], contextlib.AbstractContextManager[Counter[str]]]
) -> dict[str, Any]:
    """Run a load four times in turn, without and with an attacker; return figures."""
    runs: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    answers: Counter[str] = Counter()
    for is_attacked in (False, True) * 2:
        with attack() if is_attacked else contextlib.nullcontext(Counter[str]()) as counted:
            half = run()
        runs[is_attacked].append(half)
        answers += counted
    medians = {kind: statistics.mean(run["median_s"] for run in some) for kind, some in runs.items()}
    return {
        "requests_each": sum(run["requests"] for run in runs[True]),
        "errors": sum(run["errors"] for some in runs.values() for run in some),
        "first_error": next((run["first_error"] for some in runs.values() for run in some if run["errors"]), None),
        "median_s": round(medians[False], 3),
        "median_s_under_attack": round(medians[True], 3),
        "ratio": round(medians[True] / medians[False], 2),
        "slowest_s_under_attack": max(run["slowest_s"] for run in runs[True]),
        "attacks": dict(sorted(answers.items())),
    }


def load_under_attack(url: str, photos: list[bytes], *, count: int, clients: int, seeds: int) -> dict[str, Any]:
    """Load a served model without and with an attacker (`compare`); `count` requests each."""
    sizes = {"clients": clients, "seeds": seeds}
    load(url, photos, count=clients, **sizes)
    attack = partial(attacked, int(url.rpartition(":")[2]), serving_kinds)
    return compare(partial(load, url, photos, count=count // 2, **sizes), attack)


def send_malformed(url: str, photo: bytes, *, count: int, clients: int) -> dict[str, Any]:
    """Send `count` malformed requests and return figures; a refusal is a status from 400 to 499 with a reason."""
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
    """Return the reason in a refusal, or an empty string."""
    try:
        return str(json.loads(answer.body)["message"])
    except (ValueError, KeyError, TypeError):
        return answer.body.decode(errors="replace").strip()


def _example() -> bytes:
    from pipelines.registry.log_model import input_example

    return base64.b64decode(input_example()["references"][0][0])


def load_parser(description: str | None, subject: str, subject_help: str) -> argparse.ArgumentParser:
    """Return a parser of the option `subject` or `--url`, one of which is required, of photos and of seeds."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(f"--{subject}", help=subject_help)
    where.add_argument("--url", help="address of a running server")
    parser.add_argument("--photo", action="append", type=Path, help="photo, repeatable (default: a procedural person)")
    parser.add_argument("--seeds", type=int, default=10)
    return parser


def print_figures(figures: dict[str, Any], again: dict[str, Any]) -> int:
    """Print figures and whether they pass; `again` has those of a final request. Return the exit code."""
    for name, value in figures.items():
        print(f"{name:<26} {value}")
    passed = not (figures["errors"] or figures["not_refused"] or again["errors"]) and figures["alive"]
    passed = passed and figures["most_answers_of_one_seed"] == 1
    print(json.dumps({**figures, "passed": passed}))
    return 0 if passed else 1


def main() -> int:
    """Measure and print; see the module's docstring."""
    parser = load_parser(__doc__, "model", "registered model or model folder to serve")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--malformed", type=int, default=100)
    parser.add_argument("--attack", action="store_true", help="compare with an attacker beside the clients")
    options = parser.parse_args()
    photos = [file.read_bytes() for file in options.photo] if options.photo else [_example()]
    with served(options.model) if options.model else contextlib.nullcontext((options.url or "").rstrip("/")) as url:
        sizes = {"count": options.requests, "clients": options.clients, "seeds": options.seeds}
        if options.attack:
            figures = load_under_attack(url, photos, **sizes)
            print(json.dumps(figures))
            return int(figures["errors"] > 0 or figures["ratio"] >= 2)
        figures = load(url, photos, **sizes)
        figures |= send_malformed(url, photos[0], count=options.malformed, clients=options.clients)
        again = load(url, photos, count=1, clients=1, seeds=1)
    return print_figures(figures, again)


if __name__ == "__main__":
    sys.exit(main())
