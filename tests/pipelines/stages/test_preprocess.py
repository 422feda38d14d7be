"""The stage on real networks: one row per photo, the same bytes however work is divided, reasons, and resuming."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.cli import main
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.locks import hold, share
from pipelines.core.params import Params, load_params
from pipelines.core.row_schemas import DATASET_SCHEMA, PROCESSED_SCHEMA, read_rows
from pipelines.stages.preprocess import Inputs, Outputs, run
from tests.pipelines.awkward import AWKWARD, make_awkward_photos
from tests.pipelines.face_networks import save_face_network
from tests.pipelines.photos import Row, dataset_row, real_networks, write_shards

pytestmark = pytest.mark.realdata

_row = partial(dataset_row, source="a source")


def _write(folder: Path, shards: Iterable[list[Row]], row_group: int = 40) -> Path:
    return write_shards(folder, DATASET_SCHEMA, shards, row_group)


@pytest.fixture
def params(shared: Path, project: Path) -> Callable[..., Params]:
    """Parameters of the tiny profile with the real networks and changes."""

    def make(*changes: str) -> Params:
        return load_params(project / "profiles" / "tiny.yaml", [*real_networks(shared), *changes])

    return make


@pytest.fixture(scope="module")
def people(shared: Path) -> list[Row]:
    """Twelve photos of four people, two of them without an identity."""
    folder = shared / "photos" / "lfw10_krasserm"
    files = [file for person in sorted(folder.iterdir())[:4] for file in sorted(person.glob("*.jpg"))[:3]]
    rows = [_row(str(file.relative_to(folder)), file.read_bytes(), file.parent.name) for file in files]
    for row in rows[-2:]:
        row["identity"] = None
    rows[0] |= {"prompt": "a man in a suit", "face_prompt": "happy, facing the camera"}
    return rows


def _bytes(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_networks_that_do_not_know_the_photos_are_refused_before_the_work(
    people: list[Row], params: Callable[..., Params], project: Path, tmp_path: Path
) -> None:
    outputs = Outputs(tmp_path / "processed", tmp_path / "state")
    photos = Inputs(_write(tmp_path / "photos", [people]))
    with pytest.raises(UserError, match=r"photos: 1\d of 12 seem to be photographs: .*foundation-faces.*=photograph"):
        run(load_params(project / "profiles" / "tiny.yaml"), photos, outputs)
    drawn = Inputs(_write(tmp_path / "drawn", [[row | {"domain": "drawn"} for row in people]]))
    with pytest.raises(UserError, match=r"drawn: 12 are drawings: buffalo_real_mini .* know only photographs"):
        run(params(), drawn, outputs)
    assert not outputs.processed.exists()
    assert not outputs.state.exists()


def test_rows_do_not_depend_on_how_the_work_was_divided(
    people: list[Row], params: Callable[..., Params], tmp_path: Path
) -> None:
    one = _write(tmp_path / "one", [people])
    other = _write(tmp_path / "other", [people[7:][::-1], people[:7]], row_group=3)
    report = run(params(), Inputs(one), Outputs(tmp_path / "a" / "processed", tmp_path / "state-a"))
    assert (report.rows, report.ok, report.rejected, report.looked_at) == (12, 12, {}, 12)
    run(
        params("preprocess.slice_photos=5", "preprocess.master=local[1]"),
        Inputs(other),
        Outputs(tmp_path / "b", tmp_path / "state-b"),
    )
    first, second = _bytes(tmp_path / "a" / "processed"), _bytes(tmp_path / "b")
    assert sorted(first) == [f"part-{bucket:05d}.parquet" for bucket in range(4)]
    assert first == second
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [".processed.lock", "processed"]

    table = read_rows(tmp_path / "b", PROCESSED_SCHEMA)
    assert table.schema.equals(PROCESSED_SCHEMA)
    rows = table.to_pylist()
    assert sorted(row["image_id"] for row in rows) == sorted(row["image_id"] for row in people)
    assert all(len(row["embedding"]) == 512 and len(row["landmarks"]) == 136 for row in rows)
    assert {row["split"] for row in rows if row["identity"] is None} == {"train"}
    splits = {(row["identity"], row["split"]) for row in rows if row["identity"]}
    assert len(splits) == len({identity for identity, _ in splits})
    labelled = next(row for row in rows if row["prompt"] == "a man in a suit")
    assert (labelled["expression"], labelled["face_prompt"], labelled["source"]) == (
        "happy",
        "happy, facing the camera",
        "a source",
    )
    for part in (tmp_path / "b").iterdir():
        keys = [(row["identity"] or "~", row["file_name"]) for row in pq.read_table(part).to_pylist()]
        assert keys == sorted(keys)
    people_of = [set(pq.read_table(part)["identity"].to_pylist()) - {None} for part in (tmp_path / "b").iterdir()]
    assert sum(len(found) for found in people_of) == len(set.union(*people_of))


def test_finished_slices_are_not_looked_at_again(
    people: list[Row], params: Callable[..., Params], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    small = params("preprocess.slice_photos=4")
    faces = _write(tmp_path / "v1", [people[:8]], row_group=4)
    assert run(small, Inputs(faces), Outputs(tmp_path / "out", state)).looked_at == 8
    # Of a version with a further shard, only the photos of that shard are analysed.
    grown = _write(tmp_path / "v2", [people[:8], people[8:]], row_group=4)
    assert run(small, Inputs(grown), Outputs(tmp_path / "out", state)).looked_at == 4
    # A partial file, as a kill during writing leaves it, is not used; other buckets and splits cost no analysis.
    victim = min(state.glob("*.arrow"))
    victim.rename(state / f".{victim.name}.1.part")
    others = params("preprocess.slice_photos=4", "preprocess.buckets=2", "preprocess.test_share=0.5")
    assert run(others, Inputs(grown), Outputs(tmp_path / "out", state)).looked_at == 4
    kept = {file.name for file in state.iterdir() if file.suffix != ".arrow"}
    assert kept == {".lock", ".format.json", "buckets"}
    # A slice that a crash of the machine cut off is analysed again.
    victim.write_bytes(victim.read_bytes()[:1000])
    assert run(others, Inputs(grown), Outputs(tmp_path / "out", state)).looked_at == 4
    assert run(others, Inputs(grown), Outputs(tmp_path / "fresh", tmp_path / "fresh-state")).looked_at == 12
    assert _bytes(tmp_path / "fresh") == _bytes(tmp_path / "out")
    # Where a version replaces one photo and has other slices, only the new photo is analysed.
    new = {**people[3], "identity": "a new name", "prompt": "a new prompt", "file_name": "new.jpg"}
    copy = {**people[9], "file_name": "zz_copy.jpg"}
    mixed = _write(tmp_path / "mixed", [[*people[:2], new, *people[4:8]], [*people[8:], copy]], row_group=3)
    mixed_params = params("preprocess.slice_photos=3")
    report = run(mixed_params, Inputs(mixed), Outputs(tmp_path / "out", state))
    assert (report.rows, report.looked_at, report.rejected) == (12, 1, {"duplicate": 1})
    run(mixed_params, Inputs(mixed), Outputs(tmp_path / "fresh", tmp_path / "mixed-state"))
    assert _bytes(tmp_path / "fresh") == _bytes(tmp_path / "out")
    # What the first version needed is still there: runs delete nothing of each other.
    report = run(small, Inputs(faces), Outputs(tmp_path / "out", state))
    assert (report.looked_at, report.buckets_written) == (0, 0)


def test_two_weeks_at_once_share_their_results(
    people: list[Row], params: Callable[..., Params], tmp_path: Path
) -> None:
    state, lock = tmp_path / "state", UserError("taken")
    week_one = Inputs(_write(tmp_path / "one", [people[:8]]))
    week_two = Inputs(_write(tmp_path / "two", [people[:8], people[8:]]))
    with share(state / ".lock", lock):  # another run
        unfinished = state / ".another.1.part"
        unfinished.write_bytes(b"half a slice")
        assert run(params(), week_one, Outputs(tmp_path / "a", state)).looked_at == 8
        assert unfinished.exists(), "the other run is writing it"
        report = run(params(), week_two, Outputs(tmp_path / "b", state))
        assert (report.looked_at, report.rows) == (4, 12)
    again = run(params(), week_two, Outputs(tmp_path / "c", state))
    assert (again.looked_at, again.buckets_written) == (0, 0)
    assert not unfinished.exists()
    assert run(params(), week_one, Outputs(tmp_path / "d", state)).buckets_written == 0
    run(params(), week_two, Outputs(tmp_path / "fresh", tmp_path / "fresh-state"))
    assert _bytes(tmp_path / "fresh") == _bytes(tmp_path / "b") == _bytes(tmp_path / "c")
    assert _bytes(tmp_path / "d") == _bytes(tmp_path / "a")
    with hold(state / ".lock", lock), pytest.raises(StageFailed, match="`forget` or `clean` is at work there"):
        run(params(), week_one, Outputs(tmp_path / "a", state))
    with hold(tmp_path / ".a.lock", lock), pytest.raises(StageFailed, match="another preprocess run writes it"):
        run(params(), week_one, Outputs(tmp_path / "a", state))


def test_every_awkward_file_is_one_row_with_its_reason(
    shared: Path,
    params: Callable[..., Params],
    tmp_path: Path,
) -> None:
    source = shared / "photos" / "lfw10_krasserm" / "Tony_Blair" / "Tony_Blair_0001.jpg"
    folder = make_awkward_photos(tmp_path / "awkward", Image.open(source).crop((45, 20, 205, 234)))
    names = {os.fsencode(file.name): file for file in folder.iterdir()}
    rows = [
        _row(name.decode("latin-1").replace("é", "%E9"), file.read_bytes(), None)
        for name, file in sorted(names.items())
    ]
    assert {row["file_name"] for row in rows} == set(AWKWARD)
    faces = _write(tmp_path / "faces", [rows])
    report = run(
        params("preprocess.max_failed_share=0.5"), Inputs(faces), Outputs(tmp_path / "out", tmp_path / "state")
    )
    assert report.rows == len(AWKWARD)
    found = {row["file_name"]: row for row in read_rows(tmp_path / "out", PROCESSED_SCHEMA).to_pylist()}
    for name, expected in AWKWARD.items():
        assert found[name]["reason"] == expected.reason, name
        assert found[name]["status"] == ("rejected" if expected.reason else "ok"), name
        assert (found[name]["image"] is None) == (expected.reason is not None), name
    upright = np.asarray(Image.open(io.BytesIO(found["exif_rotated.jpg"]["image"])), int)
    plain = np.asarray(Image.open(io.BytesIO(found["caf%E9.jpg"]["image"])), int)
    assert np.abs(upright - plain).mean() < 12


def test_too_many_rejected_photos_fail_the_stage_and_leave_the_output(
    people: list[Row], params: Callable[..., Params], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "part-00000.parquet").write_text("what was there before")
    bad = [_row(f"{number}.jpg", f"text {number}".encode(), None) for number in range(2)]
    copies = [{**row, "file_name": f"copy/{row['file_name']}"} for row in people[:4]]
    faces = _write(tmp_path / "faces", [people[:4], bad, copies])
    with pytest.raises(StageFailed, match=r"2 of 10 photos rejected \(0\.200 > 0\.100.*2 unreadable, 4 duplicate"):
        run(params("preprocess.max_failed_share=0.1"), Inputs(faces), Outputs(out, tmp_path / "state"))
    assert _bytes(out) == {"part-00000.parquet": b"what was there before"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.lock", "faces", "out", "state"]
    # Copies are not failures, and results of the failed run are reused.
    report = run(params("preprocess.max_failed_share=0.3"), Inputs(faces), Outputs(out, tmp_path / "state"))
    assert (report.rejected, report.looked_at) == ({"unreadable": 2, "duplicate": 4}, 0)
    duplicates = {
        row["file_name"] for row in read_rows(out, PROCESSED_SCHEMA).to_pylist() if row["reason"] == "duplicate"
    }
    assert duplicates == {str(row["file_name"]) for row in people[:4]} or all("copy/" in name for name in duplicates)
    assert len(duplicates) == 4


def test_what_is_missing_is_named_before_spark_starts(
    people: list[Row], params: Callable[..., Params], tmp_path: Path
) -> None:
    faces = _write(tmp_path / "faces", [people[:1]])
    outputs = Outputs(tmp_path / "out", tmp_path / "state")
    with pytest.raises(UserError, match=r"models/nobody: no such folder"):
        run(params("preprocess.insightface_name=nobody"), Inputs(faces), outputs)
    with pytest.raises(UserError, match="clip_path is not set"):
        run(params("preprocess.captions={sources: [clip]}"), Inputs(faces), outputs)
    with pytest.raises(UserError, match=r"nowhere: no Parquet shards"):
        run(params(), Inputs(tmp_path / "nowhere"), outputs)
    refused = tmp_path / "verdict.json"
    with pytest.raises(UserError, match=r"verdict\.json: no such file"):
        run(params(), Inputs(faces, refused), outputs)
    refused.write_text('{"success": false}')
    with pytest.raises(StageFailed, match="refused by validate"):
        run(params(), Inputs(faces, refused), outputs)
    broken = tmp_path / "landmarks.onnx"
    broken.write_text("no network")
    with pytest.raises(UserError, match="no ONNX network"):
        run(params(f"preprocess.landmarker.path={broken}"), Inputs(faces), outputs)
    other = save_face_network(tmp_path / "other.onnx", np.zeros((3, 2)), softmax=True, classes="happy,contempt")
    for votes, message in (
        (f"expression={{networks: [{{path: {other}}}]}}", r"expression\.networks\[0\]\.path = .*\[3, 112, 112\]"),
        (
            f"expression={{networks: [{{path: {other}, size: 32}}]}}",
            "classes happy, contempt, expected each of neutral",
        ),
        (f"pose={{networks: [{{path: {other}, size: 32}}]}}", "2 outputs, expected one for each of yaw, pitch, roll"),
        (f"pose={{networks: [{{path: {tmp_path / 'gone.onnx'}}}]}}", r"gone\.onnx: no such file"),
    ):
        with pytest.raises(UserError, match=message):
            run(params(f"preprocess.{votes}"), Inputs(faces), Outputs(tmp_path / "out", tmp_path / "untouched"))
    assert not (tmp_path / "untouched").exists()
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="a dataset without a row"):
        run(params(), Inputs(_write(tmp_path / "empty", [[]])), outputs)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("to be kept")
    with pytest.raises(UserError, match=r"mine: would be replaced, but holds letter\.txt"):
        run(params(), Inputs(faces), Outputs(tmp_path / "mine", tmp_path / "state"))


def test_workers_get_absolute_paths(
    params: Callable[..., Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.stages.preprocess import _located

    save_face_network(tmp_path / "n.onnx", np.zeros((3, 2)))
    monkeypatch.chdir(tmp_path)
    votes = [f"preprocess.{name}={{networks: [{{path: n.onnx}}]}}" for name in ("expression", "pose")]
    section = _located(params(*votes).preprocess)
    networks = (*section.expression.networks, *section.pose.networks)
    assert [network.path for network in networks] == [str(tmp_path / "n.onnx")] * 2


@pytest.mark.nightly
def test_real_photos_are_told_apart_from_the_command_line(
    shared: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shared / "photos" / "lfw10_krasserm"
    files = sorted(folder.glob("*/*.jpg"))
    rows = [_row(str(file.relative_to(folder)), file.read_bytes(), file.parent.name) for file in files]
    faces = _write(tmp_path / "faces", [rows[:60], rows[60:]])
    monkeypatch.chdir(tmp_path)
    sets = [word for setting in real_networks(shared) for word in ("--set", setting)]
    with pytest.raises(SystemExit) as ended:
        main(["preprocess", str(faces), "--out", "processed", "--params", str(project / "params.yaml"), *sets])
    assert ended.value.code == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    seconds = report.pop("seconds")
    assert report == {"rows": 100, "ok": 100, "rejected": {}, "looked_at": 100, "buckets_written": 4}
    assert set(seconds) == {"decode", "detect", "landmarks", "embed", "caption", "encode"}
    assert min(seconds[part] for part in ("decode", "detect", "landmarks", "embed", "encode")) > 0
    assert "photos/s" in captured.err

    table = read_rows(tmp_path / "processed", PROCESSED_SCHEMA).to_pylist()
    assert sorted(row["image_id"] for row in table) == sorted(str(row["image_id"]) for row in rows)
    ok = [row for row in table if row["status"] == "ok"]
    embeddings = np.array([row["embedding"] for row in ok])
    who = np.array([row["identity"] for row in ok])
    likeness = embeddings @ embeddings.T
    pair = np.triu(np.ones(likeness.shape, bool), 1)
    same = who[:, None] == who[None, :]
    assert likeness[pair & same].mean() >= 0.60
    assert likeness[pair & ~same].mean() <= 0.06
