"""Each photo becomes one row; shards are deterministic, only appended, and complete after a kill."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
import unicodedata
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.cli import main
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.params import Params
from pipelines.core.row_schemas import DATASET_SCHEMA, read_rows
from pipelines.data.ingest.contents import read_contents
from pipelines.data.ingest.photo_files import FoundPhoto, Labels, Skipped
from pipelines.data.ingest.summary import Summary, UnmatchedLabels
from pipelines.stages.ingest import Inputs, Outputs, run
from tests.pipelines.awkward import AWKWARD


def photo(file: Path, seed: int, side: int = 40) -> Path:
    """A small picture of noise: as many bytes as its side asks for."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.frombytes("RGB", (side, side), random.Random(seed).randbytes(3 * side * side)).save(file, quality=95)
    return file


def people(folder: Path, count: int, each: int = 3, side: int = 40) -> Path:
    for person in range(count):
        for number in range(each):
            photo(folder / f"p{person:03d}" / f"{number}.jpg", person * 1000 + number, side)
    return folder


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def rows(folder: Path, *columns: str) -> list[dict]:
    return read_rows(folder, DATASET_SCHEMA, list(columns) or DATASET_SCHEMA.names).to_pylist()


def test_every_awkward_file_is_one_row(params: Params, awkward_photos: Path, tmp_path: Path) -> None:
    summary = run(params, Inputs(awkward_photos), Outputs(tmp_path / "faces"))
    found = {row["file_name"]: row for row in rows(tmp_path / "faces")}
    assert set(found) == set(AWKWARD)
    for name, expected in AWKWARD.items():
        row = found[name]
        assert (row["format"], row["width"], row["height"]) == (expected.format, expected.width, expected.height), name
        assert row["n_bytes"] == len(row["image"])
        assert row["identity"] is None
    assert summary.layout == "flat"
    assert (summary.rows, summary.unreadable_headers, summary.duplicates) == (10, 2, 1)
    assert found["cmyk.jpg"]["image_id"] == found["zz_copy_of_cmyk.jpg"]["image_id"]


def test_a_second_ingest_writes_nothing_and_new_photos_are_new_shards(params: Params, tmp_path: Path) -> None:
    source, faces = people(tmp_path / "photos", 4), tmp_path / "faces"
    assert run(params, Inputs(source), Outputs(faces)).new_rows == 12
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in faces.iterdir()}
    again = run(params, Inputs(source), Outputs(faces))
    assert (again.new_rows, again.known, again.rows) == (0, 12, 12)
    photo(source / "p000" / "0b.jpg", 77)  # sorts between rows that are there
    assert run(params, Inputs(source), Outputs(faces)).new_rows == 1
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before
    assert sorted(path.name for path in faces.iterdir()) == ["faces-00000.parquet", "faces-00001.parquet"]
    assert [row["file_name"] for row in rows(faces, "file_name")][-1] == "p000/0b.jpg"


def test_a_photo_that_changed_is_a_new_row_and_new_labels_are_told(params: Params, tmp_path: Path) -> None:
    source, faces = people(tmp_path / "photos", 2), tmp_path / "faces"
    run(params, Inputs(source), Outputs(faces))
    photo(source / "p000" / "0.jpg", 99)
    (source / "p001" / "1.txt").write_text("a woman in a red shirt\nhappy, facing the camera\n")
    summary = run(params, Inputs(source), Outputs(faces))
    assert (summary.new_rows, summary.known, summary.changed_labels) == (1, 5, 1)
    assert [row["file_name"] for row in rows(faces, "file_name")].count("p000/0.jpg") == 2


@pytest.mark.parametrize("name", ["Zo\u00eb", "\u1112\u1161\u11ab", "\u212bsa  Ber\u0301g"])
def test_folders_of_one_name_in_both_forms_of_unicode_are_one_person(params: Params, tmp_path: Path, name: str) -> None:
    for number, form in enumerate(("NFC", "NFD")):
        photo(tmp_path / "source" / unicodedata.normalize(form, name) / f"{number}.jpg", number)
    summary = run(params, Inputs(tmp_path / "source"), Outputs(tmp_path / "faces"))
    assert (summary.rows, summary.identities) == (2, 1)
    found = {row["identity"] for row in rows(tmp_path / "faces", "identity")}
    assert found == {" ".join(unicodedata.normalize("NFC", name).split())}


def test_shards_are_deterministic_and_small_enough(params: Params, tmp_path: Path) -> None:
    source = people(tmp_path / "photos", 5, 2, side=400)
    small = params.model_copy(update={"ingest": params.ingest.model_copy(update={"shard_mb": 1})})
    run(small, Inputs(source), Outputs(tmp_path / "one"))
    run(small, Inputs(source), Outputs(tmp_path / "two"))
    assert shards(tmp_path / "one") == shards(tmp_path / "two")
    assert len(shards(tmp_path / "one")) > 1
    assert max(map(len, shards(tmp_path / "one").values())) < 1.1 * 2**20
    names = [row["file_name"] for row in rows(tmp_path / "one", "file_name")]
    assert names == sorted(names)
    assert str(tmp_path).encode() not in b"".join(shards(tmp_path / "one").values())


def test_metadata_is_read_without_the_pictures(params: Params, tmp_path: Path) -> None:
    run(params, Inputs(people(tmp_path / "photos", 2, 2, side=300)), Outputs(tmp_path / "faces"))
    group = pq.read_metadata(tmp_path / "faces" / "faces-00000.parquet").row_group(0)
    sizes = {group.column(i).path_in_schema: group.column(i).total_compressed_size for i in range(group.num_columns)}
    assert sum(size for name, size in sizes.items() if name != "image") < 0.02 * sizes["image"]


def test_a_killed_ingest_leaves_a_readable_dataset_and_is_continued(
    project: Path, params: Params, tmp_path: Path
) -> None:
    source = people(tmp_path / "photos", 12, 4, side=300)  # some 130 KB each: several shards of 1 MB
    small = params.model_copy(update={"ingest": params.ingest.model_copy(update={"shard_mb": 1})})
    run(small, Inputs(source), Outputs(tmp_path / "whole"))
    killed = tmp_path / "killed"
    script = (
        "import os, sys, signal\n"
        "from pathlib import Path\n"
        "from pipelines.core.params import load_params\n"
        "from pipelines.stages import ingest\n"
        "row, count = ingest._row, 0\n"
        "def dying(*given):\n"
        "    global count\n"
        "    count += 1\n"
        "    if count == 25: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return row(*given)\n"
        "ingest._row = dying\n"
        "params = load_params(Path(sys.argv[1]), ['ingest.shard_mb=1'])\n"
        "ingest.run(params, ingest.Inputs(Path(sys.argv[2])), ingest.Outputs(Path(sys.argv[3])))\n"
    )
    command = [sys.executable, "-c", script, str(project / "profiles/tiny.yaml"), str(source), str(killed)]
    assert subprocess.run(command, cwd=project, capture_output=True, check=False).returncode == -9
    left = read_rows(killed, DATASET_SCHEMA).num_rows
    assert 0 < left < 25
    (killed / ".faces-00009.part").write_bytes(b"half a shard")
    run(small, Inputs(source), Outputs(killed))
    assert shards(killed) == shards(tmp_path / "whole")


def test_labels_of_the_whole_source_come_from_the_parameters(params: Params, tmp_path: Path) -> None:
    section = params.ingest.model_copy(update={"licence": "CC0", "source": "a camera"})
    run(
        params.model_copy(update={"ingest": section}),
        Inputs(people(tmp_path / "photos", 1)),
        Outputs(tmp_path / "faces"),
    )
    assert {(row["licence"], row["source"], row["consent"]) for row in rows(tmp_path / "faces")} == {
        ("CC0", "a camera", None)
    }


def test_what_cannot_be_ingested_is_refused_in_one_line(params: Params, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="no file in it that could be a photo"):
        run(params, Inputs(empty), Outputs(tmp_path / "faces"))
    with pytest.raises(UserError, match="no such folder"):
        run(params, Inputs(tmp_path / "absent"), Outputs(tmp_path / "faces"))
    source = people(tmp_path / "photos", 1)
    with pytest.raises(UserError, match="is in the source"):
        run(params, Inputs(source), Outputs(source / "faces"))
    (empty / "notes.md").write_text("nothing to see")
    with pytest.raises(StageFailed, match=r"no photo in it .*1 not a picture"):
        run(params, Inputs(empty), Outputs(tmp_path / "other"))
    assert not list((tmp_path / "other").iterdir())


def test_a_file_above_the_limit_is_left_out_and_listed(params: Params, tmp_path: Path) -> None:
    source = people(tmp_path / "photos", 1)
    with (source / "p000" / "big.jpg").open("wb") as file:
        file.truncate(3 * 2**20)
    section = params.ingest.model_copy(update={"max_file_mb": 2})
    summary = run(params.model_copy(update={"ingest": section}), Inputs(source), Outputs(tmp_path / "faces"))
    assert summary.rows == 3
    assert summary.skipped_files == [{"file_name": "p000/big.jpg", "reason": "larger than ingest.max_file_mb"}]


def test_two_ingests_at_once_into_one_folder_are_refused(params: Params, tmp_path: Path) -> None:
    from filelock import FileLock

    source = people(tmp_path / "photos", 1)
    with FileLock(tmp_path / ".faces.lock"), pytest.raises(StageFailed, match="another ingest"):
        run(params, Inputs(source), Outputs(tmp_path / "faces"))


def test_a_photo_that_vanishes_while_it_is_read_is_told(tmp_path: Path) -> None:
    gone = FoundPhoto("gone.jpg", str(tmp_path / "gone.jpg"), 10, Labels())
    assert list(read_contents([gone], 100)) == [Skipped("gone.jpg", "missing")]


@pytest.mark.realdata
def test_real_photos_are_rows_in_seconds(params: Params, shared: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    summary = run(params, Inputs(shared / "photos" / "lfw10_krasserm"), Outputs(tmp_path / "faces"))
    assert time.monotonic() - started < 10
    assert (summary.rows, summary.identities, summary.formats, summary.skipped) == (100, 10, {"JPEG": 100}, {})
    everything = run(params, Inputs(shared / "photos", identity_depth=2), Outputs(tmp_path / "all"))
    files = [path for path in (shared / "photos").rglob("*") if path.is_file()]
    tables = [path for path in files if path.suffix in (".csv", ".json")]  # joined to the photos that they name
    assert everything.rows + sum(everything.skipped.values()) + len(tables) == len(files)
    assert (everything.labels["licence"], everything.unmatched) == (everything.rows, {})
    assert json.dumps(asdict(everything))


def test_labels_that_reach_no_row_add_nothing_unless_accepted(params: Params, tmp_path: Path) -> None:
    source, faces = people(tmp_path / "photos", 2), tmp_path / "faces"
    (source / "p000" / "9.txt").write_text("text of a missing photo")
    with pytest.raises(UnmatchedLabels, match=r"1 label does not reach a row \(p000/9.txt: text without"):
        run(params, Inputs(source), Outputs(faces))
    assert not faces.exists()
    summary = run(params, Inputs(source, accept_unmatched=True), Outputs(faces))
    assert (summary.rows, summary.labels) == (6, {"identity": 6})
    assert [item["label"] for item in summary.unmatched_labels] == ["p000/9.txt"]


def test_a_consent_given_with_the_command_for_known_photos_is_named_where_it_differs(
    params: Params, tmp_path: Path
) -> None:
    source, faces = people(tmp_path / "photos", 2), tmp_path / "faces"

    def ingest(consent: str | None) -> Summary:
        section = params.ingest.model_copy(update={"consent": consent})
        return run(params.model_copy(update={"ingest": section}), Inputs(source), Outputs(faces))

    ingest("granted")
    assert [ingest(consent).known for consent in ("granted", None)] == [6, 6]
    with pytest.raises(UnmatchedLabels, match="the photo is known with another consent"):
        ingest("withdrawn")


def test_the_summary_counts_each_photo_that_is_refused_once(params: Params, tmp_path: Path) -> None:
    source, faces = people(tmp_path / "photos", 2), tmp_path / "faces"
    refused = (source / "p001" / "1.jpg").read_bytes()
    (source / "p001" / "1.json").write_text('{"consent": "refused"}')
    for name, consent in (("a.jpg", "granted"), ("b.jpg", None), ("c.jpg", "withdrawn")):
        (source / "p000" / name).write_bytes(refused)
        (source / "p000" / name).with_suffix(".json").write_text(json.dumps({"consent": consent}))
    summary = run(params, Inputs(source), Outputs(faces))
    assert (summary.rows, summary.duplicates) == (9, 3)
    assert summary.not_permitted == {"consent denied": 1}


def test_a_known_photo_that_comes_with_another_consent_is_named(params: Params, tmp_path: Path) -> None:
    source, faces = people(tmp_path / "photos", 2), tmp_path / "faces"
    label = source / "p001" / "1.json"
    label.write_text('{"consent": "pending"}')
    refused = run(params, Inputs(source), Outputs(tmp_path / "refused"))
    assert refused.not_permitted == {"consent not allowed": 1}
    label.write_text('{"consent": "granted"}')
    run(params, Inputs(source), Outputs(faces))
    before = shards(faces)
    again = run(params, Inputs(source), Outputs(faces))
    assert (again.known, again.labels["consent"], again.not_permitted) == (6, 1, {})
    label.write_text('{"consent": "withdrawn"}')
    photo(source / "p002" / "1.jpg", 5)
    with pytest.raises(UnmatchedLabels, match=r"p001/1.jpg: the photo is known with another consent"):
        run(params, Inputs(source), Outputs(faces))
    assert shards(faces) == before


def ends_with(command: list[str]) -> object:
    """Run a command of the command line and return its exit code."""
    with pytest.raises(SystemExit) as end:
        main(command)
    return end.value.code or 0


def test_the_command_prints_the_summary_of_labels_that_are_not_joined(
    params: Params, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = people(tmp_path / "photos", 1)
    (source / "labels.csv").write_text("file_name,identity\np000/0.jpg,anna\np000/7.jpg,anna\n")
    command = ["ingest", str(source), "--out", str(tmp_path / "faces"), "--params", str(project / "profiles/tiny.yaml")]
    assert ends_with([*command, "--layout", "identity-folders"]) == 1
    printed = capsys.readouterr()
    summary = json.loads(printed.out)
    assert summary["unmatched"] == {"missing": 1}
    assert summary["unmatched_labels"] == [{"label": "labels.csv[2]", "file_name": "p000/7.jpg", "reason": "missing"}]
    assert "not joined: labels.csv[2] of p000/7.jpg: missing" in printed.err
    assert ends_with([*command, "--layout", "identity-folders", "--accept-unmatched"]) == 0
    assert ends_with(command) == 2
