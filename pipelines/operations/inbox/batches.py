"""The inbox's protocol: complete batches are moved to the run that takes them, then to `_done` or `_bad`.

    <inbox>/<batch>/…            a folder of photos in any layout that `dynamicid ingest` reads
    <inbox>/<batch>/_READY       marks the batch as complete; without it a quiet period has to pass
    <inbox>/photo.jpg            single files form the batch `loose`; <inbox>/_READY completes it
    <inbox>/_taken/<run>/…       the batches that a run works on
    <inbox>/_done/<run>/…        batches that are in a dataset version
    <inbox>/_bad/<run>/…         unreadable photos, or all photos of a refused run; <run>.json has a reason for each

A run takes a batch by moving it, so files that arrive later under the same name are another batch. Names that begin
with `.` are ignored. The inbox is a folder or the prefix of an object store (any address that fsspec supports).
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from glob import has_magic
from pathlib import Path, PurePosixPath
from typing import Any

from pipelines.core.errors import UserError
from pipelines.versions.workspace import run_name

READY = "_READY"
LOOSE = "loose"
TAKEN, DONE, BAD = "_taken", "_done", "_bad"
# Suffixes that programs give to files while they copy them.
_UNFINISHED = (".part", ".partial", ".tmp", ".crdownload", ".filepart", ".download")


@dataclass(frozen=True)
class Batch:
    """A batch: its files relative to the inbox, and why it has to wait (None: it is ready)."""

    name: str
    files: tuple[str, ...]
    wait_reason: str | None


class Inbox:
    """An inbox at `address`: a folder, or the prefix of an object store such as s3://bucket/inbox."""

    def __init__(self, address: str, quiet_seconds: float) -> None:
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        try:
            # A path is no URL: it may have `::`, which fsspec takes for two file systems.
            local = "://" not in address
            self.fs, root = (
                (LocalFileSystem(), str(Path(address).expanduser().absolute())) if local else url_to_fs(address)
            )
        except (ImportError, ValueError) as error:
            expected = "expected a folder or an address such as s3://bucket/inbox"
            raise UserError(f"inbox {address}: {error}; {expected}") from None
        self.address = address
        self.root = root.rstrip("/")
        self.quiet_seconds = quiet_seconds

    @property
    def is_folder(self) -> bool:
        """Whether the inbox is a local folder."""
        return "file" in ([self.fs.protocol] if isinstance(self.fs.protocol, str) else self.fs.protocol)

    def path(self, *parts: str) -> str:
        """Return the path of an entry of the inbox in the inbox's file system."""
        return "/".join((self.root, *parts))

    def files(self, *parts: str) -> list[str]:
        """Return the files below a folder of the inbox relative to it, sorted; none where the folder is missing."""
        folder = self.path(*parts)
        self.fs.invalidate_cache()
        return [path[len(folder) :].strip("/") for path in self.fs.find(folder)] if self.fs.isdir(folder) else []

    def batches(self, now: float | None = None) -> list[Batch]:
        """Return every batch, ready or waiting, sorted by name; none where the inbox does not exist yet.

        Folders of runs are not read, however much is in them. `now` is in seconds since the epoch.
        """
        now = time.time() if now is None else now
        self.fs.invalidate_cache()
        if not self.fs.isdir(self.root):
            return []
        found: dict[str, dict[str, Any]] = {}
        for entry in self.fs.ls(self.root, detail=True):
            top = entry["name"][len(self.root) :].strip("/")
            if not top or top.startswith(".") or top in (TAKEN, DONE, BAD):
                continue
            folder = entry["type"] == "directory"
            below = self.fs.find(self.path(top), detail=True) if folder else {entry["name"]: entry}
            for path, info in below.items():
                name = path[len(self.root) :].strip("/")
                # An object's name with ".." would lead out of the folder that it is copied to.
                if info["type"] == "file" and ".." not in name.split("/"):
                    found.setdefault(top if folder else LOOSE, {})[name] = info
        return [
            self._batch(name, files, now)
            for name, files in sorted(found.items())
            if any(PurePosixPath(file).name != READY for file in files)
        ]

    def _batch(self, name: str, files: dict[str, Any], now: float) -> Batch:
        mark = READY if name == LOOSE else f"{name}/{READY}"
        content = {file: info for file, info in files.items() if file != mark}
        reason = None
        if mark not in files:
            partial = sorted(file for file in content if file.lower().endswith(_UNFINISHED))
            rest = self.quiet_seconds - (now - max(_changed(info) for info in content.values()))
            if partial:
                reason = f"{partial[0]} is still being copied"
            elif rest > 0:
                reason = f"it changed less than {self.quiet_seconds:g} s ago; {rest:.0f} s to go, or create {mark}"
        return Batch(name, tuple(sorted(content)), reason)

    def take(self, run_id: str) -> list[str]:
        """Move every ready batch to _taken/<run>; return all batches there, including those of an earlier attempt."""
        run = run_name(run_id)
        for batch in self.batches():
            if batch.wait_reason is None and batch.files:
                for file in batch.files:
                    self._move(file, TAKEN, run, f"{LOOSE}/{file}" if batch.name == LOOSE else file)
                self._remove_empty(batch.name)
        return self.taken(run_id)

    def taken(self, run_id: str) -> list[str]:
        """Return the names of the batches that a run has taken."""
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

    def list_of(self, run_id: str) -> str:
        """Return the path of the list of the files that a run set aside, in the inbox's file system."""
        return self.path(BAD, f"{run_name(run_id)}.json")

    def bad(self, run_id: str) -> dict[str, str]:
        """Return {file: reason} of the files that a run set aside."""
        file = self.list_of(run_id)
        if not self.fs.exists(file):
            return {}
        listed: Any = None
        with suppress(ValueError, RecursionError):
            listed = json.loads(self.fs.cat_file(file))
        if not isinstance(listed, dict) or not all(isinstance(reason, str) for reason in listed.values()):
            raise UserError(f"{file}: no list of files and reasons; remove it, and the run goes on without it")
        return listed

    def finish(self, run_id: str, *, refused: str | None = None) -> str:
        """Move what a run took to _done/<run>, or to _bad/<run> with the reason `refused`; return the target folder."""
        run = run_name(run_id)
        source = self.path(TAKEN, run)
        target = DONE if refused is None else BAD
        names = self.files(TAKEN, run)
        if refused is not None:
            self._list(run_id, dict.fromkeys(names, refused))
        for name in names:
            self._move(f"{TAKEN}/{run}/{name}", target, run, name)
        if self.fs.isdir(source):
            self.fs.rm(source, recursive=True)
        return self.path(target, run)

    def finished_before(self, moment: float) -> list[tuple[str, int]]:
        """Return name and bytes of the runs in _done of which no file came or changed since `moment` (since 1970)."""
        self.fs.invalidate_cache()
        folder = self.path(DONE)
        runs = self.fs.ls(folder, detail=True) if self.fs.isdir(folder) else []
        found = []
        for name in sorted(run["name"].rstrip("/").rsplit("/", 1)[1] for run in runs if run["type"] == "directory"):
            files = list(self.fs.find(self.path(DONE, name), detail=True).values())
            if files and max(_changed(info) for info in files) < moment:
                found.append((name, sum(info["size"] for info in files)))
        return found

    def remove_finished(self, run: str) -> None:
        """Remove what is in _done of a run, by its name."""
        for file in self.files(DONE, run):
            self.fs.rm_file(self.path(DONE, run, file))  # not rm, which takes `*` in a name for a pattern
        if self.is_folder:
            self._writable(DONE, run, "")
            self.fs.rm(self.path(DONE, run), recursive=True)

    def _list(self, run_id: str, reasons: dict[str, str]) -> None:
        """Add to the list of a run's bad files atomically, so that it survives if this process is killed."""
        listed = json.dumps({**self.bad(run_id), **reasons}, indent=1, ensure_ascii=False)
        file = self._writable(BAD, f"{run_name(run_id)}.json")
        # Bytes of a name that are not UTF-8 become JSON escapes.
        self.fs.pipe_file(f"{file}.part", listed.encode(errors="backslashreplace"))
        self._rename(f"{file}.part", file)

    def _move(self, name: str, *target: str) -> None:
        self._rename(self.path(name), self._writable(*target))

    def _writable(self, *parts: str) -> str:
        """Return the path of an entry whose folder exists; UserError where a link leads to another folder."""
        path = self.path(*parts)
        folder = path.rpartition("/")[0]
        expected = os.path.join(os.path.realpath(self.root), folder[len(self.root) + 1 :])  # noqa: PTH118
        if self.is_folder and os.path.realpath(folder) != expected:
            raise UserError(f"{folder}: a link leads to {os.path.realpath(folder)}; nothing was moved there: remove it")
        self.fs.makedirs(folder, exist_ok=True)
        return path

    def _rename(self, source: str, target: str) -> None:
        if self.is_folder:
            self.fs.mv(source, target)
        else:
            # Not mv, which takes `*`, `?` and `[` in a name for a pattern.
            self.fs.cp_file(source, target)
            self.fs.rm_file(source)

    def _remove_empty(self, batch: str) -> None:
        mark = self.path(READY) if batch == LOOSE else self.path(batch, READY)
        if self.fs.exists(mark):
            self.fs.rm_file(mark)
        folder = self.path(batch)
        self.fs.invalidate_cache()
        pattern = not self.is_folder and has_magic(folder)
        if batch != LOOSE and self.fs.isdir(folder) and not self.fs.find(folder) and not pattern:
            self.fs.rm(folder, recursive=True)


def _changed(info: dict[str, Any]) -> float:
    """Return the latest time of a file, locally also of its inode's last change, since copies may keep old dates."""
    times = [info.get(key) for key in ("mtime", "created", "LastModified", "last_modified", "updated")]
    seconds = [one.timestamp() if isinstance(one, datetime) else float(one) for one in times if one is not None]
    return max(seconds, default=time.time())
