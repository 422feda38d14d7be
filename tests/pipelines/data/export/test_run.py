"""The rows that an export includes and excludes, its errors, and its record."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest

from pipelines.cli import main
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.row_schemas import DATASET_SCHEMA, PROCESSED_SCHEMA
from pipelines.core.sections.data import Export, Parsing, Rights
from pipelines.data.export.rows import Selection
from pipelines.data.export.run import LAYOUTS, Inputs, export
from pipelines.versions.places import known_copies
from tests.pipelines.photos import write_shards

from .conftest import ROWS, Data, files_of, processed_row, row


def test_only_permitted_or_selected_rows_are_exported(data: Data, tmp_path: Path) -> None:
    inputs = Inputs(data.faces, data.processed)
    done = export("webdataset", inputs, tmp_path / "permitted", data.params.export, Selection(Rights()))
    assert (done.photos, done.left_out) == (4, {"consent denied": 1})
    done = export("variface", inputs, tmp_path / "anna", data.params.export, Selection(identities=frozenset(["anna"])))
    assert (done.photos, done.left_out) == (2, {"other people": 3})
    done = export("consistentid", inputs, tmp_path / "consistentid", data.params.export, Selection(Rights()))
    assert (done.photos, done.left_out) == (3, {"consent denied": 1, "rejected: no_face": 1})
    names = set(files_of(tmp_path / "consistentid"))
    assert not any("bert/a" in name for name in names)
    assert "origin_IMG/bert/1.jpg" in names


def test_a_photo_that_came_again_with_a_refusal_is_not_exported_as_permitted(data: Data, tmp_path: Path) -> None:
    rows = [row(0, "a/1.jpg", "a"), row(1, "a/2.jpg", "a"), {**row(0, "again/1.jpg", "a"), "consent": "withdrawn"}]
    faces = write_shards(tmp_path / "faces", DATASET_SCHEMA, [rows])
    inputs = Inputs(faces, data.processed)
    done = export("webdataset", inputs, tmp_path / "out", data.params.export, Selection(Rights()))
    assert (done.photos, done.left_out) == (
        1,
        {"consent denied": 1, "consent refused for the same photo elsewhere": 1},
    )


@pytest.mark.parametrize("layout", ["variface", "webdataset", "consistentid"])
def test_two_photos_of_one_name_are_both_kept(data: Data, tmp_path: Path, layout: str) -> None:
    # One file that changed between two ingests, and one whose name differs from another only in the suffix.
    twins = [row(0, "a/1.jpg", "a"), row(1, "a/1.jpg", "a"), row(2, "a/1.png", "a", "PNG")]
    write_shards(tmp_path / "faces", DATASET_SCHEMA, [twins])
    rows = [processed_row(number, item) for number, item in enumerate(twins)]
    processed = write_shards(tmp_path / "processed", PROCESSED_SCHEMA, [rows])
    out = tmp_path / "out"
    export(layout, Inputs(tmp_path / "faces", processed), out, data.params.export, Selection())
    if layout == "webdataset":
        with tarfile.open(out / "faces-000000.tar") as archive:
            files = {name: archive.extractfile(name).read() for name in archive.getnames()}
    else:
        files = {name: body for name, body in files_of(out).items() if "resize" not in name}
    bodies = [body for name, body in files.items() if name.endswith((".jpg", ".png"))]
    assert sorted(bodies) == sorted(item["image"] for item in twins)
    if layout != "consistentid":
        texts = sorted(body for name, body in files.items() if name.endswith(".txt"))
        assert texts == [f"person {number} in a park\n".encode() for number in range(3)]


def test_shards_are_cut_at_their_size(tmp_path: Path, data: Data) -> None:
    bodies = [np.random.default_rng(number).bytes(400_000) for number in range(5)]
    rows = [row(number, f"{number}.jpg", None, image=body) for number, body in enumerate(bodies)]
    write_shards(tmp_path / "faces", DATASET_SCHEMA, [rows])
    for layout, pattern in (("webdataset", "*.tar"), ("huggingface", "data/*.parquet")):
        out = tmp_path / layout
        export(layout, Inputs(tmp_path / "faces", data.processed), out, Export(shard_mb=1), Selection())
        assert len(list(out.glob(pattern))) == 3
    assert (tmp_path / "huggingface" / "data" / "train-00002-of-00003.parquet").is_file()


def test_errors_are_reported_and_leave_no_files(data: Data, tmp_path: Path) -> None:
    inputs = Inputs(data.faces, data.processed)
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("kept")
    with pytest.raises(UserError, match="not empty"):
        export("variface", inputs, full, data.params.export, Selection())
    assert (full / "mine.txt").read_text() == "kept"
    with pytest.raises(UserError, match="expected one of sidecars"):
        export("zip", inputs, tmp_path / "out", data.params.export, Selection())
    with pytest.raises(UserError, match="is in the dataset"):
        export("variface", inputs, data.faces / "out", data.params.export, Selection())
    for layout in LAYOUTS:
        for names, near in ((["zoe"], ""), (["Anna", "bert"], "; did you mean anna?")):
            message = re.escape(f"--identity {names[0]}: no photo of such a person{near}; nothing was written")
            with pytest.raises(UserError, match=message):
                export(layout, inputs, tmp_path / "out", data.params.export, Selection(identities=frozenset(names)))
        nobody = Selection(identities=frozenset(["anna"]), gate=lambda identity, image_id: "forgotten on request")
        with pytest.raises(StageFailed, match=r"no row to export .*forgotten on request"):
            export(layout, inputs, tmp_path / "out", data.params.export, nobody)
    parsing = Export(parsing=Parsing(path="missing.onnx"))
    with pytest.raises(UserError, match=r"missing\.onnx: no such file"):
        export("consistentid", inputs, tmp_path / "out", parsing, Selection())
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    parsing = Export(parsing=Parsing(path=str(tmp_path / "bad.onnx")))
    with pytest.raises(UserError, match="cannot be loaded as an ONNX network"):
        export("consistentid", inputs, tmp_path / "out", parsing, Selection())
    other = write_shards(tmp_path / "other", DATASET_SCHEMA, [ROWS[:1]])
    with pytest.raises(StageFailed, match=r"4 photos of .* not in .*different versions"):
        export("consistentid", Inputs(other, data.processed), tmp_path / "out", data.params.export, Selection())
    assert sorted(path.name for path in tmp_path.iterdir() if "out" in path.name) == []


def test_the_command_records_the_copy(
    data: Data, tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main_arguments = ["export", "--layout", "variface", "--out", "copy", "--permitted"]
    with pytest.raises(SystemExit) as ended:
        main([*main_arguments, "--params", str(project / "profiles" / "tiny.yaml")])
    assert ended.value.code == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"layout": "variface", "photos": 4, "left_out": {"consent denied": 1}}
    assert "4 photos as variface; left out: 1 consent denied" in printed.err
    assert [(copy.folder, copy.what) for copy in known_copies(tmp_path)] == [
        (str(tmp_path / "copy"), "export, variface")
    ]
