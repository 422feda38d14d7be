"""Buckets of which no row has changed are the files of earlier runs; all others are written, with the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipelines.core.params import Params
from pipelines.data.faces.record import FaceRecord
from pipelines.data.faces.timing import StepTimes
from pipelines.data.preprocessing import buckets, tasks
from pipelines.data.preprocessing.buckets import FOLDER, link_bucket, plan_buckets, write_bucket
from pipelines.data.preprocessing.slices import cut_slices

from .conftest import write_faces

BUCKETS = 16


class Analyser:
    """An analyser that rejects every photo, with a reason of its own choice."""

    def __init__(self, reason: str) -> None:
        self.times, self._reason = StepTimes(), reason

    def analyse(self, photos: Sequence[bytes], prompts: object, face_prompts: object) -> list[FaceRecord]:
        return [FaceRecord("rejected", self._reason) for _ in photos]


@dataclass
class Made:
    """The buckets of one run, and how many photos it analysed."""

    out: Path
    analysed: int
    rows: list[int] = field(default_factory=list)
    new: list[bool] = field(default_factory=list)

    def written(self) -> int:
        return sum(self.new)

    def bytes(self) -> list[bytes]:
        return [file.read_bytes() for file in sorted(self.out.iterdir())]

    def files(self) -> list[int]:
        return [file.stat().st_ino for file in sorted(self.out.iterdir())]


@pytest.fixture
def make(params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Made]:
    """Preprocess photos by people into a new folder: (name, people, state) → what was made."""
    section = params.preprocess.model_copy(update={"buckets": BUCKETS})

    def run(name: str, shards: list[list[int]], state: str = "state", reason: str = "no_face") -> Made:
        monkeypatch.setattr(tasks, "worker_analyser", lambda *_: Analyser(reason))
        for number, people in enumerate(shards):
            photos = [
                (f"{person}/{row}.jpg", f"person {person}", b"%d %d" % (person, row))
                for person in people
                for row in range(3)
            ]
            write_faces(tmp_path / f"faces-{name}-{number}", photos)
        files = [next((tmp_path / f"faces-{name}-{number}").glob("*.parquet")) for number in range(len(shards))]
        job = tasks.Job(section, "version", tmp_path / state)
        reports = [tasks.analyse_slice(piece, job, {}) for piece in cut_slices(files, 12)]
        made = Made(tmp_path / name, sum(report.analysed for report in reports))
        made.out.mkdir()
        for bucket in plan_buckets(reports, job):
            linked = link_bucket(bucket, made.out)
            made.new.append(linked is None)
            made.rows.append(write_bucket(bucket, section, made.out) if linked is None else linked)
        assert sum(made.rows) == sum(report.rows for report in reports)
        return made

    return run


def test_nothing_new_writes_no_bucket(make: Callable[..., Made]) -> None:
    first, again = make("one", [[*range(20)]]), make("two", [[*range(20)]])
    assert (first.written(), first.analysed) == (BUCKETS, 60)
    assert (again.written(), again.analysed) == (0, 0)
    assert again.files() == first.files()
    assert again.bytes() == first.bytes() == make("other", [[*range(20)]], "other state").bytes()


def test_a_new_person_costs_one_bucket_and_has_the_bytes_of_a_fresh_run(make: Callable[..., Made]) -> None:
    first = make("one", [[*range(20)]])
    grown = make("two", [[*range(20)], [20]])
    assert (grown.written(), grown.analysed) == (1, 3)
    assert sum(one == other for one, other in zip(first.files(), grown.files(), strict=True)) == BUCKETS - 1
    assert grown.bytes() == make("fresh", [[*range(20)], [20]], "fresh state").bytes()
    assert make("back", [[*range(20)]]).written() == 0, "the earlier version is still there"


def test_a_damaged_bucket_is_named_and_written_again(
    make: Callable[..., Made], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = make("one", [[*range(20)]])
    kept = max((tmp_path / "state" / FOLDER).iterdir(), key=lambda file: file.stat().st_size)
    whole = kept.read_bytes()
    kept.unlink()
    kept.write_bytes(whole[:100])
    again = make("two", [[*range(20)]])
    assert f"{kept}: damaged; it is written again" in capsys.readouterr().err
    assert (again.written(), again.bytes()) == (1, first.bytes())
    assert kept.read_bytes() == whole


def test_a_slice_that_was_analysed_again_makes_its_buckets_again(make: Callable[..., Made], tmp_path: Path) -> None:
    make("one", [[*range(20)]])
    for file in (tmp_path / "state").glob("*.arrow"):
        file.unlink()
    assert make("same", [[*range(20)]]).written() == 0, "the same outcomes"
    for file in (tmp_path / "state").glob("*.arrow"):
        file.unlink()
    again = make("two", [[*range(20)]], reason="blurred")
    assert again.new == [rows > 0 for rows in again.rows]
    assert again.bytes() == make("fresh", [[*range(20)]], "fresh state", reason="blurred").bytes()


def test_without_links_every_bucket_is_written(make: Callable[..., Made], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(buckets.os, "link", refuse)
    assert make("one", [[1, 2]]).bytes() == make("two", [[1, 2]]).bytes()
    assert make("three", [[1, 2]]).written() == BUCKETS


def test_a_slice_of_another_version_is_named_and_made_again(
    params: Params, make: Callable[..., Made], tmp_path: Path
) -> None:
    first = make("one", [[1, 2]])
    (file,) = (tmp_path / "state").glob("*.arrow")
    whole = file.read_bytes()
    (piece,) = cut_slices(sorted((tmp_path / "faces-one-0").glob("*.parquet")), 12)
    job = tasks.Job(params.preprocess.model_copy(update={"buckets": BUCKETS}), "version", tmp_path / "state")
    file.write_bytes(whole[: len(whole) // 2])
    damaged: list[str] = []
    assert tasks.finished(piece, job, {}, damaged) is None
    assert damaged == [str(file)]
    assert file.exists(), "another run may be writing it at this moment"
    assert make("two", [[1, 2]]).bytes() == first.bytes()
