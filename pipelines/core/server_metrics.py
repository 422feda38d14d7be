"""What page and served model count for Prometheus: requests at the guard in front of both, and pictures that are drawn.

A process is one server, `page` or `model`. In others nothing is counted, so that drawing from the command line
costs nothing. The values of labels are few, and none is a person, a prompt, an address or a path.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.core.errors import UserError
from pipelines.core.files import folder_sha256

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

METRICS = "/metrics"
# prometheus_client's own name of the folder in which the workers of one server add up what they count.
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
OUTCOMES = ("answered", "refused", "failed", "gone")
DRAWN = ("drawn", "refused", "failed")
# Why a request was refused, by its status.
REASONS = {
    **{400: "invalid", 401: "not_logged_in", 403: "forbidden", 404: "no_such_address", 408: "too_slow"},
    **{413: "too_large", 415: "media_type", 429: "too_many", 503: "queue_full"},
}
OTHER = "other"
# From a drawn person on a GPU to a large picture on a CPU.
BUCKETS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
_DIGITS = 12
_WORKERS = f"""\
This server has several workers, each of which knows its own requests only. Start it with
the variable {FOLDER}, which names an empty folder, and all are counted together.
"""
_open: ServerMetrics | None = None


class ServerMetrics:
    """The counts of one process, with every label at 0 from the start.

    `models` says what draws (`model_labels`). `waiting` returns how many requests for a picture wait; without it these
    are the admitted ones with a body, less the one that is drawn. Raises UserError where the folder for several workers
    cannot be made.
    """

    def __init__(
        self, name: str, models: Sequence[Mapping[str, str]], waiting: Callable[[], int] | None = None
    ) -> None:
        if os.environ.get(FOLDER):
            try:
                Path(os.environ[FOLDER]).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"{FOLDER}: {error}; name a folder that can be written") from None
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

        self.waiting = self._without_picture if waiting is None else waiting
        self._admitted = self._drawing = 0
        self._lock = threading.Lock()
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        made: dict[str, Any] = {"registry": self._registry}
        requests = Counter("dynamicid_requests", "HTTP requests by what became of them.", ["server", "outcome"], **made)
        self._requests = {outcome: requests.labels(name, outcome) for outcome in OUTCOMES}
        refusals = Counter("dynamicid_refusals", "Refused requests by reason.", ["server", "reason"], **made)
        self._refusals = {reason: refusals.labels(name, reason) for reason in (*REASONS.values(), OTHER)}
        pictures = Counter("dynamicid_pictures", "Pictures by what became of them.", ["server", "outcome"], **made)
        self._pictures = {outcome: pictures.labels(name, outcome) for outcome in DRAWN}
        text = "Seconds from the analysis of the photos to the picture, without waiting."
        self._seconds = Histogram("dynamicid_drawing_seconds", text, ["server"], buckets=BUCKETS, **made).labels(name)
        text = "Requests for a picture that wait."
        waits = Gauge("dynamicid_waiting_requests", text, ["server"], multiprocess_mode="livesum", **made)
        self._waiting = waits.labels(name)
        text = "A model that draws: 1."
        info = Gauge("dynamicid_model_info", text, ["server", *models[0]], multiprocess_mode="livemax", **made)
        for model in models:
            info.labels(server=name, **model).set(1)

    def open(self) -> ServerMetrics:
        """Count from now on also what this process draws."""
        global _open  # noqa: PLW0603
        _open = self
        return self

    @contextlib.contextmanager
    def request(self, scope: Scope, send: Send) -> Iterator[Send]:
        """Count a request, other than for the counts; yields the `send` that notes its status."""
        if scope["path"] == METRICS:
            yield send
            return
        is_counted = False

        def count(status: int) -> None:
            nonlocal is_counted
            is_counted = True
            if 400 <= status < 500 or status == 503:
                self.refused(REASONS.get(status, OTHER))
            self._requests[_outcome(status)].inc()

        async def noting(message: Message) -> None:
            # Before anything is sent: who has the answer finds it counted.
            if message["type"] == "http.response.start":
                count(message["status"])
            await send(message)

        try:
            yield noting
        finally:
            if not is_counted:
                count(0)

    def refused(self, reason: str) -> None:
        """Count a refusal, which may be in an answer whose status does not say so."""
        self._refusals[reason].inc()

    @contextlib.contextmanager
    def admitted(self, has_body: bool) -> Iterator[Callable[[], None]]:
        """Count a request with a body as waiting, until its answer begins: then what is yielded is called."""
        waits = has_body

        def answered() -> None:
            nonlocal waits
            if waits:
                waits = False
                self._change(admitted=-1)

        self._change(admitted=has_body)
        try:
            yield answered
        finally:
            answered()

    @contextlib.contextmanager
    def drawing(self) -> Iterator[None]:
        """Count the picture that the block draws, and time it."""
        self._change(drawing=1)
        begun, outcome = time.monotonic(), "failed"
        try:
            yield
            outcome = "drawn"
            self._seconds.observe(time.monotonic() - begun)
        except UserError:
            outcome = "refused"
            raise
        finally:
            self._pictures[outcome].inc()
            self._change(drawing=-1)

    async def page(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with all counts in Prometheus' text format."""
        from prometheus_client import CollectorRegistry, make_asgi_app
        from prometheus_client.multiprocess import MultiProcessCollector
        from starlette.responses import PlainTextResponse

        self._waiting.set(self.waiting())
        registry = self._registry
        if os.environ.get(FOLDER):
            _forget_dead_workers(Path(os.environ[FOLDER]))
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        elif multiprocessing.parent_process() is not None:
            await PlainTextResponse(_WORKERS, 503)(scope, receive, send)
            return
        await make_asgi_app(registry)(scope, receive, send)

    def _without_picture(self) -> int:
        return max(0, self._admitted - self._drawing)

    def _change(self, admitted: int = 0, drawing: int = 0) -> None:
        with self._lock:
            self._admitted += admitted
            self._drawing += drawing
            self._waiting.set(self.waiting())


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Count the picture that the block draws, where this process is a server."""
    with contextlib.nullcontext() if _open is None else _open.drawing():
        yield


def refused() -> None:
    """Count a request that was refused for its values, where this process is a server."""
    if _open is not None:
        _open.refused(REASONS[400])


def model_labels(adapter: Path, name: str = "", version: str = "") -> dict[str, str]:
    """Return what the metrics say of a model: name and version in the registry, and the beginning of its sha256."""
    return {"name": name, "version": version, "adapter": folder_sha256(adapter)[:_DIGITS] if adapter.is_dir() else ""}


def _outcome(status: int) -> str:
    if status == 0:
        return "gone"
    return "answered" if status < 400 else "refused" if status < 500 or status == 503 else "failed"


def _forget_dead_workers(folder: Path) -> None:
    """Remove what workers that ended had of the present: requests that waited, and their model."""
    from prometheus_client.multiprocess import mark_process_dead

    for file in folder.glob("gauge_live*.db"):
        pid = re.search(r"_(\d+)\.db$", file.name)
        if pid is not None and not _is_alive(int(pid[1])):
            with contextlib.suppress(FileNotFoundError):
                mark_process_dead(int(pid[1]), str(folder))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
