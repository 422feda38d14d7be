"""Reading processed rows for training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.face.face_prompts import EXPRESSIONS, POSES
from model.training.photos import UNKNOWN
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.row_schemas import LATER_COLUMNS, PROCESSED_SCHEMA, photo_keys
from pipelines.core.sections.data import Consent, Rights, Term
from pipelines.data.training_data import permitted_photos, read_photos
from tests.pipelines.photos import Row, accepted_row, encoded, write_shards


def row(number: int, **changes: object) -> Row:
    picture = np.full((8, 8, 3), (10 * number % 250, 80, 200), np.uint8)
    image = {"identity": f"p{number // 2}", "image": encoded(picture, "PNG")}
    labels = {"yaw": 58.0, "expression": "sad", "prompt": f"prompt {number % 2}"}
    return accepted_row(number, **{**image, **labels, **changes})


def write(folder: Path, *shards: list[Row]) -> Path:
    return write_shards(folder, PROCESSED_SCHEMA, shards)


def test_usable_photos_of_the_split_in_order(tmp_path: Path) -> None:
    rejected = row(7, status="rejected", reason="blurred", image=None, bbox=None, keypoints=None, landmarks=None)
    folder = write(tmp_path / "p", [row(0), row(5, split="val"), row(1)], [rejected, row(4, identity=None), row(3)])
    photos = read_photos(folder, "train")
    assert len(photos) == 4
    assert list(photos.people) == ["p0", "p1"]
    assert photos.person.tolist() == [0, 0, UNKNOWN, 1]
    assert [photos.prompts[number] for number in photos.prompt] == ["prompt 0", "prompt 1", "prompt 0", "prompt 1"]
    assert [rows.tolist() for rows in photos.by_person()] == [[0, 1], [3]]
    assert len(read_photos(folder, "val")) == 1
    assert len(read_photos(folder, "test")) == 0


def test_content_is_read_for_the_positions_asked_for(tmp_path: Path) -> None:
    folder = write(tmp_path / "p", [row(number) for number in range(3)], [row(number) for number in range(3, 6)])
    photos = read_photos(folder, "train")
    found = list(photos.content(np.array([1, 3, 5])))
    for number, photo in zip([1, 3, 5], found, strict=True):
        assert photo.image[0, 0].tolist() == [10 * number, 80, 200]
        np.testing.assert_allclose(photo.landmarks.ravel(), row(number)["landmarks"], rtol=1e-6)
        assert photo.keypoints.shape == (5, 2)
        np.testing.assert_allclose(photo.embedding, row(number)["embedding"], rtol=1e-5)


def test_the_pose_is_that_of_the_face_prompt_or_the_measured_one(tmp_path: Path) -> None:
    folder = write(tmp_path / "p", [row(0, face_prompt="happy, slightly turned to the left"), row(1)])
    photos = read_photos(folder, "train")
    assert [POSES[number] for number in photos.pose] == ["half_left", "right"]
    assert [EXPRESSIONS[number] for number in photos.expression] == ["sad", "sad"]


def test_keys_and_digest_follow_the_content_not_the_shards(tmp_path: Path) -> None:
    one = read_photos(write(tmp_path / "a", [row(0), row(1)]), "train")
    other = read_photos(write(tmp_path / "b", [row(0)], [row(1)]), "train")
    assert one.digest() == other.digest()
    moved = read_photos(write(tmp_path / "c", [row(0), row(1, bbox=[0.0, 0.0, 1.0, 1.0])]), "train")
    assert (moved.keys[0] == one.keys[0]).all()
    assert (moved.keys[1] != one.keys[1]).any()
    renamed = read_photos(write(tmp_path / "d", [row(0), row(1, identity="q")]), "train")
    assert (renamed.keys == one.keys).all()
    assert len({one.digest(), moved.digest(), renamed.digest()}) == 3


def test_keys_that_were_written_are_read_without_the_pictures(tmp_path: Path) -> None:
    folder = write(tmp_path / "p", [row(number) for number in range(4)])
    computed = read_photos(folder, "train")
    file = folder / "shard-00000.parquet"
    rows = pq.read_table(file)
    keys = pa.array([key.hex() for key in photo_keys(rows)])
    # Pictures that nobody can read: a start that reads them fails.
    unread = pa.array([None] * rows.num_rows, pa.binary())
    for name, column in (("photo_key", keys), ("image", unread)):
        rows = rows.set_column(rows.schema.get_field_index(name), name, column)
    pq.write_table(rows, file)
    assert read_photos(folder, "train").digest() == computed.digest()


@settings(max_examples=10, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=st.lists(st.integers(0, 11), unique=True), second=st.lists(st.integers(0, 11), unique=True))
def test_content_is_that_of_the_row_in_any_row_group(first: list[int], second: list[int], tmp_path: Path) -> None:
    folder = tmp_path / "p"
    if not folder.exists():
        rows = [row(number) for number in range(12)]
        write_shards(folder, PROCESSED_SCHEMA, [rows[:5], rows[5:]], row_group=2)
    photos = read_photos(folder, "train")
    for chosen in (sorted(first), sorted(second)):  # the second finds some in memory
        found = photos.content(np.array(chosen, np.int64))
        assert [int(photo.image[0, 0, 0]) for photo in found] == [10 * number for number in chosen]


def test_errors_are_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no Parquet shards found"):
        read_photos(tmp_path, "train")
    folder = write(tmp_path / "p", [row(0, expression="bored")])
    with pytest.raises(UserError, match="expression 'bored' is none of"):
        read_photos(folder, "train")


def test_open_labels_are_unknown_and_no_prompt_is_the_empty_text(tmp_path: Path) -> None:
    rows = [
        row(0, expression=None, pose=None, pose_source="a network", prompt=None, face_prompt=None),
        row(1, expression="happy", pose="left", pose_source="a network", yaw=0.0),
    ]
    photos = read_photos(write(tmp_path / "p", rows), "train")
    assert photos.expression.tolist() == [UNKNOWN, EXPRESSIONS.index("happy")]
    assert photos.pose.tolist() == [UNKNOWN, POSES.index("left")]
    assert photos.prompts[photos.prompt[0]] == ""


def test_rows_of_an_older_format_have_the_pose_of_their_angle(tmp_path: Path) -> None:
    older = pa.schema([field for field in PROCESSED_SCHEMA if field.name not in LATER_COLUMNS])
    folder = write_shards(tmp_path / "p", older, [[row(0)]])
    assert [POSES[number] for number in read_photos(folder, "train").pose] == ["right"]


def test_refused_photos_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        row(0, consent="granted", licence="CC-BY-4.0"),
        row(1, consent="withdrawn 2026-01-01", licence="CC-BY-4.0"),
        row(2, consent="granted", licence="all rights reserved"),
        row(3, consent="granted"),
        row(4, consent="refused", split="test"),
        row(5, consent="granted", licence="cc-by-4.0", split="val"),
    ]
    folder = write(tmp_path / "p", rows[:2], rows[2:])
    rights = Rights(licence=Term(allow=("CC-BY*",)))
    found = permitted_photos(folder, ("train", "val"), rights)["train"]
    assert found.photos.keys.tolist() == read_photos(folder, "train").keys[:1].tolist()
    assert [photo.image[0, 0, 0] for photo in found.photos.content(np.array([0]))] == [0]
    assert found.left_out == {"consent denied": 1, "licence not allowed": 1, "licence unknown": 1}
    assert found.refused == 3
    assert "split train: 3 of 4 photos may not be trained on" in (printed := capsys.readouterr().err)
    assert "split val" not in printed


def test_a_photo_that_any_of_its_rows_refuses_is_left_out(tmp_path: Path) -> None:
    first, other = row(0, consent="granted"), row(1, consent="granted")
    again = {"image_id": first["image_id"], "consent": "refused", "status": "rejected", "reason": "duplicate"}
    folder = write(tmp_path / "p", [first, other], [row(2, split=None, **again)])
    found = permitted_photos(folder, ("train",), Rights())["train"]
    assert found.photos.keys.tolist() == read_photos(folder, "train").keys[1:].tolist()
    assert found.left_out == {"consent refused for the same photo elsewhere": 1}


def test_a_policy_that_leaves_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    folder = write(tmp_path / "p", [row(0), row(1), row(2, split="val")])
    rights = Rights(consent=Consent(unknown="deny"))
    with pytest.raises(StageFailed, match=r"2 of 2 photos may not be trained on.*2 consent unknown"):
        permitted_photos(folder, ("train",), rights)
    assert len(permitted_photos(folder, ("val",), rights)["val"].photos) == 0
