"""Identities out of embeddings: average linkage by company and likeness, then by likeness alone.

First, two groups of faces belong together while a third of the mean cosine over all pairs between them, and two thirds
of how alike their company is, are at least a threshold: their company are the groups that their mutual neighbours
belong to. People who look alike keep a company of their own, where cosines alone would join them. Then groups with a
mean cosine beyond doubt are joined, for someone with many more photos than neighbours are looked at has company
everywhere.

Average linkage is not chained by one chance likeness, but it needs all pairs. Here only groups that are neighbours, or
share one, are compared, in parts of bounded size (SciPy's linkage), and the groups found are joined again in the same
way until no two are alike. A group is its mean vector and its row of company: the mean cosine of two groups is the
scalar product of their means. The cost grows nearly linearly with the number of faces.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.data.curation.neighbourhood import mutual, neighbours, profiles

# Parts up to this many groups are linked exactly: a matrix of 32 MB.
_PART = 2000
# Groups whose company is compared with that of all others at once, and pairs whose cosines are taken at once.
_BLOCK, _PAIRS = 1000, 20_000
# The share of company; the rest is the mean cosine.
_COMPANY = 2 / 3

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Rows, other rows, how alike they are."""


@dataclass(frozen=True)
class _Groups:
    """Groups of N faces: `means` (G, D) of their vectors, `sizes` (G,), and the group `labels` (N,) of every face."""

    means: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray

    def joined(self, groups: np.ndarray) -> _Groups:
        """Return the groups in which those with the same number in `groups` (G,) are one."""
        sizes = np.bincount(groups, self.sizes)
        summed = np.zeros((len(sizes), self.means.shape[1]))
        np.add.at(summed, groups, self.means * self.sizes[:, None])
        return _Groups(summed / sizes[:, None], sizes, groups[self.labels])


def cluster(embeddings: np.ndarray, similarity: float, count: int, likeness: float) -> np.ndarray:
    """Return the cluster (N,) int64 of every embedding (N, D) unit norm; clusters are numbered by their first face.

    Faces can be neighbours from the cosine `similarity` on, if each is among the `count` nearest of the other;
    `likeness` in (0, 1) is the least mean of company and cosine of two groups that are joined, `similarity` the
    least mean cosine of two that are joined without.
    """
    labels = np.arange(len(embeddings), dtype=np.int64)
    if len(embeddings) < 2:
        return labels
    graph = mutual(embeddings, count, similarity)
    groups = _Groups(np.asarray(embeddings, np.float64), np.ones(len(embeddings)), labels)
    groups = _grown(groups, lambda groups: _by_company(groups, graph, likeness))
    groups = _grown(groups, lambda groups: _by_cosine(groups, count, similarity))
    return _renumbered(groups.labels)


def _grown(groups: _Groups, join: Callable[[_Groups], np.ndarray]) -> _Groups:
    """Join groups until `join`, which returns the new group of each, finds no two alike."""
    while len(groups.sizes) > 1:
        found = join(groups)
        if found.max() + 1 == len(groups.sizes):
            break
        groups = groups.joined(found)
    return groups


def _by_company(groups: _Groups, graph: Any, likeness: float) -> np.ndarray:
    company, means = profiles(graph, groups.labels), groups.means

    def alike(some: np.ndarray) -> np.ndarray:
        return _likeness(means[some] @ means[some].T, (company[some] @ company[some].T).toarray())

    return _linked(len(means), _sharing(means, company, likeness), alike, likeness)


def _by_cosine(groups: _Groups, count: int, similarity: float) -> np.ndarray:
    means = groups.means
    norms = np.maximum(np.linalg.norm(means, axis=1), 1e-12)
    others, cosines = neighbours(means / norms[:, None], count)
    here, there = np.repeat(np.arange(len(means)), others.shape[1]), others.reshape(-1)
    present = there >= 0
    here, there = here[present], there[present]
    found = cosines.reshape(-1)[present] * norms[here] * norms[there]
    near = found >= similarity
    pairs = here[near], there[near], found[near]
    return _linked(len(means), pairs, lambda some: means[some] @ means[some].T, similarity)


def _likeness(cosines: np.ndarray | float, company: np.ndarray) -> np.ndarray:
    return (1 - _COMPANY) * np.asarray(cosines) + _COMPANY * company


def _sharing(means: np.ndarray, company: Any, likeness: float) -> Pairs:
    """Return the pairs of different groups that have company in common and are alike enough."""
    found = []
    transposed = company.T.tocsr()
    for start in range(0, len(means), _BLOCK):
        shared = (company[start : start + _BLOCK] @ transposed).tocoo()
        here, there, common = shared.row + np.int64(start), shared.col.astype(np.int64), shared.data
        # A cosine is at most 1: what could not be alike enough with it needs none.
        near = np.flatnonzero((here < there) & (_likeness(1.0, common) >= likeness))
        for some in np.array_split(near, len(near) // _PAIRS + 1):
            cosines = np.einsum("ij,ij->i", means[here[some]], means[there[some]])
            alike = _likeness(cosines, common[some])
            enough = alike >= likeness
            found.append((here[some][enough], there[some][enough], alike[enough]))
    here, there, alike = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return here, there, alike


def _linked(nodes: int, pairs: Pairs, alike: Callable[[np.ndarray], np.ndarray], threshold: float) -> np.ndarray:
    """Return the group (N,) from 0 of every node by average linkage within the parts that `pairs` make.

    `alike(members)` returns how alike all members of a part are.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    parts = _parts(nodes, *pairs)
    groups = np.empty(nodes, np.int64)
    order, used = np.argsort(parts, kind="stable"), 0
    for members in np.split(order, np.flatnonzero(np.diff(parts[order])) + 1):
        found = np.zeros(1, np.int64)
        if len(members) > 1:
            distances = 1 - alike(members)[np.triu_indices(len(members), 1)]
            found = fcluster(linkage(np.clip(distances, 0, 2), "average"), 1 - threshold, "distance") - 1
        groups[members] = found + used
        used += int(found.max()) + 1
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


def _renumbered(labels: np.ndarray) -> np.ndarray:
    _, first, numbers = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[numbers].astype(np.int64)
