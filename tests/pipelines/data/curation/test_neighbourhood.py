"""Find neighbours, mutual neighbours, and the profiles of groups."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from pipelines.data.curation.neighbourhood import mutual, neighbours, profiles
from tests.pipelines.data.curation.rows import embedding


@pytest.fixture
def people() -> tuple[np.ndarray, np.ndarray]:
    """Twelve people with ten photos each."""
    known = np.repeat(np.arange(12), 10)
    return np.stack([embedding(person, number, 0.9) for number, person in enumerate(known)]), known


def test_neighbours_are_nearly_the_true_ones_and_never_the_row_itself(people: tuple[np.ndarray, np.ndarray]) -> None:
    embeddings, _ = people
    found, cosines = neighbours(embeddings, 10)
    exact = embeddings @ embeddings.T
    np.fill_diagonal(exact, -1)
    true = np.argsort(-exact, axis=1)[:, :10]
    shared = [len(set(one) & set(other)) for one, other in zip(found.tolist(), true.tolist(), strict=True)]
    assert np.mean(shared) / 10 > 0.97
    assert not (found == np.arange(len(found))[:, None]).any()
    here = np.arange(len(found))[:, None]
    np.testing.assert_allclose(cosines, exact[here, found], atol=1e-5)


def test_mutual_neighbours_are_symmetric_and_similar(
    people: tuple[np.ndarray, np.ndarray],
) -> None:
    embeddings, known = people
    graph = mutual(embeddings, 9, 0.3)
    dense = graph.toarray()
    np.testing.assert_allclose(dense, dense.T)
    np.testing.assert_allclose(np.diag(dense), 1)
    others = dense[dense > 0]
    assert others.min() >= 0.3
    assert ((dense > 0) == (known[:, None] == known[None])).mean() > 0.99
    assert mutual(embeddings, 9, 0.99).nnz == len(known)


def test_a_hub_has_only_mutual_neighbours() -> None:
    """A blurred face is close to all twenty others, but only the five closest to it can be its neighbours."""
    faces = np.stack([embedding(person, 0) for person in range(20)])
    hub = faces.mean(0) / np.linalg.norm(faces.mean(0))
    graph = mutual(np.vstack([faces, hub[None]]).astype(np.float32), 5, 0.1)
    assert 0 < graph[-1].nnz - 1 <= 5


def test_profiles_do_not_depend_on_the_size_of_groups() -> None:
    graph = csr_matrix(
        np.array(
            [
                [1, 0, 0, 1, 0, 0],
                [0, 1, 0, 1, 0, 0],
                [0, 0, 1, 1, 0, 0],
                [1, 1, 1, 1, 0, 0],
                [0, 0, 0, 0, 1, 1],
                [0, 0, 0, 0, 1, 1],
            ],
            float,
        )
    )
    each = profiles(graph, np.arange(6))
    products = (each @ each.T).toarray()
    assert products[4, 5] == pytest.approx(1)
    assert products[0, 4] == 0
    assert products[0, 1] == pytest.approx(0.5)
    groups = profiles(graph, np.array([0, 0, 1, 1, 2, 2]))
    together = (groups @ groups.T).toarray()
    np.testing.assert_allclose(np.diag(together), 1)
    assert together[0, 1] > products[0, 1]
    assert together[0, 2] == together[1, 2] == 0
