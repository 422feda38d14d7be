"""The inbox's protocol: what is complete is taken, what is half-copied waits, what is done or bad has its own place.

    <inbox>/<batch>/…            a folder of photos in any layout that `dynamicid ingest` reads
    <inbox>/<batch>/_READY       says that the batch is complete; without it a quiet period has to pass
    <inbox>/photo.jpg            single files: together they are the batch `loose`; <inbox>/_READY completes it
    <inbox>/_taken/<run>/…       what a run works on
    <inbox>/_done/<run>/…        what is in a dataset version
    <inbox>/_bad/<run>/…         photos nobody can read, or a refused run; <run>.json beside it says why of each

A run takes a batch by moving it, so what arrives later under the same name is another batch. Names that begin with `.`
are nobody's batch. The inbox is a folder or the prefix of an object store (any address fsspec knows).
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from pipelines.core.errors import UserError
from pipelines.versions.workspace import run_name

READY = "_READY"
LOOSE = "loose"
TAKEN, DONE, BAD = "_taken", "_done", "_bad"
# Names under which copying programs keep a file that is not complete yet.
_UNFINISHED = (".part", ".partial", ".tmp", ".crdownload", ".filepart", ".download")


@dataclass(frozen=True)
class Batch:
    """What lies under one name: its files relative to the inbox, and why it has to wait (None: it is ready)."""

    name: str
    files: tuple[str, ...]
    n_bytes: int
    waits: str | None


class Inbox:
    """An inbox at `address`: a folder, or the prefix of an object store such as s3://bucket/inbox."""

    def __init__(self, address: str, quiet_seconds: float) -> None:
        from fsspec.core import url_to_fs

        try:
            self.fs, root = url_to_fs(address)
        except (ImportError, ValueError) as error:
            raise UserError(
                f"inbox {address}: {error}; expected a folder or an address such as s3://bucket/inbox"
            ) from None
        self.address = address
        self.root = root.rstrip("/")
        self.quiet_seconds = quiet_seconds

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of this machine."""
        return "file" in ([self.fs.protocol] if isinstance(self.fs.protocol, str) else self.fs.protocol)

    def path(self, *parts: str) -> str:
        """Return the file system's path of something in the inbox."""
        return "/".join((self.root, *parts))

    def files(self, *place: str) -> list[str]:
        """Return the files below a place in the inbox by their names in it, in order; none where it is not there."""
        folder = self.path(*place)
        self.fs.invalidate_cache()
        return [path[len(folder) :].strip("/") for path in self.fs.find(folder)] if self.fs.isdir(folder) else []

    def batches(self, now: float | None = None) -> list[Batch]:
        """Return every batch in the order of names, ready or waiting; an inbox that is not there yet has none."""
        moment = time.time() if now is None else now
        self.fs.invalidate_cache()
        if not self.fs.isdir(self.root):
            return []
        found: dict[str, dict[str, Any]] = {}
        for path, info in self.fs.find(self.root, detail=True).items():
            name = path[len(self.root) :].strip("/")
            top = name.split("/", 1)[0]
            # An object's name may lead out of any folder that it is copied to.
            nobodys = top.startswith(".") or ".." in name.split("/")
            if top in (TAKEN, DONE, BAD) or nobodys or info["type"] != "file":
                continue
            found.setdefault(top if "/" in name else LOOSE, {})[name] = info
        return [
            self._batch(name, files, moment)
            for name, files in sorted(found.items())
            if any(PurePosixPath(file).name != READY for file in files)
        ]

    def _batch(self, name: str, files: dict[str, Any], moment: float) -> Batch:
        mark = READY if name == LOOSE else f"{name}/{READY}"
        content = {file: info for file, info in files.items() if file != mark}
        waits = None
        if mark not in files:
            partial = sorted(file for file in content if file.lower().endswith(_UNFINISHED))
            rest = self.quiet_seconds - (moment - max(_changed(info) for info in content.values()))
            if partial:
                waits = f"{partial[0]} is still being copied"
            elif rest > 0:
                waits = f"it changed less than {self.quiet_seconds:g} s ago; {rest:.0f} s to go, or put {mark} there"
        return Batch(name, tuple(sorted(content)), sum(int(info["size"]) for info in content.values()), waits)

    def take(self, run_id: str) -> list[str]:
        """Move every ready batch to _taken/<run> and return the names that lie there; a retry finds what it took."""
        run = run_name(run_id)
        for batch in self.batches():
            if batch.waits is None and batch.files:
                for file in batch.files:
                    inner = file if batch.name != LOOSE else f"{LOOSE}/{file}"
                    self._move(file, TAKEN, run, inner)
                self._remove_empty(batch.name)
        return self.taken(run_id)

    def taken(self, run_id: str) -> list[str]:
        """Return the batches that a run works on."""
        folder = self.path(TAKEN, run_name(run_id))
        self.fs.invalidate_cache()
        if not self.fs.isdir(folder):
            return []
        return sorted(path.rstrip("/").rsplit("/", 1)[1] for path in self.fs.ls(folder, detail=False))

    def set_aside(self, run_id: str, reasons: dict[str, str]) -> None:
        """Move photos of a run (`<batch>/<file>` → reason) to _bad/<run> and list them in _bad/<run>.json."""
        run = run_name(run_id)
        if not reasons:
            return
        self._list(run_id, reasons)
        for file in reasons:
            if self.fs.exists(self.path(TAKEN, run, file)):
                self._move(f"{TAKEN}/{run}/{file}", BAD, run, file)

    def bad(self, run_id: str) -> dict[str, str]:
        """Return what a run set aside, with the reasons."""
        file = self.path(BAD, f"{run_name(run_id)}.json")
        return dict(json.loads(self.fs.cat_file(file))) if self.fs.exists(file) else {}

    def finish(self, run_id: str, *, refused: str | None = None) -> str:
        """Move what a run took to _done/<run>, or to _bad/<run> with the reason why it is refused; return where to."""
        run = run_name(run_id)
        source = self.path(TAKEN, run)
        place = DONE if refused is None else BAD
        names = self.files(TAKEN, run)
        if refused is not None:
            self._list(run_id, dict.fromkeys(names, refused))
        for name in names:
            self._move(f"{TAKEN}/{run}/{name}", place, run, name)
        if self.fs.isdir(source):
            self.fs.rm(source, recursive=True)
        return self.path(place, run)

    def _list(self, run_id: str, reasons: dict[str, str]) -> None:
        """Add to the list of what is bad in a run, whole or not at all: it must survive whatever ends this process."""
        listed = json.dumps({**self.bad(run_id), **reasons}, indent=1, ensure_ascii=False)
        self.fs.makedirs(self.path(BAD), exist_ok=True)
        file = self.path(BAD, f"{run_name(run_id)}.json")
        # A name that is no UTF-8 becomes the escape that JSON has for it.
        self.fs.pipe_file(f"{file}.part", listed.encode(errors="backslashreplace"))
        self.fs.mv(f"{file}.part", file)

    def _move(self, name: str, *target: str) -> None:
        goal = self.path(*target)
        self.fs.makedirs(goal.rsplit("/", 1)[0], exist_ok=True)
        self.fs.mv(self.path(name), goal)

    def _remove_empty(self, batch: str) -> None:
        mark = self.path(READY) if batch == LOOSE else self.path(batch, READY)
        if self.fs.exists(mark):
            self.fs.rm(mark)
        folder = self.path(batch)
        self.fs.invalidate_cache()
        if batch != LOOSE and self.fs.isdir(folder) and not self.fs.find(folder):
            self.fs.rm(folder, recursive=True)


def _changed(info: dict[str, Any]) -> float:
    """Return when a file was last written. A folder tells the change of the inode, too: copies may keep old dates."""
    times = [info.get(key) for key in ("mtime", "created", "LastModified", "last_modified", "updated")]
    seconds = [one.timestamp() if isinstance(one, datetime) else float(one) for one in times if one is not None]
    return max(seconds, default=time.time())
