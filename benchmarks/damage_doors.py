"""The doors at which damaged files are handed in: `ingest`, the served model with its files, and the page."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import requests

from benchmarks.damage import BODIES, LABELS, MODEL, PICTURES, SHARDS, Case, face, good, page_call

PROJECT = Path(__file__).resolve().parents[1]
FORMATS = {
    "ingest": (*PICTURES, *LABELS, *SHARDS),
    "served model": (*PICTURES, *MODEL, BODIES[0]),
    "page": (*PICTURES, *BODIES[1:]),
}
# Longer than this is a hang, and the process is ended.
_PATIENCE = 120.0
FAULTS = ("TRACEBACK", "HANG", "ENDED", "OTHER ROWS TOUCHED")


class Measured(NamedTuple):
    """How a door answered; how long that took, and how much of it the processor worked; by how much memory grew."""

    answer: str
    seconds: float
    cpu_seconds: float = 0.0
    memory_mb: float = 0.0
    reason: str = ""


def measured(pids: list[int], act: Callable[[], tuple[str, str]]) -> Measured:
    """Call `act`, which returns answer and reason; measure its time and the growth of these processes."""
    before = {pid: _memory(pid, "VmRSS", reset=True) for pid in pids}
    began, worked = time.monotonic(), _worked(pids)
    answer, reason = act()
    seconds, cpu_seconds = time.monotonic() - began, _worked(pids) - worked
    grown = max((_memory(pid, "VmHWM") - before[pid] for pid in pids), default=0.0)
    return Measured(answer, round(seconds, 2), round(cpu_seconds, 2), round(max(grown, 0.0), 1), reason[:300])


def _worked(pids: list[int]) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)
    return 0.0


def _memory(pid: int, what: str, *, reset: bool = False) -> float:
    try:
        if reset:
            Path(f"/proc/{pid}/clear_refs").write_text("5")
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # the process has ended
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(what)), 0.0)


class Worker:
    """A process that handles cases one after another, so that a hang or a crash of one is seen from outside."""

    def __init__(self, home: Path, kind: str) -> None:
        self._home, self._kind = home, kind
        self._process: Any = None

    def __call__(self, case: Case) -> Measured:
        """Hand a case to the process."""
        if self._process is None or not self._process.is_alive():
            context = multiprocessing.get_context("spawn")
            self._ours, theirs = context.Pipe()
            self._process = context.Process(target=_work, args=(theirs, str(self._home), self._kind), daemon=True)
            self._process.start()
            self._ours.recv()
        self._ours.send(case)
        began = time.monotonic()
        with contextlib.suppress(EOFError):
            if self._ours.poll(_PATIENCE):
                return Measured(*self._ours.recv())
        answer = "HANG" if self._process.is_alive() else "ENDED"
        self.close()
        return Measured(answer, round(time.monotonic() - began, 2))

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def _work(theirs: Connection, home: str, kind: str) -> None:
    os.chdir(PROJECT)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):  # noqa: PTH123
        handle = (_Ingest if kind == "ingest" else _ModelFiles)(Path(home))
        theirs.send("ready")
        while True:
            case = Case(*theirs.recv())
            theirs.send(tuple(measured([os.getpid()], functools.partial(handle, case))))


def _named(act: Callable[[], tuple[str, str]]) -> tuple[str, str]:
    from pipelines.core.errors import StageFailed, UserError

    try:
        return act()
    except (UserError, StageFailed) as error:
        return "refused by name", str(error)
    except BaseException as error:
        return "TRACEBACK", f"{type(error).__name__}: {error}"


class _Ingest:
    """Adds a damaged file, beside a good photo, to a dataset that has rows already."""

    def __init__(self, home: Path) -> None:
        from pipelines.core.params import load_params
        from pipelines.stages.ingest import Inputs, Outputs, run

        self._home, self._run = home, run
        self._inputs, self._outputs = Inputs, Outputs
        self._params = load_params(PROJECT / "profiles" / "tiny.yaml")
        first = home / "first"
        if not (home / "faces").is_dir():
            first.mkdir(parents=True)
            (first / "known.jpg").write_bytes(face() + b"known")
            run(self._params, Inputs(first), Outputs(home / "faces"))
        self._known = _hashes(home / "faces")

    def __call__(self, case: Case) -> tuple[str, str]:
        source, faces = self._home / "source", self._home / "added"
        for folder in (source, faces):
            shutil.rmtree(folder, ignore_errors=True)
        source.mkdir()
        shutil.copytree(self._home / "faces", faces)
        if case.format in SHARDS:
            suffix = SHARDS[case.format]
            (source / f"b{suffix}").write_bytes(good(case.format))
            layout, rows = ("huggingface", 3) if suffix == ".parquet" else ("webdataset", 2)
        else:
            suffix = {**PICTURES, **LABELS}[case.format]
            layout, rows = "flat", 1 if case.format in PICTURES else 2
            (source / "good.jpg").write_bytes(face())
            if case.format in LABELS:
                (source / "photo.jpg").write_bytes(face() + b"2")
        alone = case.format in ("json", "text", "yaml") and case.data[:1] < b"m"
        (source / f"{'photo' if alone else 'a'}{suffix}").write_bytes(case.data)
        answer, reason = _named(lambda: self._added(source, layout, faces, rows))
        present = _hashes(faces)
        if any(present.get(name) != digest for name, digest in self._known.items()):
            return "OTHER ROWS TOUCHED", reason
        if answer == "refused by name" and present != self._known:
            return "OTHER ROWS TOUCHED", f"rows of a refused source: {reason}"
        return answer, reason

    def _added(self, source: Path, layout: str, faces: Path, rows: int) -> tuple[str, str]:
        inputs = self._inputs(source, layout, accept_unmatched=True)
        done = self._run(self._params, inputs, self._outputs(faces))
        if done.new_rows < rows:
            return "OTHER ROWS TOUCHED", f"{done.new_rows} rows; {rows} come from the good files beside it"
        reasons = {**done.skipped, **done.unmatched}
        return ("named in the summary", "; ".join(reasons)) if reasons else ("rows", "")


def _hashes(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.glob("*.parquet")}


class _ModelFiles:
    """Reads a damaged parameter file, adapter or published checkpoint, as a server does that loads a model."""

    def __init__(self, home: Path) -> None:
        # What is loaded once is no part of a case's time and memory.
        self._folder, self._unet = home / "model", _shipped_unet()
        self._read(Case("config", "none", good("config")))
        self._read(Case("params", "none", good("params")))

    def __call__(self, case: Case) -> tuple[str, str]:
        return _named(lambda: self._read(case))

    def _read(self, case: Case) -> tuple[str, str]:
        from model.checkpoints.published_files import read_tensors
        from model.network.adapter import Adapter
        from pipelines.core.errors import UserError
        from pipelines.core.params import load_params

        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        file = self._folder / f"adapter{MODEL[case.format]}"
        for kind, name in (("safetensors", "adapter.safetensors"), ("config", "config.json")):
            (self._folder / name).write_bytes(case.data if kind == case.format else good(kind))
        if case.format in ("params", "torch"):
            file.write_bytes(case.data)
        try:
            if case.format == "params":
                load_params(file)
            elif case.format == "torch":
                read_tensors(file)
            else:
                Adapter.load(self._folder, self._unet)
        except ValueError as error:  # commands turn those of `model` into UserError
            raise UserError(str(error)) from None
        return "read", ""


def _shipped_unet() -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel.from_pretrained(PROJECT / "model" / "foundation" / "weights" / "sd" / "unet")


def listening(url: str) -> list[int]:
    """Return the processes that listen at an address of this machine."""
    port = int(url.rpartition(":")[2])
    return sorted({link.pid for link in psutil.net_connections("tcp4") if link.laddr.port == port and link.pid})


def to_served_model(url: str) -> Callable[[Case], Measured]:
    """Return how a damaged picture or request is sent to a served model."""
    pids = listening(url)

    def send(case: Case) -> Measured:
        body = case.data
        if case.format in PICTURES:
            reference = base64.b64encode(case.data).decode()
            body = json.dumps({"inputs": [{"references": [reference], "prompt": "a photo"}]}).encode()
        return measured(pids, lambda: _reply(requests.post, f"{url}/invocations", body, "application/json"))

    return send


def to_page(url: str) -> Callable[[Case], Measured]:
    """Return how a damaged picture, call or form is sent to the page."""
    from benchmarks.page_load import API, upload

    pids = listening(url)

    def handed_in(case: Case) -> tuple[str, str]:
        if case.format == "call":
            return _reply(requests.post, f"{url}/{API}/call/draw", case.data, "application/json")
        if case.format == "form":
            kind = "multipart/form-data; boundary=damaged"
            return _reply(requests.post, f"{url}/{API}/upload", case.data, kind)
        replied = upload(url, case.data, f"photo{PICTURES[case.format]}")
        if replied.status_code != 200:
            return _judged(replied)
        call = page_call(replied.json()[0])
        begun = requests.post(f"{url}/{API}/call/draw", call, headers={"Content-Type": "application/json"}, timeout=60)
        if begun.status_code != 200:
            return _judged(begun)
        events = requests.get(f"{url}/{API}/call/draw/{begun.json()['event_id']}", timeout=_PATIENCE).text
        if "Traceback" in events:
            return "TRACEBACK", events[-300:]
        return ("refused by name", events[-200:]) if "event: error" in events else ("drawn", "")

    def send(case: Case) -> Measured:
        try:
            return measured(pids, lambda: handed_in(case))
        except requests.RequestException as error:
            return Measured("HANG" if listening(url) else "ENDED", _PATIENCE, reason=str(error)[:300])

    return send


def _reply(post: Callable[..., requests.Response], url: str, body: bytes, kind: str) -> tuple[str, str]:
    try:
        return _judged(post(url, body, headers={"Content-Type": kind}, timeout=_PATIENCE))
    except requests.Timeout as error:
        return "HANG", str(error)
    except requests.ConnectionError as error:
        return "ENDED", str(error)


def _judged(reply: requests.Response) -> tuple[str, str]:
    text = reply.text
    if reply.status_code >= 500 or "Traceback" in text:
        return "TRACEBACK", f"{reply.status_code} {text[:200]}"
    return ("answered", "") if reply.status_code == 200 else (f"refused: {reply.status_code}", text[:200])
