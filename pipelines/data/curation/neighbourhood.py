"""Whose faces a face is among: approximate neighbours, the graph of mutual ones, and profiles of groups in it."""

from __future__ import annotations

from typing import Any

import numpy as np

_LINKS, _EFFORT = 32, 128


def neighbours(vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the `count` nearest other rows of every unit-norm row (N, D), and their cosines, both (N, count).

    Approximate; the same rows in the same order give the same answer. Where fewer are found the index is -1.
    """
    import faiss

    count = min(count, len(vectors) - 1)
    if count < 1:
        return np.zeros((len(vectors), 0), np.int64), np.zeros((len(vectors), 0), np.float32)
    rows = np.ascontiguousarray(vectors, np.float32)
    index = faiss.IndexHNSWFlat(rows.shape[1], _LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = _EFFORT
    index.hnsw.efSearch = max(_EFFORT, 2 * count)
    threads = faiss.omp_get_max_threads()
    try:
        # Inserted by several threads at once, the graph would be another one in every run.
        faiss.omp_set_num_threads(1)
        index.add(rows)
        faiss.omp_set_num_threads(threads)
        cosines, found = index.search(rows, count + 1)
    finally:
        faiss.omp_set_num_threads(threads)
    # A row is its own neighbour, most often the first: of equal rows it may be any, or none.
    own = found == np.arange(len(rows))[:, None]
    own[~own.any(1), -1] = True
    return found[~own].reshape(len(rows), count), cosines[~own].reshape(len(rows), count)


def mutual(vectors: np.ndarray, count: int, least: float) -> Any:
    """Return the graph (N, N) csr of unit-norm rows (N, D) that are each among the `count` nearest of the other.

    An entry is the cosine, at least `least`; every row is its own neighbour with 1.
    """
    from scipy.sparse import coo_matrix, identity

    others, cosines = neighbours(vectors, count)
    here, place = np.nonzero((others >= 0) & (cosines >= least))
    nodes = len(vectors)
    graph = coo_matrix((np.minimum(cosines[here, place], 1), (here, others[here, place])), shape=(nodes, nodes)).tocsr()
    return (graph.minimum(graph.T) + identity(nodes, format="csr")).tocsr()


def profiles(graph: Any, labels: np.ndarray) -> Any:
    """Return for every group of a graph's nodes how its links are spread over all groups: (G, G) csr, unit norm.

    `labels` (N,) are the groups from 0. Groups whose links lead to the same groups in the same measure have a scalar
    product of 1, whatever their sizes; those without a common one, 0.
    """
    from scipy.sparse import csr_matrix, diags

    member = csr_matrix((np.ones(len(labels)), (np.arange(len(labels)), labels)), (len(labels), int(labels.max()) + 1))
    spread = (member.T @ graph @ member).tocsr()
    norms = np.sqrt(np.asarray(spread.multiply(spread).sum(1)).ravel())
    return (diags(1 / norms) @ spread).tocsr()
