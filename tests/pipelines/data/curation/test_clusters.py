"""Each cluster is one person, whatever the order of faces, the number of neighbours and the size of the parts."""

from __future__ import annotations

from collections.abc import Sequence

import faiss
import numpy as np
import pytest
from sklearn.metrics.cluster import pair_confusion_matrix

from pipelines.data.curation import clusters, neighbourhood
from pipelines.data.curation.clusters import cluster
from tests.pipelines.data.curation.rows import embedding

LIKENESS = 0.5


def f1(found: np.ndarray, known: Sequence[int] | np.ndarray) -> float:
    """Return the F1 score of pairs of faces in one cluster against pairs of one person."""
    (_, wrong), (missed, both) = pair_confusion_matrix(known, found)
    return 2 * both / (2 * both + wrong + missed)


@pytest.fixture
def people() -> tuple[np.ndarray, list[int]]:
    """Twenty-four people with one to forty photos each."""
    known = [person for person in range(24) for _ in range(1 + person * 7 % 40)]
    return np.stack([embedding(person, number, 0.9) for number, person in enumerate(known)]), known


def test_every_person_is_one_cluster(people: tuple[np.ndarray, list[int]]) -> None:
    embeddings, known = people
    found = cluster(embeddings, 0.3, 48, LIKENESS)
    assert f1(found, known) == 1.0
    assert found.max() + 1 == 24


def test_clusters_are_numbered_by_their_first_face(people: tuple[np.ndarray, list[int]]) -> None:
    found = cluster(people[0], 0.3, 48, LIKENESS)
    first = [int(np.flatnonzero(found == number)[0]) for number in range(found.max() + 1)]
    assert first == sorted(first)


def test_clusters_do_not_depend_on_the_order_of_faces(people: tuple[np.ndarray, list[int]]) -> None:
    embeddings, _ = people
    order = np.random.default_rng(0).permutation(len(embeddings))
    ordered, shuffled = cluster(embeddings, 0.3, 48, LIKENESS), cluster(embeddings[order], 0.3, 48, LIKENESS)
    assert f1(shuffled, ordered[order]) == 1.0


@pytest.mark.parametrize(("part", "count"), [(25, 48), (2000, 5), (10, 4)])
def test_small_parts_and_few_neighbours_find_the_same_people(
    people: tuple[np.ndarray, list[int]], part: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This includes people with more photos than a part has groups, or than `count` neighbours."""
    monkeypatch.setattr(clusters, "_PART", part)
    embeddings, known = people
    found = cluster(embeddings, 0.3, count, LIKENESS)
    assert f1(found, known) > 0.99


def test_one_face_between_two_people_does_not_join_them() -> None:
    one, other = (np.stack([embedding(person, photo, 0.4) for photo in range(12)]) for person in (1, 2))
    between = one.mean(0) + other.mean(0)
    between /= np.linalg.norm(between)
    assert float((one @ between).mean()) > 0.5
    assert float((other @ between).mean()) > 0.5
    found = cluster(np.vstack([one, other, between[None]]).astype(np.float32), 0.5, 16, LIKENESS)
    assert len(set(found[:12])) == len(set(found[12:24])) == 1
    assert found[0] != found[12]


def test_many_equal_faces_are_one_person(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "_PART", 20)
    embeddings = np.vstack([np.repeat(embedding(1, 0)[None], 90, 0), np.repeat(embedding(2, 0)[None], 5, 0)])
    found = cluster(embeddings, 0.5, 8, LIKENESS)
    assert len(set(found[:90])) == len(set(found[90:])) == 1
    assert found[0] != found[-1]


@pytest.mark.parametrize("faces", [0, 1, 2])
def test_few_faces_are_clustered(faces: int) -> None:
    embeddings = np.array([embedding(person, 0) for person in range(faces)], np.float32).reshape(-1, 512)
    assert cluster(embeddings, 0.5, 48, LIKENESS).tolist() == list(range(faces))


def test_unusual_photos_of_a_person_with_many_photos_join_and_strangers_do_not() -> None:
    """Unusual photos are less similar to the others than the threshold, but far more than any stranger's."""
    rng = np.random.default_rng(0)
    person, strangers = rng.normal(size=64), rng.normal(size=(400, 64))
    usual, unusual = person + 0.7 * rng.normal(size=(60, 64)), person + 1.5 * rng.normal(size=(30, 64))
    embeddings = np.vstack([usual, unusual, strangers])
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    assert (embeddings[60:90] @ embeddings[:60].mean(0)).mean() < 0.48
    found = cluster(embeddings.astype(np.float32), 0.5, 16, LIKENESS)
    assert (found[:90] == found[0]).mean() >= 0.9
    assert not (found[90:] == found[0]).any()


def test_exact_and_approximate_neighbours_find_the_same_people(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five thousand photos of 250 people of 25 families, whose members are alike, and one tenth strangers."""
    rng = np.random.default_rng(0)
    families, people = rng.normal(size=(25, 128)), rng.normal(size=(250, 128))
    known = np.concatenate([rng.integers(0, 250, 4500), np.arange(250, 750)])
    centres = np.vstack([people + 0.7 * families[np.arange(250) % 25], rng.normal(size=(500, 128)) * 1.2])
    embeddings = centres[known] + rng.uniform(0.5, 1.2, (5000, 1)) * rng.normal(size=(5000, 128))
    embeddings = (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32)
    exact = cluster(embeddings, 0.45, 30, LIKENESS)
    assert f1(exact, known) > 0.95
    monkeypatch.setattr(neighbourhood, "EXACT_ROWS", 1000)
    monkeypatch.setattr(neighbourhood, "PART_ROWS", 2000)
    approximate = cluster(embeddings, 0.45, 30, LIKENESS)
    assert f1(approximate, exact) >= 0.999


@pytest.mark.parametrize("exact_rows", [2000, 0])
def test_the_number_of_threads_changes_no_neighbour(exact_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbourhood, "EXACT_ROWS", exact_rows)
    monkeypatch.setattr(neighbourhood, "PART_ROWS", 700)
    rows = np.random.default_rng(0).normal(size=(2000, 128)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    before, found = faiss.omp_get_max_threads(), []
    try:
        for threads in (1, 2, 3):
            faiss.omp_set_num_threads(threads)
            found.append(neighbourhood.neighbours(rows, 10))
            assert faiss.omp_get_max_threads() == threads
    finally:
        faiss.omp_set_num_threads(before)
    for others, cosines in found[1:]:
        np.testing.assert_array_equal(others, found[0][0])
        np.testing.assert_array_equal(cosines, found[0][1])
