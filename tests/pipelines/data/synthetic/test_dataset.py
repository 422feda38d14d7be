"""Writing the dataset gives ordinary files and complete people, and draws nothing twice."""

import hashlib
from pathlib import Path

import pytest
from PIL import Image

from pipelines.core.errors import UserError
from pipelines.data.synthetic.dataset import MANIFEST, SCENES, chosen_scenes, person_scenes, write_dataset


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_photos_in_a_folder_per_identity_with_two_prompts(tmp_path: Path) -> None:
    out = tmp_path / "faces"
    assert write_dataset(1, out, size=32, workers=1) == 1
    folder = out / "demo-00000"
    assert len(list(folder.glob("*.jpg"))) == len(list(folder.glob("*.txt"))) == 35
    for number, scene in enumerate(person_scenes(0, 0, "demo")):
        assert (folder / f"{number}.txt").read_text().splitlines() == [scene.prompt, scene.face_prompt]
    with Image.open(folder / "3.jpg") as photo:
        assert photo.format == "JPEG"
        assert photo.size == (32, 32)
        assert not photo.getexif()


def test_a_second_write_draws_nothing_and_growth_adds_only_the_new(tmp_path: Path) -> None:
    out, other = tmp_path / "faces", tmp_path / "other"
    write_dataset(2, out, size=32, workers=2)
    before, stamps = digests(out), {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}
    assert write_dataset(2, out, size=32, workers=2) == 0
    assert write_dataset(3, out, size=32, workers=1) == 1
    after = digests(out)
    assert {name: after[name] for name in before} == before
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    write_dataset(3, other, size=32, workers=1)
    assert digests(other) == after


def test_with_fewer_photos_every_scene_is_equally_frequent(tmp_path: Path) -> None:
    out, full = tmp_path / "faces", tmp_path / "full"
    write_dataset(2, out, photos=9, size=32, workers=1)
    write_dataset(2, full, size=32, workers=1)
    few, every = digests(out), digests(full)
    assert len(few) == 2 * 9 * 2
    assert few == {name: every[name] for name in few}
    chosen = [chosen_scenes(index, 9) for index in range(SCENES)]
    assert {sum(number in numbers for numbers in chosen) for number in range(SCENES)} == {9}
    for numbers in chosen:
        assert {number // 5 for number in numbers} == set(range(7))
        assert {number % 5 for number in numbers} == set(range(5))
    with pytest.raises(UserError, match="photos 9, asked for 35"):
        write_dataset(2, out, size=32)
    with pytest.raises(UserError, match="photos 36"):
        write_dataset(2, tmp_path / "more", photos=36, size=32)


def test_an_interrupted_write_is_completed(tmp_path: Path) -> None:
    out = tmp_path / "faces"
    write_dataset(1, out, size=32, workers=1)
    whole = digests(out)
    half = out / ".demo-00000"
    (out / "demo-00000").rename(half)
    (half / "7.jpg").write_bytes(b"half a photo")
    assert write_dataset(1, out, size=32, workers=1) == 1
    assert digests(out) == whole


def test_other_arguments_and_other_folders_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "faces"
    write_dataset(2, out, size=32, workers=1)
    with pytest.raises(UserError, match="seed 0, asked for 1"):
        write_dataset(2, out, seed=1, size=32)
    with pytest.raises(UserError, match="size 32, asked for 64"):
        write_dataset(2, out, size=64)
    with pytest.raises(UserError, match="contains 2 people, asked for 1"):
        write_dataset(1, out, size=32)
    foreign = tmp_path / "holiday"
    foreign.mkdir()
    (foreign / "beach.jpg").write_bytes(b"photo")
    with pytest.raises(UserError, match="namespace demo, asked for dataset: choose another folder"):
        write_dataset(2, out, size=32, namespace="dataset")
    with pytest.raises(UserError, match=r"namespace mine: expected one of demo: .*; dataset: .*trained on them"):
        write_dataset(2, tmp_path / "mine", size=32, namespace="mine")
    with pytest.raises(UserError, match="not drawn by synthesize"):
        write_dataset(1, foreign)
    with pytest.raises(UserError, match="at least 1"):
        write_dataset(0, tmp_path / "none")


def test_truth_is_written_on_request(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    out, file = tmp_path / "faces", tmp_path / "truth.parquet"
    write_dataset(1, out, size=32, workers=1, truth=file)
    assert not list(out.rglob("*.parquet"))
    table = pq.read_table(file)
    assert table.num_rows == 35
    assert len(table["landmarks"][0].as_py()) == 136
    assert {str(path.relative_to(out)) for path in out.rglob("*.jpg")} == set(table["file_name"].to_pylist())


def test_the_command_line_draws_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pipelines.cli import main

    out = tmp_path / "faces"
    with pytest.raises(SystemExit) as done:
        main(["synthesize", "--identities", "1", "--out", str(out), "--size", "32", "--workers", "1"])
    assert done.value.code == 0
    assert (out / "demo-00000" / "34.jpg").is_file()
    with pytest.raises(SystemExit) as refused:
        main(["synthesize", "--identities", "1", "--out", str(out), "--size", "48"])
    assert refused.value.code == 2
    assert "drawn with size 32" in capsys.readouterr().err
