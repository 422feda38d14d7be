"""The inbox from the command line: of the dropped photos, unreadable ones are set aside, others added and published."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from pipelines.core.files import sha256
from pipelines.core.row_schemas import DATASET_SCHEMA
from pipelines.data.synthetic.sheet import portrait
from pipelines.versions.forgotten import REASON, append, new_entry
from pipelines.versions.workspace import run_name
from tests.pipelines.awkward import make_awkward_photos
from tests.pipelines.photos import dataset_row, write_shards
from tests.processes import dynamicid, git, run

RUN = ("--run-id", "dynamicid_ingest/one")
NAME = run_name(RUN[1])


@pytest.fixture
def place(tmp_path: Path, project: Path) -> Path:
    """A git and DVC repository with an inbox of ten awkward files, five of which are not pictures."""
    make_awkward_photos(tmp_path / "inbox" / "monday")
    (tmp_path / "inbox" / "monday" / "_READY").touch()
    (tmp_path / "params.yaml").write_bytes((project / "params.yaml").read_bytes())
    git(tmp_path, "init", "-q")
    run(sys.executable, "-m", "dvc", "init", "-q", cwd=tmp_path)
    git(tmp_path, "commit", "-qm", "start")
    return tmp_path


def _cli(place: Path, *arguments: str, inbox: str | None = "inbox", code: int = 0) -> dict:
    env = {"HOME": str(place), **({"DYNAMICID_INBOX": str(place / inbox)} if inbox else {})}
    done = dynamicid(*arguments, cwd=place, env=env, code=code)
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip().endswith("}") else {"out": done.stdout}


def _listed(taken: dict) -> dict[str, str]:
    return json.loads(Path(taken["list"]).read_text(encoding="utf-8"))


def test_from_dropped_photos_to_a_published_version(place: Path) -> None:
    assert _cli(place, "inbox", "ready") == {"ready": ["monday"], "waiting": {}}
    assert _cli(place, "inbox", "ready", inbox=None) == {"ready": [], "waiting": {}}, "the checkout's own inbox"
    taken = _cli(place, "inbox", "take", *RUN)
    assert taken["batches"] == ["monday"]
    assert (taken["bad"], taken["list"]) == (4, str(place / "inbox" / "_bad" / f"{NAME}.json")), "no names of photos"
    reasons = {Path(file).name: reason.split(":")[0] for file, reason in _listed(taken).items()}
    assert reasons == {
        "empty.jpg": "empty",
        "huge_header.png": "too_large",
        "text.jpg": "unreadable",
        "truncated.jpg": "truncated",
    }
    late = _cli(place, "inbox", "take", "--run-id", "late", "--skip-code", "99", code=99)
    assert late["batches"] == []
    assert _cli(place, "inbox", "add", *RUN, "--latest") == {"monday": 6}
    first = _cli(place, "inbox", "publish")
    assert (first["tag"], first["rows"], first["new"]) == ("faces-v1", 6, True)
    assert _cli(place, "inbox", "publish") == first, "a retry prints the same version"
    (place / ".dynamicid" / "published.json").unlink()
    assert _cli(place, "inbox", "publish", "--skip-code", "99", code=99)["new"] is False
    assert _cli(place, "dataset", "list")["out"].split() == ["faces-v1"]
    (place / "inbox" / "tuesday").mkdir()
    Image.fromarray(portrait("tuesday", 0, 128)).save(place / "inbox" / "tuesday" / "new.png")
    (place / "inbox" / "tuesday" / "_READY").touch()
    _cli(place, "inbox", "take", "--run-id", "two")
    assert _cli(place, "inbox", "add", "--run-id", "two")["tuesday"] == 1
    second = _cli(place, "inbox", "publish")
    assert (second["tag"], second["rows"], second["new"]) == ("faces-v2", 7, True), "by hand, in the same checkout"
    _cli(place, "inbox", "done", *RUN)
    assert not (place / ".dynamicid" / "published.json").exists()
    moved = list((place / "inbox" / "_done" / NAME / "monday").iterdir())
    assert len(moved) == 6
    assert len(json.loads((place / "inbox" / "_bad" / f"{NAME}.json").read_text())) == len(reasons)
    assert _cli(place, "inbox", "ready") == {"ready": [], "waiting": {}}


def test_a_publish_that_was_killed_after_its_tag_is_new_for_the_retry(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise the scheduler would skip the training on it."""
    from pipelines.commands import inbox

    _cli(place, "inbox", "take", *RUN)
    _cli(place, "inbox", "add", *RUN)
    monkeypatch.chdir(place)
    with monkeypatch.context() as killed:

        def write(*_: object) -> None:
            raise KeyboardInterrupt

        killed.setattr(inbox, "write_atomically", write)
        with pytest.raises(KeyboardInterrupt):
            inbox.publish()
    capsys.readouterr()
    inbox.publish()
    assert json.loads(capsys.readouterr().out)["new"] is True


def test_forgotten_people_and_photos_do_not_come_back(place: Path) -> None:
    """By their bytes under another name, by name with new photos; and not past the inbox with `dataset publish`."""
    photos = make_awkward_photos(place / "photos")
    known, renewed = (photos / name for name in ("cmyk.jpg", "exif_rotated.jpg"))
    append(place, new_entry(["Zo\u00eb"], [sha256(known)], {}))
    batch = place / "inbox" / "monday"
    shutil.rmtree(batch)
    for name, source in (
        ("bert/1.jpg", known),
        ("Zoe\u0308/2.jpg", renewed),
        ("carl/3.png", photos / "sixteen_bit.png"),
    ):
        (batch / name).parent.mkdir(parents=True)
        shutil.copy(source, batch / name)
    (batch / "_READY").touch()
    assert _listed(_cli(place, "inbox", "take", *RUN)) == {"monday/bert/1.jpg": REASON}
    assert (place / "inbox" / "_bad" / NAME / "monday" / "bert" / "1.jpg").is_file()
    done = dynamicid("inbox", "add", *RUN, "--inbox", place / "inbox", cwd=place)
    assert json.loads(done.stdout) == {"monday": 1}
    assert f"monday: 1 new photo; 1 left out: {REASON}" in done.stderr
    assert _cli(place, "inbox", "publish")["rows"] == 1

    shard = place / "data" / "faces" / "faces-00001.parquet"
    write_shards(place / "other", DATASET_SCHEMA, [[dataset_row("4.jpg", b"new", "Zoe\u0308")]])
    shutil.copy(next((place / "other").glob("*.parquet")), shard)
    refused = dynamicid("dataset", "publish", cwd=place, code=1)
    assert f"1 photo in it {REASON}: Zoe\u0308, such as 4.jpg; `dynamicid forget --again`" in refused.stderr
    assert _cli(place, "dataset", "list")["out"].split() == ["faces-v1"]
    (place / "data" / "forgotten.jsonl").write_text('{"when": "2026-')
    for command in (("inbox", "take", *RUN), ("inbox", "add", *RUN), ("dataset", "publish"), ("ingest", "photos")):
        env = {"DYNAMICID_INBOX": str(place / "inbox")}
        assert "line 1: the list of the forgotten is cut" in dynamicid(*command, cwd=place, env=env, code=2).stderr


def test_names_that_are_not_utf_8_stop_no_other_photo(place: Path) -> None:
    """Airflow stores results and reasons in its database, which refuses what is not UTF-8."""
    batch = place / "inbox" / "monday"
    for name in (b"\xff.jpg", b"\xe9t\xe9.jpg"):
        shutil.copy(batch / "cmyk.jpg", os.fsdecode(os.fsencode(batch) + b"/" + name))
    Path(os.fsdecode(os.fsencode(batch) + b"/\xfe.jpg")).write_bytes(b"no picture")
    batch.rename(os.fsdecode(os.fsencode(batch) + b"\xff"))
    printed = [_cli(place, "inbox", "ready"), _cli(place, "inbox", "take", *RUN)]
    assert printed[0]["ready"] == printed[1]["batches"] == ["monday\\xff"]
    assert "monday\udcff/\udcfe.jpg" in _listed(printed[1])
    printed += [_cli(place, "inbox", "add", *RUN), _cli(place, "inbox", "done", *RUN)]
    assert printed[2] == {"monday\\xff": 8}
    json.dumps(printed, ensure_ascii=False).encode()


def test_a_photo_that_may_not_be_read_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.operations.inbox.reading import unusable
    from pipelines.versions.forgotten import Forgotten

    photos = make_awkward_photos(tmp_path / "photos")
    read = Path.read_bytes

    def guarded(path: Path) -> bytes:
        if path.name == "cmyk.jpg":  # the tests may run as root, who may read everything
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", guarded)
    found = unusable({"monday": photos}, 10**9, Forgotten([]))
    assert found["monday/cmyk.jpg"] == "unreadable: Permission denied"
    assert "monday/exif_rotated.jpg" not in found


def test_labels_of_photos_that_were_set_aside_are_no_fault_and_others_refuse_the_batch(place: Path) -> None:
    batch = place / "inbox" / "monday"
    entries = [{"file_name": file.name, "text": "a face"} for file in sorted(batch.iterdir()) if file.name != "_READY"]
    (batch / "labels.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    (batch / "empty.txt").write_text("text of a photo that is set aside")
    (batch / "one.txt").write_text("text of no photo")
    _cli(place, "inbox", "take", *RUN)
    dynamicid("inbox", "add", *RUN, cwd=place, env={"DYNAMICID_INBOX": str(place / "inbox")}, code=1)
    listed = json.loads((place / "inbox" / "_bad" / f"{NAME}.json").read_text())
    assert "1 label does not reach a row (one.txt: text without a picture of its name)" in listed["monday/cmyk.jpg"]
    assert not list((place / "data" / "faces").glob("*.parquet"))
    again = dynamicid("inbox", "add", *RUN, cwd=place, env={"DYNAMICID_INBOX": str(place / "inbox")}, code=1)
    assert "refused: 1 label does not reach a row" in again.stderr


def test_a_batch_of_two_layouts_is_refused(place: Path) -> None:
    (place / "inbox" / "monday" / "labels.jsonl").write_text('{"file_name": "cmyk.jpg", "identity": "anna"}\n')
    _cli(place, "inbox", "take", *RUN)
    dynamicid("inbox", "add", *RUN, cwd=place, env={"DYNAMICID_INBOX": str(place / "inbox")}, code=2)
    listed = json.loads((place / "inbox" / "_bad" / f"{NAME}.json").read_text())
    assert "2 layouts fit: consistentid" in listed["monday/cmyk.jpg"]


def test_the_inbox_of_the_checkout_stays_when_a_run_is_done(place: Path) -> None:
    own = place / ".dynamicid" / "inbox"
    own.parent.mkdir()
    (place / "inbox").rename(own)
    shutil.copytree(own / "monday", own / "tuesday")
    (own / "tuesday" / "_READY").unlink()
    _cli(place, "inbox", "take", *RUN, inbox=".dynamicid/inbox")
    _cli(place, "inbox", "done", *RUN, inbox=".dynamicid/inbox")
    assert (own / "_done" / NAME / "monday").is_dir()
    assert any((own / "tuesday").iterdir())


def test_a_refused_batch_is_listed_as_bad_with_the_reason(place: Path) -> None:
    _cli(place, "inbox", "take", *RUN)
    _cli(place, "inbox", "add", *RUN)
    _cli(place, "configure", "--set", "validate.min_photos=1000")
    _cli(place, "inbox", "validate", *RUN, code=1)
    listed = json.loads((place / "inbox" / "_bad" / f"{NAME}.json").read_text())
    assert any("min_photos" in reason for reason in listed.values())
    assert not (place / "inbox" / "_taken" / NAME).exists()


def test_a_full_disk_does_not_refuse_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.commands import inbox, validate

    def full(**_: object) -> None:
        (tmp_path / "reports" / "validate").mkdir(parents=True)
        (tmp_path / "reports" / "validate" / "verdict.json").write_text("{}")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(validate, "validate", full)
    monkeypatch.setattr(inbox, "refuse", lambda *_: pytest.fail("the batch was refused"))
    with pytest.raises(OSError, match="No space"):
        inbox.validate("run", str(tmp_path / "inbox"))


def test_a_missing_inbox_is_named_unless_it_is_the_checkouts_own(place: Path) -> None:
    for arguments in (("ready",), ("take", *RUN)):
        done = dynamicid("inbox", *arguments, "--inbox", "typo", cwd=place, code=2)
        assert "inbox typo: no such folder; create it, or name another with --inbox" in done.stderr
    assert not (place / "typo").exists()
    assert _cli(place, "inbox", "take", *RUN, inbox=".dynamicid/inbox")["batches"] == []


def test_ending_a_run_leaves_the_checkouts_own_inbox(place: Path) -> None:
    own = place / ".dynamicid" / "inbox"
    (own / "tuesday").mkdir(parents=True)
    (own / "tuesday" / "photo.jpg").write_bytes(b"later")
    _cli(place, "inbox", "done", *RUN, inbox=".dynamicid/inbox")
    assert (own / "tuesday" / "photo.jpg").read_bytes() == b"later"
