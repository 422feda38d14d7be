"""Checkpoints to resume from: outside the outputs, keyed by inputs and parameters, locked, written atomically.

They are accelerate's state, which contains pickles: they never leave the machine. A stage removes them on success,
except the last one of a training that more steps would continue.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from model.formats import CHECKPOINT, KEY

PROGRESS = "progress.json"
_KEPT = 2
# If fewer bytes are free, a failed write counts as caused by a full disk: not every error states its cause.
_FULL_BELOW = 1 << 16


class Busy(Exception):
    """Another process is still running the same training."""


def resume_key(inputs: Mapping[str, str], parameters: Mapping[str, Any]) -> str:
    """Return 32 hex digits that identify a training: a hash of its `inputs` (hashes by name) and its `parameters`."""
    text = json.dumps({"inputs": dict(inputs), "parameters": dict(parameters)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def disk_full(error: BaseException, folder: Path) -> bool:
    """Return whether a full disk at `folder` caused `error`; torch and safetensors raise errors of their own types."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return os.strerror(errno.ENOSPC) in str(error) or shutil.disk_usage(folder).free < _FULL_BELOW


class Checkpoints:
    """The checkpoints of one training: `<root>/<stage>/<key>/step-<n>`.

    Those after step `most` belong to a longer training with the same key; `family` is the key without what depends on
    the number of steps. `shape` says how the work is divided, such as 2 processes; `work` is the key without that.
    """

    def __init__(
        self,
        root: Path,
        stage: str,
        key: str,
        *,
        most: int | None = None,
        family: str | None = None,
        shape: str = "",
        work: str | None = None,
    ) -> None:
        self.stage = stage
        self.key = key
        self._most = most
        self._family = family
        self._shape, self._work = shape, work
        self.folder = root / stage / key
        # Checkpoints that `latest` passed over, with the reason; the next `save` removes them.
        self.damaged: dict[Path, str] = {}

    @contextmanager
    def locked(self, timeout: float) -> Iterator[None]:
        """Hold the training's lock inside the block, because the child of a killed `dvc` may still be training.

        Raise Busy if another process still holds the lock after `timeout` seconds.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        # Beside the folder, which `clear` removes while the lock is held.
        lock = FileLock(self.folder.with_suffix(".lock"))
        holder = self.folder.with_suffix(".pid")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            who = holder.read_text(encoding="utf-8").strip() if holder.exists() else "unknown"
            waiting = f"{self.stage}: process {who} is training the same thing; waiting for it, at most {timeout:.0f} s"
            print(waiting, file=sys.stderr, flush=True)
            try:
                lock.acquire(timeout=timeout)
            except Timeout:
                raise Busy(
                    f"{self.stage}: process {who} still trains the same thing after {timeout:.0f} s; "
                    f"wait for it or end it (kill {who}), then run again: it resumes"
                ) from None
        try:
            holder.write_text(f"{os.getpid()}\n", encoding="utf-8")
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def adopt(self, key: str) -> None:
        """Take over the checkpoints that an earlier version wrote under another `key`, if there are none here."""
        earlier = self.folder.with_name(key)
        if earlier.is_dir() and earlier != self.folder and not self._steps(None):
            earlier.rename(self.folder)

    def latest(self) -> Path | None:
        """Return the newest checkpoint that is whole, or None; `damaged` names the newer ones."""
        for folder in reversed(self._steps(self._most)):
            if not (folder / PROGRESS).exists():
                continue
            if folder not in self.damaged and (problem := damage(folder)):
                self.damaged[folder] = problem
            if folder not in self.damaged:
                return folder
        return None

    def otherwise_divided(self) -> tuple[Path, str] | None:
        """Return a checkpoint of this training whose work was divided otherwise, and how; None where there is none."""
        for file in sorted(self.folder.parent.glob(f"*/step-*/{PROGRESS}")) if self._work else ():
            with suppress(ValueError, OSError):  # cut, or of a newer program
                progress = _progress(file.parent)
                if file.parent.parent != self.folder and progress.get("work") == self._work:
                    return file.parent, str(progress["shape"])
        return None

    def checked(self, folder: Path) -> Path:
        """Return `folder` if it is a checkpoint of this training, else raise ValueError."""
        if not (folder / PROGRESS).is_file():
            raise ValueError(f"{folder}: no such checkpoint to resume from; expected a folder step-<n> with {PROGRESS}")
        if problem := damage(folder):
            raise ValueError(f"{folder}: damaged: {problem}; resume from another checkpoint")
        progress = _progress(folder)
        if (progress["stage"], progress["key"]) != (self.stage, self.key):
            if progress["stage"] == self.stage and self._family and progress.get("family") == self._family:
                raise ValueError(
                    f"{folder}: a checkpoint of this training with another number of steps, on which its learning rate "
                    f"or noise depends; to train its adapter further, set {self.stage}.start_from"
                )
            if progress["stage"] == self.stage and self._work and progress.get("work") == self._work:
                raise ValueError(
                    f"{folder}: a checkpoint of this training with {progress['shape']}, and this is one with "
                    f"{self._shape}, whose steps have other photos; resume with {progress['shape']}"
                )
            raise ValueError(
                f"{folder}: a checkpoint of {progress['stage']} with other inputs or parameters "
                f"(key {progress['key'][:8]}, this run has {self.key[:8]}); it cannot be resumed here"
            )
        if self._most is not None and progress["step"] > self._most:
            raise ValueError(f"{folder}: after step {progress['step']}, and {self.stage}.steps is {self._most}")
        return folder

    def save(self, accelerator: Any, step: int, state: Mapping[str, Any]) -> None:
        """Write checkpoint `step` with `state` (JSON) beside accelerate's state, and keep one older checkpoint.

        Raise OSError if the disk is full; the previous checkpoint is intact.
        """
        temporary = self.folder / f"tmp-{step:08d}"
        if accelerator.is_main_process:
            for left in self.folder.glob("tmp-*"):
                shutil.rmtree(left)
            temporary.mkdir(parents=True)
        accelerator.wait_for_everyone()
        try:
            accelerator.save_state(str(temporary))
            accelerator.wait_for_everyone()
            if not accelerator.is_main_process:
                return
            files = sorted(path for path in temporary.rglob("*") if path.is_file())
            for file in files:
                if not _is_whole(file):  # not every library reports that a write was cut
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
            hashes = {file.relative_to(temporary).as_posix(): _sha256(file) for file in files}
            progress = {KEY: CHECKPOINT.version, "stage": self.stage, "key": self.key, "step": step, "state": state}
            progress |= {"family": self._family, "shape": self._shape, "work": self._work, "files": hashes}
            (temporary / PROGRESS).write_text(json.dumps(progress), encoding="utf-8")
            for file in (*files, temporary / PROGRESS):
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        except Exception as error:
            full = disk_full(error, temporary)
            shutil.rmtree(temporary, ignore_errors=True)
            if full:
                message = f"{os.strerror(errno.ENOSPC)}: checkpoint of step {step}; the previous one is intact"
                raise OSError(errno.ENOSPC, message, str(self.folder)) from error
            raise
        final = self.folder / f"step-{step:08d}"
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        self.damaged.pop(final, None)
        for old in self.damaged:
            shutil.rmtree(old, ignore_errors=True)
        for old in self._steps(step)[:-_KEPT]:
            shutil.rmtree(old)

    @staticmethod
    def load(accelerator: Any, folder: Path) -> tuple[int, Mapping[str, Any]]:
        """Restore accelerate's state from `folder`; return the step and the state given to `save`.

        Raise NewerFormatError for a checkpoint of a newer program; one of format 1 differs only in not stating it.
        """
        progress = _progress(folder)
        accelerator.load_state(str(folder))
        return int(progress["step"]), progress["state"]

    def clear(self, *, keep_last: bool = False) -> None:
        """Remove all checkpoints, or all but that of the most steps."""
        if not keep_last:
            shutil.rmtree(self.folder, ignore_errors=True)
        for old in self._steps(None)[:-1]:
            shutil.rmtree(old)

    def _steps(self, most: int | None) -> list[Path]:
        """Return the folders of checkpoints up to step `most`, by step."""
        folders = sorted(self.folder.glob("step-*"))
        return [folder for folder in folders if most is None or int(folder.name.removeprefix("step-")) <= most]


def damage(folder: Path) -> str | None:
    """Return what is wrong with the files of a checkpoint, or None where it is whole; refuse a newer format."""
    try:
        progress = json.loads((folder / PROGRESS).read_bytes())
        files = progress.get("files")  # checkpoints of earlier versions have no hashes
        version = progress.get(KEY)
    except (OSError, ValueError, AttributeError):
        return f"{PROGRESS} cannot be read"
    CHECKPOINT.check(folder / PROGRESS, version)
    present = files or {path.relative_to(folder).as_posix(): None for path in folder.rglob("*") if path.is_file()}
    for name, digest in present.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if not (_is_whole(file) if digest is None else _sha256(file) == digest):
            return f"{name} is cut or changed ({file.stat().st_size} bytes)"
    return None


def _is_whole(file: Path) -> bool:
    """Return whether a file of accelerate's state is complete: torch's are zip archives, others name their length."""
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, "pt"):
                return True
        except (SafetensorError, OSError):
            return False
    if file.suffix in (".bin", ".pkl", ".pt"):
        try:
            with zipfile.ZipFile(file) as archive:
                return archive.testzip() is None
        except (zipfile.BadZipFile, EOFError, OSError):
            return False
    return True


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _progress(folder: Path) -> dict[str, Any]:
    file = folder / PROGRESS
    progress: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    CHECKPOINT.check(file, progress.get(KEY))
    return progress
