"""A photo that crashes its worker is rejected alone; one crash by chance rejects nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipelines.core.params import Params
from pipelines.data.faces.record import FaceRecord
from pipelines.data.faces.timing import StepTimes
from pipelines.data.preprocessing import tasks
from pipelines.data.preprocessing.crashes import CrashLog
from pipelines.data.preprocessing.files import read_slice_file
from pipelines.data.preprocessing.slices import cut_slices

from .conftest import write_faces

DEADLY = b"photo 5"


class DeadlyAnalyser:
    """An analyser whose decoder crashes on one photo, as a fault in a library does."""

    def __init__(self) -> None:
        self.times = StepTimes()

    def analyse(self, photos: Sequence[bytes], prompts: object, face_prompts: object) -> list[FaceRecord]:
        if DEADLY in photos:
            os.kill(os.getpid(), signal.SIGKILL)
        return [FaceRecord("rejected", "no_face") for _ in photos]


def _in_a_worker(task: Callable[[], None]) -> int:
    """Run a task in a separate process; return its exit code."""
    process = multiprocessing.get_context("fork").Process(target=task)
    process.start()
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


def test_a_photo_that_crashes_its_workers_is_the_only_one_rejected(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = write_faces(tmp_path / "faces", [(f"{row}.jpg", None, b"photo %d" % row) for row in range(10)])
    (piece,) = cut_slices(sorted(faces.glob("*.parquet")), 100)
    (tmp_path / "state").mkdir()
    job = tasks.Job(params.preprocess, "version", tmp_path / "state")
    monkeypatch.setattr(tasks, "worker_analyser", lambda *_: DeadlyAnalyser())

    ends = [_in_a_worker(lambda at=attempt: tasks.analyse_slice(piece, job, {}, None, at)) for attempt in range(4)]
    # As many attempts as Spark makes: the first crashes, two more locate the photo, the last rejects it.
    assert ends == [-signal.SIGKILL] * 3 + [0]
    report = tasks.analyse_slice(piece, job, {})
    assert (report.outcomes, report.analysed) == ({"no_face": 9, "analyser_failed": 1}, 0)
    rows = read_slice_file(Path(report.file), columns=["file_name", "reason"]).to_pylist()
    assert [row["file_name"] for row in rows if row["reason"] == "analyser_failed"] == ["5.jpg"]
    assert [file.suffix for file in (tmp_path / "state").iterdir()] == [".arrow"]


def test_one_crash_is_chance_and_a_damaged_file_counts_nothing(tmp_path: Path) -> None:
    def die(image_id: str) -> None:
        with CrashLog(tmp_path / "slice.arrow").analysing(image_id):
            os.kill(os.getpid(), signal.SIGKILL)

    for image_id in ("a", "b"):
        assert _in_a_worker(lambda name=image_id: die(name)) == -signal.SIGKILL
    assert not any(CrashLog(tmp_path / "slice.arrow").crashes_workers(image_id) for image_id in ("a", "b"))
    with CrashLog(tmp_path / "slice.arrow").analysing("c"):
        pass
    assert _in_a_worker(lambda: die("a")) == -signal.SIGKILL
    found = CrashLog(tmp_path / "slice.arrow")
    assert [image_id for image_id in ("a", "b", "c") if found.crashes_workers(image_id)] == ["a"]
    (tmp_path / ".slice.crashes").write_text('{"a": ')
    assert not CrashLog(tmp_path / "slice.arrow").crashes_workers("a")


def test_an_exception_is_no_crash_and_leaves_no_file(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(OSError, match="full"), CrashLog(tmp_path / "slice.arrow").analysing("a"):
            raise OSError("the disk is full")
    assert not CrashLog(tmp_path / "slice.arrow").crashes_workers("a")
    assert not list(tmp_path.iterdir())
