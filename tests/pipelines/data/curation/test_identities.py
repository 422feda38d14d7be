"""Clusters become people, and the names that photos came with are checked against them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipelines.core.sections.data import Curate
from pipelines.data.curation.faces import Faces
from pipelines.data.curation.identities import find_identities

Make = Callable[[list[dict[str, Any]]], Faces]
Seen = Callable[..., dict[str, Any]]
PARAMS = Curate(similarity=0.4)


def _labelled(faces: Faces) -> Faces:
    faces.rows["label"] = [name.split("/")[0] for name in faces.rows["file_name"]]
    return faces


def test_unlabelled_people_are_named_by_size(make_faces: Make, seen: Seen) -> None:
    faces = make_faces(
        [seen(f"{person}-{photo}.jpg", person, photo) for person in (1, 2) for photo in range(2 * person)]
    )
    find_identities(faces, PARAMS)
    assert faces.rows["identity"].tolist() == ["person_00002"] * 2 + ["person_00001"] * 4
    assert faces.open.all()
    assert (faces.rows["similarity"] > 0.6).all()


def test_a_photo_in_the_wrong_folder_is_disputed_and_says_whose_it_is(make_faces: Make, seen: Seen) -> None:
    rows = [
        seen(f"{name}/{photo}.jpg", person, photo) for person, name in ((1, "ann"), (2, "bob")) for photo in range(5)
    ]
    rows += [seen("ann/wrong.jpg", 2, 99), seen("ann/stranger.jpg", 3, 0)]
    faces = _labelled(make_faces(rows))
    find_identities(faces, PARAMS)
    decided = faces.rows.set_index("file_name")
    assert decided.at["ann/wrong.jpg", "reason"] == "label_disputed"
    assert decided.at["ann/wrong.jpg", "detail"].startswith("looks like bob (similarity to ann ")
    assert decided.at["ann/stranger.jpg", "reason"] == "label_disputed"
    assert decided.at["ann/stranger.jpg", "detail"].startswith("is unlike ann's others")
    assert decided["reason"].notna().sum() == 2
    assert decided.at["bob/0.jpg", "identity"] == "bob"
    assert decided.at["ann/wrong.jpg", "identity"] == "bob"


def test_one_person_under_two_names_keeps_the_commoner(make_faces: Make, seen: Seen) -> None:
    rows = [seen(f"anna/{photo}.jpg", 1, photo) for photo in range(4)] + [
        seen(f"ann/{photo}.jpg", 1, 50 + photo) for photo in range(2)
    ]
    faces = _labelled(make_faces(rows))
    find_identities(faces, PARAMS)
    assert set(faces.rows["identity"]) == {"anna"}
    disputed = faces.rows[faces.rows["reason"] == "label_disputed"]
    assert disputed["file_name"].tolist() == ["ann/0.jpg", "ann/1.jpg"]
    assert set(disputed["detail"]) == {"ann looks like anna"}


def test_a_label_means_the_face_that_looks_like_its_others(make_faces: Make, seen: Seen) -> None:
    """A stranger beside the person, even a larger face, is no reason to doubt the label."""
    rows = [seen(f"ann/{photo}.jpg", 1, photo) for photo in range(3)]
    rows += [seen("ann/both.jpg", 5, 0, n_faces=2), seen("ann/both.jpg", 1, 9, n_faces=2, face_index=1)]
    faces = _labelled(make_faces(rows))
    find_identities(faces, PARAMS)
    assert faces.open.all()
    both = faces.rows[faces.rows["file_name"] == "ann/both.jpg"]
    assert both["identity"].tolist() == ["person_00001", "ann"]


def test_one_person_is_in_a_photo_once(make_faces: Make, seen: Seen, embed: Callable[..., Any]) -> None:
    rows = [seen(f"{photo}.jpg", 1, photo) for photo in range(4)]
    rows += [
        seen("twice.jpg", 1, 8, n_faces=2, embedding=embed(1, 8, 0.9)),
        seen("twice.jpg", 1, 9, n_faces=2, face_index=1, embedding=embed(1, 9, 0.2)),
    ]
    faces = make_faces(rows)
    find_identities(faces, PARAMS)
    twice = faces.rows[faces.rows["file_name"] == "twice.jpg"]
    assert twice["reason"].tolist() == ["twice_in_photo", None]


def test_names_that_are_no_folder_names_are_made_so_and_stay_apart(make_faces: Make, seen: Seen) -> None:
    rows = [
        seen(f"{label}/{photo}.jpg", person, photo)
        for person, label in enumerate(("a b", "a*b", ".."))
        for photo in range(3)
    ]
    faces = _labelled(make_faces(rows))
    find_identities(faces, PARAMS)
    assert sorted(set(faces.rows["identity"])) == ["_", "a_b", "a_b_"]
