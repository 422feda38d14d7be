"""Identities out of embeddings: approximate neighbours, and average linkage among those near each other.

Two groups of faces belong together while the mean cosine over all pairs between them is at least a threshold. That
is average linkage, which one chance likeness cannot chain together; but it needs all pairs. Here only faces that are
neighbours in an HNSW graph (faiss) are compared, in parts of bounded size (SciPy's linkage), and the groups found are
joined again in the same way until no two are alike. The mean cosine between two groups is the scalar product of
their mean vectors, so a group needs no more memory than a face, and the cost grows nearly linearly with their number.
"""

from __future__ import annotations

import numpy as np

# Parts up to this many faces are linked exactly: a matrix of 32 MB.
_PART = 2000
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


def cluster(embeddings: np.ndarray, threshold: float, count: int) -> np.ndarray:
    """Return the cluster (N,) int64 of every embedding (N, D) unit norm; clusters are numbered by their first face.

    `threshold` is the least mean cosine between two groups that are joined, `count` how many neighbours are looked at.
    """
    labels = np.arange(len(embeddings), dtype=np.int64)
    means = np.asarray(embeddings, np.float64)
    sizes: np.ndarray = np.ones(len(embeddings))
    while len(means) > 1:
        joined = _join(means, threshold, count)
        if joined.max() + 1 == len(means):
            break
        total = np.bincount(joined, sizes)
        summed = np.zeros((len(total), means.shape[1]))
        np.add.at(summed, joined, means * sizes[:, None])
        means, sizes, labels = summed / total[:, None], total, joined[labels]
    return _renumbered(labels)


def _join(means: np.ndarray, threshold: float, count: int) -> np.ndarray:
    """Return the group of every mean vector (N, D) after one pass of linkage among neighbours."""
    norms = np.maximum(np.linalg.norm(means, axis=1), 1e-12)
    others, cosines = neighbours(means / norms[:, None], count)
    here, there = np.repeat(np.arange(len(means)), others.shape[1]), others.reshape(-1)
    present = there >= 0
    here, there = here[present], there[present]
    alike = cosines.reshape(-1)[present] * norms[here] * norms[there]
    near = alike >= threshold
    parts = _parts(len(means), here[near], there[near], alike[near])
    groups = np.empty(len(means), np.int64)
    order, used = np.argsort(parts, kind="stable"), 0
    for members in np.split(order, np.flatnonzero(np.diff(parts[order])) + 1):
        linked = _linked(means[members], threshold)
        groups[members] = linked + used
        used += int(linked.max()) + 1
    return groups


def _parts(nodes: int, here: np.ndarray, there: np.ndarray, alike: np.ndarray) -> np.ndarray:
    """Return the part (N,) of every node: connected components, where too large the most alike put together first."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

    # An entry of zero would be no edge.
    lengths = np.maximum(1 - alike, 1e-9)
    order = np.lexsort((there, here, lengths))
    graph = coo_matrix((lengths[order], (here[order], there[order])), shape=(nodes, nodes)).tocsr()
    parts = np.asarray(connected_components(graph, directed=False)[1])
    if np.bincount(parts).max() <= _PART:
        return parts
    tree = minimum_spanning_tree(graph).tocoo()
    shortest = np.lexsort((tree.col, tree.row, tree.data))
    parent, size = list(range(nodes)), [1] * nodes

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for one, other in zip(tree.row[shortest].tolist(), tree.col[shortest].tolist(), strict=True):
        first, second = sorted((root(one), root(other)))
        if size[first] + size[second] <= _PART:
            parent[second] = first
            size[first] += size[second]
    return np.array([root(node) for node in range(nodes)])


def _linked(means: np.ndarray, threshold: float) -> np.ndarray:
    """Return the groups (N,) from 0 of a part by average linkage on 1 - cosine."""
    if len(means) == 1:
        return np.zeros(1, np.int64)
    from scipy.cluster.hierarchy import fcluster, linkage

    distances = 1 - (means @ means.T)[np.triu_indices(len(means), 1)]
    tree = linkage(np.clip(distances, 0, 2), "average")
    return np.asarray(fcluster(tree, 1 - threshold, "distance"), np.int64) - 1


def _renumbered(labels: np.ndarray) -> np.ndarray:
    _, first, numbers = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[numbers].astype(np.int64)
