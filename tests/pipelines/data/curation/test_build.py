"""Curate drawn people, copies and unusable files, with the networks of the tiny profile."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from pipelines.cli import main
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.params import Params, load_params
from pipelines.data.curation.build import REPORT, STATE, TABLE, Inputs, Outputs, Report, run
from pipelines.data.curation.records import FACES_SCHEMA, LEFT_OUT, REASONS, SELECTED
from pipelines.data.ingest.layout import open_source
from pipelines.data.ingest.photo_files import Unmatched
from pipelines.data.synthetic.dataset import person_scenes
from pipelines.data.synthetic.draw import render
from pipelines.data.synthetic.person import Person
from pipelines.operations.forgetting.local import clean_tables, find_tables
from pipelines.operations.forgetting.subject import Subject
from pipelines.versions.places import known_copies

PEOPLE, PHOTOS = (0, 1, 3), 6
CHOSEN = "curate.similarity={value: 0.5, recogniser: c015bfc8969a}"


@pytest.fixture(scope="module")
def params(project: Path) -> Params:
    return load_params(
        project / "profiles/tiny.yaml",
        ["preprocess.master=local[1]", CHOSEN, "curate.min_photos=4", "curate.max_photos=5"],
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photos of each of three people, one photo of two people, copies and unusable files."""
    folder = tmp_path_factory.mktemp("photos") / "photos"
    (folder / "more").mkdir(parents=True)
    pictures = {
        (index, number): render(
            Person.sample("dataset", 0, index), person_scenes(0, index)[7 + 5 * number // 2], 128
        ).image
        for index in PEOPLE
        for number in range(PHOTOS)
    }
    for (index, number), picture in pictures.items():
        _save(picture, folder / f"{number}{index}.jpg")
    _save(render(Person.sample("dataset", 0, 9), person_scenes(0, 9)[2], 128).image, folder / "stranger.jpg")
    (folder / "more/copy.jpg").write_bytes((folder / "01.jpg").read_bytes())
    _save(
        np.asarray(Image.fromarray(pictures[3, 1]).resize((256, 256), Image.Resampling.LANCZOS)),
        folder / "more/again.jpg",
        80,
    )
    _save(np.hstack([pictures[0, 0], pictures[1, 1]]), folder / "more/both.jpg")
    _save(np.full((128, 128, 3), 90, np.uint8), folder / "more/empty-wall.jpg")
    (folder / "more/cut.jpg").write_bytes((folder / "00.jpg").read_bytes()[:900])
    (folder / "more/none.jpg").write_bytes(b"")
    (folder / "readme.md").write_text("no photo")
    (folder / "00.txt").write_text("a woman on a beach\nsad, facing the camera\n")
    consents = [f"{number}0.jpg,pending" for number in range(PHOTOS)]
    (folder / "consents.csv").write_text("\n".join(["file_name,consent", *consents]))
    return folder


def _save(image: np.ndarray, file: Path, quality: int = 92) -> None:
    Image.fromarray(image).save(file, quality=quality)


@pytest.fixture(scope="module")
def curated(params: Params, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Report]:
    """The output folder, the state folder and the report of one run."""
    root = tmp_path_factory.mktemp("curated")
    report = run(params, Inputs(photos), Outputs(root / "set", root / "state"))
    return root / "set", root / "state", report


def test_every_photo_is_accounted_for(curated: tuple[Path, Path, Report], photos: Path) -> None:
    out, _, report = curated
    table = pq.read_table(out / TABLE)
    assert table.schema.names == FACES_SCHEMA.names
    rows = table.to_pylist()
    assert {row["file_name"] for row in rows} == {file.relative_to(photos).as_posix() for file in photos.rglob("*.jpg")}
    for row in rows:
        assert row["status"] == (SELECTED if row["reason"] is None else LEFT_OUT)
        assert row["reason"] is None or row["reason"] in REASONS
        assert (row["selected_file"] is not None) == (row["status"] == SELECTED)
    assert report.photos == report.looked_at == 3 * PHOTOS + 7
    assert report.selected == sum(row["status"] == SELECTED for row in rows)
    assert sum(report.left_out.values()) == len(rows) - report.selected


def test_unusable_files_and_copies_are_left_out_with_a_reason(curated: tuple[Path, Path, Report]) -> None:
    rows = pq.read_table(curated[0] / TABLE).to_pylist()
    reasons = {row["file_name"]: row["reason"] for row in rows if row["face_index"] in (None, 0)}
    assert reasons["more/copy.jpg"] == "duplicate"
    assert reasons["more/cut.jpg"] == "truncated"
    assert reasons["more/none.jpg"] == "empty"
    assert reasons["more/empty-wall.jpg"] == "no_face"
    assert reasons["stranger.jpg"] == "too_few"
    assert sorted([reasons["more/again.jpg"], reasons["13.jpg"]], key=str)[-1] == "near_duplicate"


def test_every_person_is_one_identity(curated: tuple[Path, Path, Report]) -> None:
    pairs = {
        (row["file_name"][1], row["identity"])
        for row in pq.read_table(curated[0] / TABLE).to_pylist()
        if "/" not in row["file_name"] and row["identity"] and row["file_name"] != "stranger.jpg"
    }
    assert len(pairs) == len({person for person, _ in pairs}) == len({identity for _, identity in pairs}) == 3


def test_ingest_reads_the_curated_set(curated: tuple[Path, Path, Report], photos: Path) -> None:
    out, _, report = curated
    source = open_source(out)
    assert source.layout == "identity-folders"
    items = list(source.read(2**20))
    assert not any(isinstance(item, Unmatched) for item in items)
    found = [item for item in items if hasattr(item, "labels")]
    assert len(found) == report.selected
    assert len({item.labels.identity for item in found}) == report.identities == 3
    assert all(item.labels.prompt and item.labels.face_prompt for item in found)
    rows = {row["selected_file"]: row for row in pq.read_table(out / TABLE).to_pylist() if row["selected_file"]}
    for item in found:
        row = rows[item.file_name]
        assert (row["identity"], row["prompt"], row["face_prompt"]) == (
            item.labels.identity,
            item.labels.prompt,
            item.labels.face_prompt,
        )
        assert item.labels.consent == ("pending" if row["file_name"][1:] == "0.jpg" else None)
        if "both" not in row["file_name"]:
            assert (out / item.file_name).read_bytes() == (photos / row["file_name"]).read_bytes()


def test_a_face_beside_another_is_cut_out(curated: tuple[Path, Path, Report]) -> None:
    out = curated[0]
    both = [row for row in pq.read_table(out / TABLE).to_pylist() if row["file_name"] == "more/both.jpg"]
    assert len(both) == 2
    assert len({row["identity"] for row in both}) == 2
    for row in both:
        assert row["reason"] in (None, "near_duplicate", "enough", "crowded")
        if row["selected_file"]:
            with Image.open(io.BytesIO((out / row["selected_file"]).read_bytes())) as picture:
                assert picture.width <= 132


def test_the_report_is_self_contained(curated: tuple[Path, Path, Report]) -> None:
    page = (curated[0] / REPORT).read_text(encoding="utf-8")
    assert "http" not in page
    assert page.count("data:image/jpeg;base64,") >= curated[2].selected
    for reason in curated[2].left_out:
        assert f"<h3>{reason} <small>" in page
    assert "more/empty-wall.jpg" in page


def test_a_second_run_analyses_only_new_photos(
    curated: tuple[Path, Path, Report], params: Params, photos: Path, tmp_path: Path
) -> None:
    out, state, _ = curated
    again = run(params, Inputs(photos), Outputs(tmp_path / "set", state))
    assert again.looked_at == 0
    assert (tmp_path / "set" / TABLE).read_bytes() == (out / TABLE).read_bytes()
    names = [name for part in state.rglob("*.parquet") for name in pq.read_table(part)["file_name"].to_pylist()]
    assert len(set(names)) == again.photos


def test_the_earlier_set_is_kept_if_no_person_has_enough_photos(
    curated: tuple[Path, Path, Report], params: Params, photos: Path
) -> None:
    out, state, _ = curated
    before = sorted(file.name for file in out.iterdir())
    strict = params.model_copy(update={"curate": params.curate.model_copy(update={"min_photos": 30, "max_photos": 35})})
    with pytest.raises(StageFailed, match=r"no person has 30 usable photos; left out: .* too_few"):
        run(strict, Inputs(photos), Outputs(out, state))
    assert sorted(file.name for file in out.iterdir()) == before


def test_an_output_folder_with_other_files_is_refused(params: Params, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(UserError, match="contains other files"):
        run(params, Inputs(photos), Outputs(tmp_path, tmp_path / "state"))
    with pytest.raises(UserError, match="is inside the source"):
        run(params, Inputs(photos), Outputs(photos / "set", tmp_path / "state"))
    assert (tmp_path / "mine.txt").read_text() == "keep me"


@pytest.fixture
def home(
    curated: tuple[Path, Path, Report], params: Params, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A working directory for the command: parameters, networks and the state of an earlier run."""
    shutil.copytree(curated[1], tmp_path / STATE)
    (tmp_path / "model").symlink_to(project / "model")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json", by_alias=True)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_forgetting_finds_everything_that_the_command_stores(
    home: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["curate", str(photos), "--out", "set"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["looked_at"] == 0
    assert [(copy.folder, copy.what) for copy in known_copies(home)] == [(str(home / "set"), "curate")]
    image_id = next(row["image_id"] for row in pq.read_table(home / "set" / TABLE).to_pylist() if row["image_id"])
    subject = Subject(frozenset(), frozenset([image_id]))
    tables = find_tables(home, subject, set())
    assert any(file.is_relative_to(home / STATE) for file in tables)
    clean_tables(home, tables, subject)
    assert find_tables(home, subject, set()) == {}
