"""In a folder or an object store, incomplete batches wait, ready ones are taken, finished and bad ones are moved."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from pipelines.core.errors import UserError
from pipelines.operations.inbox.batches import LOOSE, READY, Inbox
from pipelines.operations.inbox.reading import local_batches, too_large, unusable
from pipelines.versions.forgotten import gate
from pipelines.versions.workspace import run_name
from tests.pipelines.object_store import BUCKET, s3_server

QUIET = 60.0
RUN = "dynamicid_ingest/scheduled__2026-01-01"
NAME = run_name(RUN)


def _put(inbox: Inbox, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = inbox.path(name)
        inbox.fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        inbox.fs.pipe_file(path, data)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Yield the address of a bucket on an S3 server."""
    with s3_server():
        yield f"s3://{BUCKET}"


@pytest.fixture(params=["folder", "objects", "s3"])
def inbox(request: pytest.FixtureRequest, tmp_path: Path) -> Inbox:
    if request.param == "s3":
        return Inbox(f"{request.getfixturevalue('bucket')}/{uuid.uuid4().hex}/inbox", QUIET)
    address = str(tmp_path / "inbox") if request.param == "folder" else f"memory://bucket-{uuid.uuid4().hex}/inbox"
    return Inbox(address, QUIET)


def test_a_missing_inbox_is_empty(inbox: Inbox) -> None:
    assert inbox.batches() == []
    assert inbox.take(RUN) == []


def test_a_poll_does_not_read_what_runs_have_finished(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = {f"{top}/run-{run}/monday/1.jpg": b"1" for top in ("_done", "_bad", "_taken") for run in range(9)}
    _put(inbox, archive | {"monday/anna/1.jpg": b"1", "monday/_READY": b"", "2.jpg": b"2"})
    read: list[str] = []

    def noting(method: str) -> None:
        done = getattr(inbox.fs, method)

        def reading(path: str, *more: object, **options: object) -> object:
            read.append(path)
            return done(path, *more, **options)

        monkeypatch.setattr(inbox.fs, method, reading)

    noting("ls")
    noting("find")
    assert [batch.name for batch in inbox.batches()] == ["loose", "monday"]
    assert {path[len(inbox.root) :].strip("/").partition("/")[0] for path in read} == {"", "monday"}
    assert len(read) < 9


def test_finished_batches_are_removed_by_age(inbox: Inbox) -> None:
    _put(
        inbox,
        {"_done/one*/monday/1.jpg": b"123", "_done/one*/2.jpg": b"1", "_done/two/1.jpg": b"1", "_bad/x.json": b""},
    )
    assert inbox.finished_before(time.time() - 60) == []
    assert inbox.finished_before(time.time() + 60) == [("one*", 4), ("two", 1)]
    inbox.remove_finished("one*")
    assert inbox.finished_before(time.time() + 60) == [("two", 1)]
    assert inbox.files("_bad") == ["x.json"]


def test_a_batch_waits_until_it_has_not_changed_for_a_while(inbox: Inbox) -> None:
    _put(inbox, {"monday/anna/1.jpg": b"1"})
    waiting = inbox.batches()
    assert [batch.name for batch in waiting] == ["monday"]
    assert "changed less than 60 s ago" in waiting[0].wait_reason
    assert inbox.take(RUN) == []
    later = inbox.batches(now=time.time() + QUIET + 1)
    assert later[0].wait_reason is None
    assert later[0].files == ("monday/anna/1.jpg",)


def test_a_mark_makes_a_batch_ready_at_once_and_is_not_taken(inbox: Inbox) -> None:
    _put(inbox, {"monday/anna/1.jpg": b"1", f"monday/{READY}": b"", "tuesday/2.jpg": b"2"})
    assert inbox.take(RUN) == ["monday"]
    assert inbox.files("_taken", NAME) == ["monday/anna/1.jpg"]
    assert not inbox.fs.exists(inbox.path("monday"))
    assert [batch.name for batch in inbox.batches()] == ["tuesday"]


def test_a_file_still_being_copied_holds_its_batch_back(inbox: Inbox) -> None:
    _put(inbox, {"monday/1.jpg": b"1", "monday/2.jpg.part": b"2"})
    batch = inbox.batches(now=time.time() + 10 * QUIET)[0]
    assert batch.wait_reason == "monday/2.jpg.part is still being copied"


def test_a_copy_that_keeps_old_dates_waits_too(tmp_path: Path) -> None:
    file = tmp_path / "monday" / "1.jpg"
    file.parent.mkdir()
    file.write_bytes(b"1")
    os.utime(file, (0, 0))
    assert "changed less than" in Inbox(str(tmp_path), QUIET).batches()[0].wait_reason


def test_single_files_are_one_batch(inbox: Inbox) -> None:
    _put(inbox, {"1.jpg": b"1", "1.txt": b"text", READY: b""})
    assert inbox.take(RUN) == [LOOSE]
    assert inbox.files("_taken", NAME) == [f"{LOOSE}/1.jpg", f"{LOOSE}/1.txt"]
    assert inbox.batches() == []


def test_a_retry_finds_what_it_took_and_later_photos_are_another_batch(inbox: Inbox) -> None:
    _put(inbox, {"monday/1.jpg": b"1", f"monday/{READY}": b""})
    assert inbox.take(RUN) == ["monday"]
    _put(inbox, {"monday/2.jpg": b"2"})
    assert inbox.take(RUN) == ["monday"]
    assert inbox.files("_taken", NAME) == ["monday/1.jpg"]
    assert [batch.files for batch in inbox.batches()] == [("monday/2.jpg",)]


def test_done_batches_keep_every_byte(inbox: Inbox) -> None:
    _put(inbox, {"monday/anna/1.jpg": b"1", "monday/anna/1.txt": b"text", f"monday/{READY}": b""})
    inbox.take(RUN)
    inbox.finish(RUN)
    assert inbox.files("_done", NAME) == ["monday/anna/1.jpg", "monday/anna/1.txt"]
    assert inbox.fs.cat_file(inbox.path("_done", NAME, "monday/anna/1.txt")) == b"text"
    assert inbox.taken(RUN) == []
    assert inbox.finish(RUN)  # a retry has nothing left to do


def test_bad_photos_are_moved_and_listed_and_a_refusal_lists_the_rest(inbox: Inbox) -> None:
    _put(inbox, {"monday/1.jpg": b"1", "monday/2.jpg": b"2", f"monday/{READY}": b""})
    inbox.take(RUN)
    inbox.set_aside(RUN, {"monday/2.jpg": "truncated: it ends early"})
    inbox.set_aside(RUN, {"monday/2.jpg": "truncated: it ends early"})  # a retry
    assert inbox.files("_taken", NAME) == ["monday/1.jpg"]
    inbox.finish(RUN, refused="too few photos")
    assert inbox.files("_bad", NAME) == ["monday/1.jpg", "monday/2.jpg"]
    listed = json.loads(inbox.fs.cat_file(inbox.path("_bad", f"{NAME}.json")))
    assert listed == {"monday/1.jpg": "too few photos", "monday/2.jpg": "truncated: it ends early"}


def test_an_unknown_kind_of_address_is_refused() -> None:
    with pytest.raises(UserError, match="expected a folder or an address"):
        Inbox("nonsense://bucket/inbox", QUIET)


def test_objects_are_read_as_local_files(tmp_path: Path) -> None:
    from pipelines.operations.inbox.reading import local_batches

    inbox = Inbox(f"memory://bucket-{uuid.uuid4().hex}/inbox", QUIET)
    _put(inbox, {"monday/anna/1.jpg": b"one", f"monday/{READY}": b"", "monday/../../climbs.jpg": b"out"})
    inbox.take(RUN)
    assert inbox.files("_taken", NAME) == ["monday/anna/1.jpg"]
    folders = local_batches(inbox, RUN, tmp_path)
    assert (folders["monday"] / "anna" / "1.jpg").read_bytes() == b"one"
    assert fsspec.filesystem("memory").exists(inbox.path("_taken", NAME, "monday/anna/1.jpg"))


@pytest.mark.parametrize("name", ["*[x]?", "a::b", "C# 50%", "[!m]onday"])
def test_names_are_no_patterns_and_no_addresses(tmp_path: Path, name: str) -> None:
    for address in (str(tmp_path / name), f"memory://bucket-{uuid.uuid4().hex}/inbox"):
        inbox = Inbox(address, QUIET)
        inbox.fs.makedirs(inbox.root, exist_ok=True)
        _put(inbox, {f"{name}/1.jpg": b"1", f"{name}/{READY}": b"", "monday/1.jpg": b"2"})
        assert inbox.take(RUN) == [name]
        assert inbox.files("_taken", NAME) == [f"{name}/1.jpg"]
        assert inbox.files("monday") == ["1.jpg"], "another batch that the pattern would match"
        inbox.finish(RUN)
        assert inbox.fs.cat_file(inbox.path("_done", NAME, name, "1.jpg")) == b"1"


def test_a_picture_above_the_limit_is_named_and_not_opened(tmp_path: Path) -> None:
    """A sparse file takes no room on the disk, and all the memory of its reader; a tar shard has another limit."""
    for name in ("huge.jpg", "huge.tar", "small.jpg"):
        (tmp_path / "inbox" / "monday").mkdir(parents=True, exist_ok=True)
        with (tmp_path / "inbox" / "monday" / name).open("wb") as file:
            file.truncate(2**40 if "huge" in name else 10)
    inbox = Inbox(str(tmp_path / "inbox"), quiet_seconds=0)
    inbox.take("one")
    reasons = too_large(inbox, "one", max_bytes=2**20)
    assert reasons == {"monday/huge.jpg": "larger than ingest.max_file_mb"}
    inbox.set_aside("one", reasons)
    batches = local_batches(inbox, "one", tmp_path / "scratch")
    assert set(unusable(batches, 10**6, gate(tmp_path))) == {"monday/small.jpg"}
    assert inbox.bad("one") == reasons


@pytest.mark.parametrize("linked", ["_taken", f"_taken/{NAME}", f"_taken/{NAME}/monday", "_done", "_bad"])
def test_no_photo_is_moved_through_a_link(tmp_path: Path, linked: str) -> None:
    """Whoever can write to an inbox could otherwise have files written to any folder."""
    inbox, elsewhere = Inbox(str(tmp_path / "inbox"), QUIET), tmp_path / "elsewhere"
    elsewhere.mkdir()
    _put(inbox, {"monday/1.jpg": b"1", f"monday/{READY}": b""})
    link = tmp_path / "inbox" / linked
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(elsewhere)

    def whole_run() -> None:
        inbox.take(RUN)
        if linked == "_bad":
            inbox.set_aside(RUN, {"monday/1.jpg": "damaged"})
        inbox.finish(RUN)

    with pytest.raises(UserError, match="a link leads to"):
        whole_run()
    assert not [*elsewhere.rglob("*")]
    assert [file.read_bytes() for file in (tmp_path / "inbox").rglob("1.jpg")] == [b"1"]


def test_an_inbox_may_itself_be_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "mounted").mkdir()
    (tmp_path / "inbox").symlink_to(tmp_path / "mounted")
    inbox = Inbox(str(tmp_path / "inbox"), QUIET)
    _put(inbox, {"monday/1.jpg": b"1", f"monday/{READY}": b""})
    assert inbox.take(RUN) == ["monday"]
    inbox.finish(RUN)
    assert (tmp_path / "mounted" / "_done" / NAME / "monday" / "1.jpg").read_bytes() == b"1"


@pytest.mark.parametrize("damaged", [b"", b"[" * 100_000, b"\xff", b"[1]", b'{"a": 1}', b'"a"', b"1"])
def test_a_damaged_list_of_bad_files_is_named(inbox: Inbox, damaged: bytes) -> None:
    _put(inbox, {f"_bad/{NAME}.json": damaged})
    for call in (lambda: inbox.bad(RUN), lambda: inbox.set_aside(RUN, {"monday/1.jpg": "damaged"})):
        with pytest.raises(UserError, match=f"_bad/{NAME}.json: no list of files and reasons"):
            call()
    assert inbox.fs.cat_file(inbox.path(f"_bad/{NAME}.json")) == damaged
