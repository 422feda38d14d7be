"""Name clusters as identities, and check labels against them."""

from __future__ import annotations

from pipelines.core.sections.data import Curate
from pipelines.data.curation.faces import Faces
from pipelines.data.curation.identities import find_identities
from tests.pipelines.data.curation.rows import embedding, face_row, make_faces

PARAMS = Curate()


def _labelled(faces: Faces) -> Faces:
    faces.rows["label"] = [name.split("/")[0] for name in faces.rows["file_name"]]
    return faces


def test_unlabelled_people_are_named_by_size() -> None:
    faces = make_faces(
        [face_row(f"{person}-{photo}.jpg", person, photo) for person in (1, 2) for photo in range(2 * person)]
    )
    find_identities(faces, PARAMS, 0.4, 0.5)
    assert faces.rows["identity"].tolist() == ["person_00002"] * 2 + ["person_00001"] * 4
    assert faces.candidates.all()
    assert (faces.rows["similarity"] > 0.6).all()


def test_a_photo_in_the_wrong_folder_is_disputed_and_its_person_named() -> None:
    rows = [
        face_row(f"{name}/{photo}.jpg", person, photo)
        for person, name in ((1, "ann"), (2, "bob"))
        for photo in range(5)
    ]
    rows += [face_row("ann/wrong.jpg", 2, 99), face_row("ann/stranger.jpg", 3, 0)]
    faces = _labelled(make_faces(rows))
    find_identities(faces, PARAMS, 0.4, 0.5)
    decided = faces.rows.set_index("file_name")
    assert decided.at["ann/wrong.jpg", "reason"] == "label_disputed"
    assert decided.at["ann/wrong.jpg", "detail"].startswith("looks like bob (similarity to ann ")
    assert decided.at["ann/stranger.jpg", "reason"] == "label_disputed"
    assert decided.at["ann/stranger.jpg", "detail"].startswith("is unlike ann's others")
    assert decided["reason"].notna().sum() == 2
    assert decided.at["bob/0.jpg", "identity"] == "bob"
    assert decided.at["ann/wrong.jpg", "identity"] == "bob"


def test_a_person_under_two_names_keeps_the_more_frequent() -> None:
    rows = [face_row(f"anna/{photo}.jpg", 1, photo) for photo in range(4)] + [
        face_row(f"ann/{photo}.jpg", 1, 50 + photo) for photo in range(2)
    ]
    faces = _labelled(make_faces(rows))
    find_identities(faces, PARAMS, 0.4, 0.5)
    assert set(faces.rows["identity"]) == {"anna"}
    disputed = faces.rows[faces.rows["reason"] == "label_disputed"]
    assert disputed["file_name"].tolist() == ["ann/0.jpg", "ann/1.jpg"]
    assert set(disputed["detail"]) == {"ann looks like anna"}


def test_a_label_belongs_to_the_face_that_resembles_its_other_photos() -> None:
    """Another face in the photo, even a larger one, does not make the label disputed."""
    rows = [face_row(f"ann/{photo}.jpg", 1, photo) for photo in range(3)]
    rows += [face_row("ann/both.jpg", 5, 0, n_faces=2), face_row("ann/both.jpg", 1, 9, n_faces=2, face_index=1)]
    faces = _labelled(make_faces(rows))
    find_identities(faces, PARAMS, 0.4, 0.5)
    assert faces.candidates.all()
    both = faces.rows[faces.rows["file_name"] == "ann/both.jpg"]
    assert both["identity"].tolist() == ["person_00001", "ann"]


def test_a_person_has_one_face_per_photo() -> None:
    rows = [face_row(f"{photo}.jpg", 1, photo) for photo in range(4)]
    rows += [
        face_row("twice.jpg", 1, 8, n_faces=2, embedding=embedding(1, 8, 0.9)),
        face_row("twice.jpg", 1, 9, n_faces=2, face_index=1, embedding=embedding(1, 9, 0.2)),
    ]
    faces = make_faces(rows)
    find_identities(faces, PARAMS, 0.4, 0.5)
    twice = faces.rows[faces.rows["file_name"] == "twice.jpg"]
    assert twice["reason"].tolist() == ["twice_in_photo", None]


def test_labels_become_distinct_folder_names() -> None:
    rows = [
        face_row(f"{label}/{photo}.jpg", person, photo)
        for person, label in enumerate(("a b", "a*b", ".."))
        for photo in range(3)
    ]
    faces = _labelled(make_faces(rows))
    find_identities(faces, PARAMS, 0.4, 0.5)
    assert sorted(set(faces.rows["identity"])) == ["_", "a_b", "a_b_"]


def test_a_photo_of_which_it_is_not_sure_stays_in_its_group_and_is_not_selected() -> None:
    rows = [face_row(f"{photo}.jpg", 1, photo) for photo in range(5)]
    faces = make_faces([*rows, face_row("doubtful.jpg", 1, 9, embedding=embedding(1, 9, 1.3))])
    find_identities(faces, PARAMS, 0.4, 0.7)
    doubtful = faces.rows[faces.rows["file_name"] == "doubtful.jpg"].iloc[0]
    assert doubtful["identity"] == "person_00001"
    assert doubtful["reason"] == "unlike_identity"
    assert doubtful["detail"] == f"similarity {doubtful['similarity']:.2f} < 0.7"
    assert faces.rows["reason"].notna().sum() == 1
