"""Archives that hold a forgotten person are found in every call, wherever and whenever they come."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

from pipelines.versions.places import INBOX, note_copy

from .conftest import Home
from .searches import command


def test_archives_with_the_person_are_named_whenever_they_come(make: Callable[[Path], Home], tmp_path: Path) -> None:
    home, inbox = make(tmp_path), tmp_path / "inbox"
    note_copy(home.root, shard(home, inbox / "_taken" / "r" / "monday" / "faces.tar", "bert").parents[3], INBOX)
    request = ("forget", "--identity", "bert")
    printed, message = command(home.root, *request, code=1)
    assert json.loads(printed)["remaining"] == [str(inbox / "_taken/r/monday/faces.tar")]
    assert "faces.tar; delete those too" in message
    shutil.rmtree(inbox / "_taken")
    assert json.loads(command(home.root, *request)[0])["remaining"] == []

    places = [
        shard(home, folder / name, "bert")
        for folder, name in (
            (inbox / "tuesday", "faces.tgz"),
            (inbox / "_done" / "r" / "monday", "faces.tar"),
            (home.root / ".dynamicid" / "inbox", "loose.tar.xz"),
            (home.root / "elsewhere", "old.tar.gz"),
        )
    ]
    shard(home, inbox / "wednesday" / "other.tar.gz", "carl")
    checkpoint = home.root / ".dynamicid" / "resume" / "train_imr" / "key" / "step-00000002"
    checkpoint.mkdir(parents=True)
    for again in (request, ("forget", "--again")):
        printed, message = command(home.root, *again, code=1)
        report = json.loads(printed)
        assert report["remaining"] == sorted(map(str, places))
        assert report["nothing_left"]
        assert "nothing was deleted: forgotten since" in message
        assert "nothing is left" not in message
    assert checkpoint.is_dir(), "nothing else is deleted for it"
    assert len(json.loads(command(home.root, *request, "--no-check", code=1)[0])["remaining"]) == 3, "all in inboxes"
    for file in places:
        file.unlink()
    assert "nothing is left to forget" in command(home.root, *request)[1]


def shard(home: Home, file: Path, person: str) -> Path:
    """Make an archive with the first photo of a person, without the name, at `file`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    kind = file.suffix.removeprefix(".").replace("tgz", "gz").replace("tar", "")
    with tarfile.open(file, f"w:{kind}") as archive:
        archive.add(home.source / person / "1.jpg", "1.jpg")
    return file
