"""A server on the loopback that acts as the Hugging Face Hub and as a server of files, and fails as it is asked to."""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class WeightsServer:
    """Files by path: `/<owner>/<repository>/<file>` are repositories, all others are served as they are.

    `faults` holds for a path what its next answers to GET do, one each: `cut N` and `reset N` (end after N bytes),
    `hold N` (send N bytes, then wait), `stall N`, `short N` (state and send N bytes), `other` (send other bytes),
    `whole` (ignore the range), or a status such as `429`. `stated` replaces the size that a path's metadata states.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, deque[str]] = field(default_factory=lambda: defaultdict(deque))
    stated: dict[str, int] = field(default_factory=dict)
    without_hashes: bool = False
    requests: list[tuple[str, str, int]] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def starts(self, path: str) -> list[int]:
        """Return the offsets at which GETs of a path began."""
        return [start for method, asked, start in self.requests if method == "GET" and asked == path]


def _repository(server: WeightsServer, name: str) -> bytes:
    files = {
        path.removeprefix(f"/{name}/"): content
        for path, content in server.files.items()
        if path.startswith(f"/{name}/")
    }
    siblings = []
    for file, content in files.items():
        entry = {"rfilename": file, "size": server.stated.get(f"/{name}/{file}", len(content))}
        if not server.without_hashes:
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
            large = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
            entry |= {"lfs": large} if len(content) > 1000 else {"blobId": blob}
        siblings.append(entry)
    return json.dumps({"sha": COMMIT, "siblings": siblings}).encode()


class _Handler(BaseHTTPRequestHandler):
    served: WeightsServer

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = urlsplit(self.path).path
        parts = path.strip("/").split("/")
        content = None
        if parts[:2] == ["api", "models"]:
            content = _repository(self.served, "/".join(parts[2:4]))
            path = "/".join(["", *parts[2:4]])
        elif parts[2:3] == ["resolve"]:
            path = "/".join(["", *parts[:2], *parts[4:]])
        content = self.served.files.get(path) if content is None else content
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.served.requests.append((self.command, path, start))
        queue = self.served.faults[path]
        fault, _, number = (queue.popleft() if queue and body else "").partition(" ")
        if content is None or fault.isdigit():
            self.send_response(int(fault) if fault.isdigit() else 404)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fault == "other":
            content = bytes(len(content))
        start = 0 if fault == "whole" else start
        sent = content[start:]
        size = int(number) if fault == "short" else len(sent)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(size if body else self.served.stated.get(path, len(content))))
        self.end_headers()
        if not body:
            return
        ends_early = fault in {"cut", "reset", "hold", "stall", "short"}
        self.wfile.write(sent[: int(number)] if ends_early else sent)
        self.wfile.flush()
        if fault in {"hold", "stall"}:
            self.served.release.wait(60)
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


@contextmanager
def weights_server() -> Iterator[WeightsServer]:
    """Run a server until the block ends."""
    served = WeightsServer()
    handler = type("Handler", (_Handler,), {"served": served})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    served.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.release.set()
        server.shutdown()
        server.server_close()
        thread.join()
