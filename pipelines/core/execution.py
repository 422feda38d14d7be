"""The execution of a stage: start, loss curve, end and outputs, written as lines of JSON while it runs.

Stages know nothing of MLflow, so that no server can stop a training or change its bytes: they append to a file of the
checkout, from which `registry` records them. Where that file cannot be written, the stage runs on.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = ".dynamicid/executions"
# The file of the execution that this process, or the one that started it, belongs to.
VARIABLE = "DYNAMICID_EXECUTION"


@dataclass(frozen=True)
class Execution:
    """One execution of a stage; times are seconds since 1970, `end` and `code` (exit code) None while it runs.

    `rows` holds the rows of the loss curve with their times, `samples` time, step and file of grids of sample pictures,
    `outputs` what `fingerprint` returned of its outputs.
    """

    key: str
    stage: str
    start: float
    end: float | None
    code: int | None
    rows: tuple[tuple[float, dict[str, Any]], ...]
    outputs: dict[str, list[Any]]
    samples: tuple[tuple[float, int, str], ...] = ()

    def made(self, root: Path) -> bool:
        """Whether the outputs that are in the checkout `root` are those of this execution."""
        present = fingerprint(root, self.outputs)
        return bool(present) and self.code == 0 and all(self.outputs[path] == present[path] for path in present)


def noting(stage: str, outputs: Iterable[str], command: Callable[..., None]) -> Callable[..., None]:
    """Return `command`, which runs `stage` in the present folder, so that its execution is noted there."""

    @functools.wraps(command)
    def run(**options: Any) -> None:
        if VARIABLE in os.environ:  # one of several processes of a training
            return command(**options)
        file, start, code = (Path(FOLDER) / f"{stage}.jsonl").absolute(), _process_start(), 1
        with suppress(OSError):
            shutil.rmtree(file.with_suffix(""), ignore_errors=True)  # samples of an earlier one
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(_line(key=uuid.uuid4().hex, stage=stage, start=start), encoding="utf-8")
        os.environ[VARIABLE] = str(file)
        try:
            command(**options)
            code = 0
        except BaseException as error:
            code = int(getattr(error, "exit_code", 1) or 0)
            raise
        finally:
            del os.environ[VARIABLE]
            # A command that wrote elsewhere made none of the outputs of the checkout.
            made = {path: value for path, value in fingerprint(Path(), outputs).items() if _is_newer(Path(path), start)}
            _append(file, end=time.time(), code=code, outputs=made)

    return run


def note_row(row: Mapping[str, Any]) -> None:
    """Note a row of the loss curve (numbers by name, with `step`) in the execution that this process belongs to."""
    if file := os.environ.get(VARIABLE):
        _append(Path(file), time=time.time(), row=dict(row))


def note_samples(step: int, picture: Any) -> None:
    """Write a grid of sample pictures (H, W, 3) uint8 RGB beside the file of the execution, and note it."""
    if file := os.environ.get(VARIABLE):
        from PIL import Image

        folder = Path(file).with_suffix("")
        with suppress(OSError):
            folder.mkdir(exist_ok=True)
            Image.fromarray(picture).save(folder / f"step-{step:08d}.png")
            _append(Path(file), time=time.time(), step=step, samples=f"step-{step:08d}.png")


def note_cuda_peak(peak: int) -> None:
    """Note the most bytes of a GPU's memory that this process held, in the execution that it belongs to."""
    if file := os.environ.get(VARIABLE):
        _append(Path(file), time=time.time(), peak_cuda_bytes=peak)


def read_execution(root: Path, stage: str) -> Execution | None:
    """Return the newest execution of `stage` in the checkout `root`, None where there is none; lines may be missing."""
    try:
        text = (root / FOLDER / f"{stage}.jsonl").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    lines = []
    for line in text.splitlines():
        with suppress(ValueError):  # cut off, or being written
            lines.append(json.loads(line))
    if not (lines and isinstance(lines[0], dict) and "key" in lines[0]):
        return None
    rows = tuple((line["time"], line["row"]) for line in lines if "row" in line)
    samples = tuple((line["time"], line["step"], line["samples"]) for line in lines if "samples" in line)
    last = lines[-1] if "end" in lines[-1] else {}
    first = lines[0]
    return Execution(
        first["key"], stage, first["start"], last.get("end"), last.get("code"), rows, last.get("outputs", {}), samples
    )


def fingerprint(root: Path, paths: Iterable[str]) -> dict[str, list[Any]]:
    """Return size and md5 of each file, number of files and bytes of each folder; those that are missing are left out.

    It is quick for folders with millions of photos, so it does not tell folders apart that differ in bytes only.
    """
    found: dict[str, list[Any]] = {}
    for path in paths:
        place = root / path
        with suppress(OSError):
            if place.is_dir():
                sizes = [file.stat().st_size for file in place.rglob("*") if file.is_file()]
                found[path] = [len(sizes), sum(sizes)]
            elif place.is_file():
                with place.open("rb") as stream:
                    found[path] = [place.stat().st_size, hashlib.file_digest(stream, "md5").hexdigest()]
    return found


def _is_newer(place: Path, start: float) -> bool:
    # The clock of a file system is up to some milliseconds behind.
    return max(place.stat().st_mtime, place.stat().st_ctime) >= start - 1


def _process_start() -> float:
    """Return when this process began, in seconds since 1970."""
    try:
        import psutil

        # Both have the same start of the machine, in whole seconds, which the clock of the machine does not need.
        before = psutil.Process().create_time() - psutil.boot_time()
        return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - before)
    except (ImportError, AttributeError):  # not on Linux
        return time.time()


def _line(**values: Any) -> str:
    return json.dumps(values) + "\n"


def _append(file: Path, **values: Any) -> None:
    """Append a line; a disk that is full or a folder that is gone must not end a training."""
    with suppress(OSError, TypeError, ValueError), file.open("a", encoding="utf-8") as stream:
        stream.write(_line(**values))
