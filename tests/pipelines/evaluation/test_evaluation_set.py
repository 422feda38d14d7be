from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.face.face_prompts import EXPRESSIONS, POSES
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.row_schemas import PROCESSED_SCHEMA, read_rows
from pipelines.core.sections.data import Consent, Rights
from pipelines.core.sections.evaluation import SeveralPeople
from pipelines.evaluation.evaluation_set import MOTIONS, EvaluationSet
from pipelines.evaluation.photos import PhotoRecord, held_out_records
from pipelines.evaluation.prompts import load_prompts

Ask = Callable[..., EvaluationSet]
Records = Callable[..., list[PhotoRecord]]


def test_the_hash_changes_exactly_with_what_is_asked(records: Records, ask: Ask) -> None:
    photos = records()
    known = ask(photos).hash
    assert ask(list(reversed(photos))).hash == known
    assert ask(photos, steps=50, guidance=9.0, batch_size=1, bootstrap=7, sweeps=True).hash == known
    changed = [
        ask(photos, seed=1).hash,
        ask(photos, people=3).hash,
        ask(photos, seeds=2).hash,
        ask(photos, prompts=1).hash,
        ask(photos, several_people=SeveralPeople(two=3)).hash,
        ask([photo for photo in photos if photo.image_id != "0-happy-front"]).hash,
    ]
    prompts = load_prompts()
    single = (replace(prompts.single[0], template="a portrait of {shirt} coat, {background}"), *prompts.single[1:])
    for other in (replace(prompts, version=99), replace(prompts, single=single)):
        changed.append(replace(ask(photos), prompts=other).hash)
    assert len({known, *changed}) == len(changed) + 1


def test_every_person_is_asked_seven_expressions_and_five_poses(ask: Ask) -> None:
    questions = ask(4, seeds=2)
    for person in range(4):
        cells = [cell for cell in questions.cells if cell.person == person and cell.graded]
        assert Counter((cell.expression, cell.pose) for cell in cells) == dict.fromkeys(MOTIONS, 2)
        assert {cell.expression for cell in cells if cell.asks_expression} == set(EXPRESSIONS)
        assert {cell.pose for cell in cells if cell.asks_pose} == set(POSES)


def test_half_of_the_references_are_neither_neutral_nor_frontal(records: Records, ask: Ask) -> None:
    questions = ask()
    shown = {photo.image_id: photo for photo in records()}
    references = [shown[person.reference] for person in questions.people]
    assert [photo.expression == "neutral" and photo.pose == "front" for photo in references] == [True, False] * 2
    assert all(photo.expression != "neutral" and photo.pose != "front" for photo in references[1::2])


def test_open_labels_are_neither_neutral_references_nor_true_photos(records: Records, ask: Ask) -> None:
    # One expression of every person is open: whatever it is, it is taken for none.
    opened = [replace(photo, expression=None) if photo.expression == "sad" else photo for photo in records()]
    opened = [replace(photo, pose=None) if photo.pose == "half_left" else photo for photo in opened]
    questions = ask(opened)
    shown = {photo.image_id: photo for photo in opened}
    references = [shown[person.reference] for person in questions.people]
    assert [(photo.expression, photo.pose) for photo in references[::2]] == [("neutral", "front")] * 2
    assert all(photo.expression not in {"neutral", None} for photo in references[1::2])
    assert all(photo.pose not in {"front", None} for photo in references[1::2])
    true = [shown[cell.true_photo] for cell in questions.cells if cell.true_photo]
    assert true
    assert all(photo.expression and photo.pose for photo in true)
    assert not [cell for cell in questions.cells if cell.expression == "sad" and cell.true_photo]


def test_no_photo_has_two_roles(records: Records, ask: Ask) -> None:
    questions = ask()
    for index, person in enumerate(questions.people):
        true = {cell.true_photo for cell in questions.cells if cell.person == index and cell.true_photo}
        roles = [{person.reference}, set(person.others), true]
        assert sum(len(role) for role in roles) == len(set().union(*roles))
        assert person.others
        owners = {photo.identity for photo in records() if photo.image_id in set().union(*roles)}
        assert owners == {person.identity}


def test_the_cells_of_one_person_share_their_noise_and_other_people_have_their_own(ask: Ask) -> None:
    cells = ask().cells
    graded = {(cell.person, cell.noise) for cell in cells if cell.graded}
    assert len(graded) == 4
    assert len({noise for _, noise in graded}) == 4
    assert not {cell.noise for cell in cells if not cell.graded} & {noise for _, noise in graded}


def test_a_new_person_does_not_change_who_was_chosen_before(ask: Ask) -> None:
    few = {person.identity for person in ask(6, people=6).people}
    more = [person.identity for person in ask(7, people=7).people]
    assert few < set(more)
    assert [name for name in more if name in few] == [p.identity for p in ask(6, people=6).people]


@pytest.mark.parametrize(("people", "pairs"), [(2, 3), (4, 6), (5, 7), (5, 10), (9, 20)])
def test_all_are_paired_about_equally_often_and_with_others(people: int, pairs: int, ask: Ask) -> None:
    several = SeveralPeople(two=pairs)
    found = [pair.people for pair in ask(people, people=people, several_people=several).multi_cells]
    assert len(found) == pairs
    turns = Counter(person for pair in found for person in pair)
    assert set(turns) == set(range(people))
    assert max(turns.values()) - min(turns.values()) <= 1 + people % 2
    # No pair repeats before all pairs have occurred.
    possible = people * (people - 1) // 2
    assert len({frozenset(pair) for pair in found}) == min(pairs, possible)
    assert found[: people // 2] == [(first, first + 1) for first in range(0, people - 1, 2)]


def test_more_people_in_a_picture_than_there_are_is_an_error(ask: Ask) -> None:
    with pytest.raises(UserError, match=r"2 pictures of 4 people, and 3 held-out people; .*evaluate\.several_people"):
        ask(3, several_people=SeveralPeople(two=1, four=2))
    assert ask(3, several_people=SeveralPeople(two=0)).multi_cells == ()


def test_people_without_three_photos_take_no_part(records: Records, ask: Ask) -> None:
    photos = [photo for photo in records(3) if photo.identity != "p1"] + records(3)[35:37]
    assert {person.identity for person in ask(photos).people} == {"p0", "p2"}
    with pytest.raises(UserError, match="expected at least 2"):
        ask(1)


def test_photos_that_show_nothing_that_is_asked_are_named(records: Records, ask: Ask) -> None:
    others = [photo for photo in records(3) if (photo.expression, photo.pose) not in MOTIONS]
    with pytest.raises(UserError, match="0 photos of the 3 held-out people with one of the 11 asked"):
        ask(others)


def test_no_held_out_person_has_a_photo_in_another_split(processed: Path, tmp_path: Path) -> None:
    records = held_out_records(processed, Rights())
    trained = read_rows(processed, PROCESSED_SCHEMA).filter(pa.compute.field("split") == "train")
    assert not {record.image_id for record in records} & set(trained["image_id"].to_pylist())
    assert not {record.identity for record in records} & set(trained["identity"].to_pylist())

    rows = read_rows(processed, PROCESSED_SCHEMA).to_pylist()
    leaked = next(row for row in rows if row["split"] == "test")
    leaked["split"] = "train"
    pq.write_table(pa.Table.from_pylist(rows, PROCESSED_SCHEMA), tmp_path / "part.parquet")
    with pytest.raises(StageFailed, match="splits must be by identity"):
        held_out_records(tmp_path, Rights())


def test_people_of_split_val_are_asked_where_choices_are_made(processed: Path, tmp_path: Path) -> None:
    rows = read_rows(processed, PROCESSED_SCHEMA).to_pylist()
    for row in rows:
        row["split"] = {"test": "val", "train": "test"}[row["split"]]
    pq.write_table(pa.Table.from_pylist(rows, PROCESSED_SCHEMA), tmp_path / "part.parquet")
    assert held_out_records(tmp_path, Rights(), "val") == held_out_records(processed, Rights())
    assert {one.identity for one in held_out_records(tmp_path, Rights())} == {"tests-00004"}


def test_photos_without_identity_are_refused_and_the_remedy_is_named(processed: Path, tmp_path: Path) -> None:
    rows = [{**row, "identity": None} for row in read_rows(processed, PROCESSED_SCHEMA).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, PROCESSED_SCHEMA), tmp_path / "part.parquet")
    with pytest.raises(UserError, match="curate"):
        held_out_records(tmp_path, Rights())


def test_photos_that_the_policy_refuses_are_not_held_out_for_evaluation(
    processed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = read_rows(processed, PROCESSED_SCHEMA).to_pylist()
    held_out = [row for row in rows if row["split"] == "test"]
    for number, row in enumerate(held_out):
        row["consent"] = "pending" if number % 2 else "granted"
    pq.write_table(pa.Table.from_pylist(rows, PROCESSED_SCHEMA), tmp_path / "part.parquet")
    records = held_out_records(tmp_path, Rights())
    assert [record.image_id for record in records] == [row["image_id"] for row in held_out[::2]]
    assert f"{len(held_out[1::2])} consent not allowed" in capsys.readouterr().err
    with pytest.raises(StageFailed, match="consent denied"):
        held_out_records(tmp_path, Rights(consent=Consent(deny=("*",))))
