"""Load-test the page's API: many clients at once, one picture per seed, malformed calls refused.

    python benchmarks/page_load.py --adapter models:/dynamicid@champion        # starts the page, and ends it
    python benchmarks/page_load.py --url http://127.0.0.1:7860 --photo me.jpg
    python benchmarks/page_load.py --adapter models:/dynamicid@champion --requests 200 --attack    # Linux

The last line is JSON. Exit 1 where a request failed, answers for one seed differed, a malformed call was not refused
with a reason, the page stopped answering, or with `--attack` the median of the others was twice that without attacker.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import requests

from benchmarks.attack import attacked, page_kinds
from benchmarks.malformed_calls import Call, malformed_calls
from benchmarks.serving_load import FACE_PROMPTS, answer_figures, compare, free_port, load_parser, print_figures

API = "gradio_api"


class Answer(NamedTuple):
    """The bytes of a picture, or None and the reason of the failure; the duration in seconds."""

    picture: bytes | None
    reason: str
    seconds: float


@contextlib.contextmanager
def served(*options: str, home: Path | None = None, timeout: float = 600.0) -> Iterator[str]:
    """Start `dynamicid app` with `options` on a free port of 127.0.0.1 in `home`, yield its address, and end it."""
    command = [sys.executable, "-m", "pipelines.cli", "app", "--port", str(free_port()), *options]
    path = os.pathsep.join([str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        command, cwd=home, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
    )
    # Ends `readline` below if the page never answers.
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
    """Return whether the page answers."""
    try:
        return requests.get(url, timeout=30).status_code == 200
    except requests.ConnectionError:
        return False


class Caller:
    """A `gradio_client` of the page that downloads pictures into `folder`."""

    def __init__(self, url: str, folder: Path, auth: tuple[str, str] | None = None) -> None:
        from gradio_client import Client

        self._client = Client(url, download_files=folder, verbose=False, analytics_enabled=False, auth=auth)

    def draw(self, photos: Sequence[Path], number: int) -> Answer:
        """Send request `number`, which determines seed and face prompts."""
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
    """Send `count` valid requests, with `seeds` different seeds in turn, from `clients` clients; return figures."""
    with tempfile.TemporaryDirectory() as folder:
        callers = [Caller(url, Path(folder) / str(n)) for n in range(clients)]
        return _load(callers, photos, count, seeds)


def _load(callers: Sequence[Caller], photos: Sequence[Path], count: int, seeds: int) -> dict[str, Any]:
    clients = len(callers)

    def answers_of(client: int) -> list[tuple[int, Answer]]:
        numbers = [number % seeds for number in range(client, count, clients)]
        return [(n, callers[client].draw(photos[: 1 + n % min(2, len(photos))], n)) for n in numbers]

    with ThreadPoolExecutor(clients) as pool:
        answers = [answer for part in pool.map(answers_of, range(clients)) for answer in part]
    pictures = [(number, answer.picture) for number, answer in answers]
    errors = [answer.reason for _, answer in answers if answer.picture is None]
    figures = answer_figures(pictures, errors, [answer.seconds for _, answer in answers])
    return {"requests": count, "clients": clients, "seeds": seeds, **figures}


def upload(url: str, data: bytes, name: str = "photo.png") -> requests.Response:
    """Upload a file as the page does; the reply is a JSON list with its path on the server."""
    return requests.post(f"{url}/{API}/upload", files={"files": (name, data)}, timeout=60)


def reason_of(url: str, call: Call) -> str | None:
    """Send a malformed call; return the reason of its refusal, or None where there is no refusal or no reason."""
    headers = {} if call.content_type is None else {"Content-Type": call.content_type}
    reply = requests.post(f"{url}/{API}/call/{call.endpoint}", data=call.body, headers=headers, timeout=600)
    if reply.status_code != 200:
        return str(reply.json()["detail"]) if 400 <= reply.status_code < 500 else None
    events = requests.get(f"{url}/{API}/call/{call.endpoint}/{reply.json()['event_id']}", timeout=600).text
    if "event: error" not in events:
        return None
    event = json.loads(events.rpartition("data:")[2])
    return (event or {}).get("error") or None


def send_malformed(url: str, photo: bytes) -> dict[str, Any]:
    """Send malformed calls one after another and return figures; `photo` is a valid photo."""
    calls = list(malformed_calls(upload(url, photo).json()[0], lambda data: upload(url, data).json()[0]))
    reasons = {call.what: reason_of(url, call) for call in calls}
    return {
        "malformed": len(calls),
        "not_refused": [what for what, reason in reasons.items() if not reason],
        "reasons": len({reason for reason in reasons.values() if reason}),
        "alive": alive(url),
    }


def load_under_attack(
    adapter: str, photos: Sequence[Path], *, count: int, clients: int, seeds: int, home: Path | None = None
) -> dict[str, Any]:
    """Load a page with accounts four times in turn, without and with an attacker; return figures."""
    password = "a long password"
    with tempfile.TemporaryDirectory() as folder:
        accounts = Path(folder) / "accounts"
        names = [*(f"client-{n}" for n in range(clients)), "attacker"]
        accounts.write_text("".join(f"{name}:{password}\n" for name in names), encoding="utf-8")
        accounts.chmod(0o600)
        with served("--adapter", adapter, "--accounts", str(accounts), home=home) as url:
            login = requests.post(f"{url}/login", data={"username": "attacker", "password": password}, timeout=60)
            cookie = "; ".join(f"{cookie.name}={cookie.value}" for cookie in login.cookies)
            files = {"files": ("photo.png", photos[0].read_bytes())}
            photo = requests.post(f"{url}/{API}/upload", files=files, headers={"Cookie": cookie}, timeout=60).json()[0]
            port = int(url.rpartition(":")[2])
            # Before the attacker's guesses: on this machine all of them count as one caller who guesses.
            callers = [Caller(url, Path(folder) / name, (name, password)) for name in names[:-1]]
            _load(callers, photos, clients, seeds)
            attack = partial(attacked, port, partial(page_kinds, cookie, photo))
            return compare(partial(_load, callers, photos, count // 2, seeds), attack)


def main() -> int:
    """Measure and print; see the module's docstring."""
    parser = load_parser(__doc__, "adapter", "adapter folder or registered model to open the page with")
    parser.add_argument("--requests", type=int, default=50)
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--attack", action="store_true", help="compare with an attacker beside the clients (--adapter)")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        photos = options.photo or [_example(Path(stack.enter_context(tempfile.TemporaryDirectory())))]
        if options.attack:
            sizes = {"count": options.requests, "clients": options.clients, "seeds": options.seeds}
            figures = load_under_attack(options.adapter, photos, **sizes)
            print(json.dumps(figures))
            return int(figures["errors"] > 0 or figures["ratio"] >= 2)
        running = contextlib.nullcontext((options.url or "").rstrip("/"))
        url = stack.enter_context(served("--adapter", options.adapter) if options.adapter else running)
        figures = load(url, photos, count=options.requests, clients=options.clients, seeds=options.seeds)
        figures |= send_malformed(url, photos[0].read_bytes())
        again = load(url, photos, count=1, clients=1, seeds=1)
    return print_figures(figures, again)


def _example(folder: Path) -> Path:
    from pipelines.webpage.examples import draw_examples

    return draw_examples(folder)[0].photos[0]


if __name__ == "__main__":
    sys.exit(main())
