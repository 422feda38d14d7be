"""The inbox from the command line: photos dropped, unreadable ones set aside, the rest added and published."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = ("--run-id", "dynamicid_ingest/one")


@pytest.fixture
def place(tmp_path: Path, write_awkward_photos, project: Path) -> Path:
    """A git and DVC repository with an inbox that holds ten awkward files, five of which are no pictures."""
    write_awkward_photos(tmp_path / "inbox" / "monday", None)
    (tmp_path / "inbox" / "monday" / "_READY").touch()
    (tmp_path / "params.yaml").write_bytes((project / "params.yaml").read_bytes())
    for command in (
        ["git", "init", "-q"],
        [sys.executable, "-m", "dvc", "init", "-q"],
        ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "start"],
    ):
        subprocess.run(command, cwd=tmp_path, check=True)
    return tmp_path


def _cli(place: Path, project: Path, *arguments: str, inbox: str | None = "inbox", code: int = 0) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *arguments],
        cwd=place,
        env={
            "PYTHONPATH": str(project),
            "PATH": "/usr/bin:/bin",
            "HOME": str(place),
            **({"DYNAMICID_INBOX": str(place / inbox)} if inbox else {}),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip().endswith("}") else {"out": done.stdout}


def test_from_dropped_photos_to_a_published_version(place: Path, project: Path) -> None:
    assert _cli(place, project, "inbox", "ready") == {"ready": ["monday"], "waiting": {}}
    assert _cli(place, project, "inbox", "ready", inbox=None) == {"ready": [], "waiting": {}}, "none is the checkout's"
    taken = _cli(place, project, "inbox", "take", *RUN)
    assert taken["batches"] == ["monday"]
    reasons = {Path(file).name: reason.split(":")[0] for file, reason in taken["bad"].items()}
    assert reasons == {
        "empty.jpg": "empty",
        "huge_header.png": "too_large",
        "text.jpg": "unreadable",
        "truncated.jpg": "truncated",
    }
    late = _cli(place, project, "inbox", "take", "--run-id", "late", "--skip-code", "99", code=99)
    assert late["batches"] == []
    assert _cli(place, project, "inbox", "add", *RUN, "--latest") == {"monday": 6}
    first = _cli(place, project, "inbox", "publish")
    assert (first["tag"], first["rows"], first["new"]) == ("faces-v1", 6, True)
    assert _cli(place, project, "inbox", "publish") == first, "a retry tells of the version that was made"
    (place / ".dynamicid" / "published.json").unlink()
    assert _cli(place, project, "inbox", "publish", "--skip-code", "99", code=99)["new"] is False
    assert _cli(place, project, "dataset", "list")["out"].split() == ["faces-v1"]
    _cli(place, project, "inbox", "done", *RUN)
    moved = list((place / "inbox" / "_done" / "dynamicid-ingest-one" / "monday").iterdir())
    assert len(moved) == 6
    assert len(json.loads((place / "inbox" / "_bad" / "dynamicid-ingest-one.json").read_text())) == len(reasons)
    assert _cli(place, project, "inbox", "ready") == {"ready": [], "waiting": {}}


def test_a_refused_batch_lies_among_the_bad_ones_with_the_reason(place: Path, project: Path) -> None:
    _cli(place, project, "inbox", "take", *RUN)
    _cli(place, project, "inbox", "add", *RUN)
    _cli(place, project, "configure", "--set", "validate.min_photos=1000")
    _cli(place, project, "inbox", "validate", *RUN, code=1)
    listed = json.loads((place / "inbox" / "_bad" / "dynamicid-ingest-one.json").read_text())
    assert any("min_photos" in reason for reason in listed.values())
    assert not (place / "inbox" / "_taken" / "dynamicid-ingest-one").exists()


def test_a_full_disk_refuses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.commands import inbox, validate

    def full(**_: object) -> None:
        (tmp_path / "reports" / "validate").mkdir(parents=True)
        (tmp_path / "reports" / "validate" / "verdict.json").write_text("{}")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(validate, "validate", full)
    monkeypatch.setattr(inbox, "refuse", lambda *_: pytest.fail("a full disk is no verdict"))
    with pytest.raises(OSError, match="No space"):
        inbox.validate("run", str(tmp_path / "inbox"))
