"""Find nearest neighbours, the graph of mutual neighbours, and how the links of groups are spread in it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

# So many rows are compared exactly, which is faster below (benchmarks/scale.py --faces; docs/log/scaling.md).
EXACT_ROWS = 300_000
# More rows are searched in parts of this many, whose graphs are built at the same time, one thread each.
PART_ROWS = 250_000
_LINKS, _EFFORT, _SEARCH = 32, 128, 64
# Rows that one thread compares with all others at once.
_BLOCK = 1024


def neighbours(vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the `count` nearest other rows of every unit-norm row (N, D), and their cosines, both (N, count).

    Approximate above EXACT_ROWS. The same rows in the same order give the same result, whatever the number of threads.
    Missing neighbours have the index -1.
    """
    count = min(count, len(vectors) - 1)
    if count < 1:
        return np.zeros((len(vectors), 0), np.int64), np.zeros((len(vectors), 0), np.float32)
    rows = np.ascontiguousarray(vectors, np.float32)
    cosines, found = (_exact if len(rows) <= EXACT_ROWS else _approximate)(rows, count + 1)
    # A row is usually its own first neighbour; among equal rows, it may be a later one, or missing.
    own = found == np.arange(len(rows))[:, None]
    own[~own.any(1), -1] = True
    return found[~own].reshape(len(rows), count), cosines[~own].reshape(len(rows), count)


def _exact(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    import faiss

    def searched(start: int) -> tuple[np.ndarray, np.ndarray]:
        # Of the calling thread only: products of several threads differ in their last bits from those of one.
        faiss.omp_set_num_threads(1)
        some = rows[start : start + _BLOCK]
        cosines, found = faiss.knn(some, rows, count, metric=faiss.METRIC_INNER_PRODUCT)
        return cosines, found

    with ThreadPoolExecutor(faiss.omp_get_max_threads()) as pool:
        cosines, found = zip(*pool.map(searched, range(0, len(rows), _BLOCK)), strict=True)
    return np.concatenate(cosines), np.concatenate(found)


def _approximate(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Search every row in the graph of each part, and merge what is found."""
    import faiss

    bounds = np.linspace(0, len(rows), -(-len(rows) // PART_ROWS) + 1).astype(int).tolist()

    def built(part: tuple[int, int]) -> Any:
        # Of the calling thread only. If several threads inserted the rows, the graph would differ from run to run.
        faiss.omp_set_num_threads(1)
        index = faiss.IndexHNSWFlat(rows.shape[1], _LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _EFFORT
        index.hnsw.efSearch = max(_EFFORT if len(bounds) == 2 else _SEARCH, 2 * count)
        index.add(rows[part[0] : part[1]])
        return index

    with ThreadPoolExecutor(faiss.omp_get_max_threads()) as pool:
        indices = list(pool.map(built, pairwise(bounds)))
    cosines, found = indices[0].search(rows, count)
    for start, index in zip(bounds[1:], indices[1:], strict=False):
        others, places = index.search(rows, count)
        both = np.hstack([cosines, others])
        best = np.argsort(-both, axis=1, kind="stable")[:, :count]
        places[places >= 0] += start
        cosines, found = (np.take_along_axis(one, best, 1) for one in (both, np.hstack([found, places])))
    return cosines, found


def mutual(vectors: np.ndarray, count: int, least: float) -> Any:
    """Return the graph (N, N) csr that links unit-norm rows (N, D) if each is among the `count` nearest of the other.

    An entry is the cosine, at least `least`; every row is linked to itself with 1.
    """
    from scipy.sparse import coo_matrix, identity

    others, cosines = neighbours(vectors, count)
    here, place = np.nonzero((others >= 0) & (cosines >= least))
    nodes = len(vectors)
    graph = coo_matrix((np.minimum(cosines[here, place], 1), (here, others[here, place])), shape=(nodes, nodes)).tocsr()
    return (graph.minimum(graph.T) + identity(nodes, format="csr")).tocsr()


def profiles(graph: Any, labels: np.ndarray) -> Any:
    """Return how the links of every group of nodes are spread over all groups: (G, G) csr, rows of unit norm.

    `labels` (N,) are the groups from 0. The scalar product of two rows is 1 if the links of both are spread over the
    groups in the same proportions, whatever their sizes, and 0 if they lead to no common group.
    """
    from scipy.sparse import csr_matrix, diags

    member = csr_matrix((np.ones(len(labels)), (np.arange(len(labels)), labels)), (len(labels), int(labels.max()) + 1))
    spread = (member.T @ graph @ member).tocsr()
    norms = np.sqrt(np.asarray(spread.multiply(spread).sum(1)).ravel())
    return (diags(1 / norms) @ spread).tocsr()
