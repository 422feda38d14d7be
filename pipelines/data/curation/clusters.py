"""Group embeddings by identity: average linkage by shared neighbours and cosine, then by cosine alone.

In the first round, the similarity of two groups of faces is one third of the mean cosine over all pairs between them,
plus two thirds of the similarity of their neighbour profiles, i.e. how their mutual neighbours are spread over all
groups. Similar people form their own neighbourhoods, although cosines alone would join them. The second round joins
groups with a high mean cosine: a person with many more photos than `count` has several neighbourhoods.

The more photos a group has, the less its mean cosines with other people vary, so that a threshold for two photos is
too strict for it. In the second round, a group of `count` photos and more is compared with the other faces of the pile:
its cosines are rescaled so that these have the median and the spread of the cosines of two faces (cohort normalisation
of scores, as in speaker recognition).

Average linkage does not join two groups for a single coincidental similarity, but it needs all pairs. Here, only
neighbours and groups with neighbours in common are compared, in parts of bounded size (SciPy's linkage), and the groups
are joined again in the same way until no two are similar enough. A group is stored as its mean vector and its profile:
the mean cosine of two groups is the scalar product of their means. The cost grows nearly linearly with the number of
faces.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.data.curation.neighbourhood import mutual, neighbours, profiles

# Parts of up to this many groups are linked exactly: a matrix of 32 MB.
_PART = 2000
# How many groups' profiles are compared with all others at once, and how many pairs' cosines are computed at once.
_BLOCK, _PAIRS = 1000, 20_000
# Large groups are compared with so many other faces of the pile at most, and are not rescaled with fewer at least.
_COHORT, _LEAST_COHORT = 2000, 100
# Standard deviations of a normal distribution in its median absolute deviation.
_DEVIATION = 1.4826
# The weight of shared neighbours; the rest is that of the mean cosine.
_SHARED_NEIGHBOURS = 2 / 3

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Rows, other rows, and their similarities."""


@dataclass(frozen=True)
class _Groups:
    """G groups of N faces: `means` (G, D) float32, `sizes` (G,), and the group `labels` (N,) of every face."""

    means: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray

    def joined(self, groups: np.ndarray) -> _Groups:
        """Merge the groups that have the same number in `groups` (G,)."""
        from scipy.sparse import csr_matrix

        sizes = np.bincount(groups, self.sizes)
        shares = (self.sizes / sizes[groups]).astype(np.float32)
        member = csr_matrix((shares, (groups, np.arange(len(groups)))), (len(sizes), len(groups)))
        return _Groups(member @ self.means, sizes, groups[self.labels])


def cluster(embeddings: np.ndarray, similarity: float, count: int, likeness: float) -> np.ndarray:
    """Return the cluster (N,) int64 of every embedding (N, D) unit norm; clusters are numbered by their first face.

    Two faces are neighbours if their cosine is at least `similarity` and each is among the `count` nearest of the
    other. The first round joins groups whose weighted mean of shared neighbours and cosine is at least `likeness`, in
    (0, 1); the second round those whose mean cosine is at least `similarity`.
    """
    labels = np.arange(len(embeddings), dtype=np.int64)
    if len(embeddings) < 2:
        return labels
    graph = mutual(embeddings, count, similarity)
    groups = _Groups(np.asarray(embeddings, np.float32), np.ones(len(embeddings)), labels)
    groups = _join_all(groups, lambda groups: _by_shared_neighbours(groups, graph, likeness))
    groups = _join_all(groups, lambda groups: _by_cosine(groups, embeddings, count, similarity))
    _, first, numbers = np.unique(groups.labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[numbers].astype(np.int64)


def _join_all(groups: _Groups, join: Callable[[_Groups], np.ndarray]) -> _Groups:
    """Join groups until `join`, which returns the new group (G,) of each, joins none."""
    while len(groups.sizes) > 1:
        found = join(groups)
        if found.max() + 1 == len(groups.sizes):
            break
        groups = groups.joined(found)
    return groups


def _by_shared_neighbours(groups: _Groups, graph: Any, likeness: float) -> np.ndarray:
    profile, means = profiles(graph, groups.labels), groups.means

    def similarities(some: np.ndarray) -> np.ndarray:
        return _likeness(means[some] @ means[some].T, (profile[some] @ profile[some].T).toarray())

    return _linked(len(means), _pairs_in_common(means, profile, likeness), similarities, likeness)


def _by_cosine(groups: _Groups, embeddings: np.ndarray, count: int, similarity: float) -> np.ndarray:
    means = groups.means
    norms = np.maximum(np.linalg.norm(means, axis=1), 1e-12)
    others, cosines = neighbours(means / norms[:, None], count)
    here, there = np.repeat(np.arange(len(means)), others.shape[1]), others.reshape(-1)
    present = there >= 0
    here, there = here[present], there[present]
    scale = _Scale.of(groups, embeddings, count)
    found = scale(cosines.reshape(-1)[present] * norms[here] * norms[there], here, there)
    near = found >= similarity
    pairs = here[near], there[near], found[near]

    def similarities(some: np.ndarray) -> np.ndarray:
        return scale(means[some] @ means[some].T, some[:, None], some[None])

    return _linked(len(means), pairs, similarities, similarity)


@dataclass(frozen=True)
class _Scale:
    """Rescales mean cosines of groups: `sizes`, `medians` and `spreads` (G,) of every group, and those of two faces."""

    sizes: np.ndarray
    medians: np.ndarray
    spreads: np.ndarray
    median: float
    spread: float

    @classmethod
    def of(cls, groups: _Groups, embeddings: np.ndarray, least: int) -> _Scale:
        """Compare the groups of at least `least` faces with other faces, evenly taken from all `embeddings` (N, D)."""
        some = np.unique(np.linspace(0, len(embeddings) - 1, min(len(embeddings), _COHORT)).astype(np.int64))
        faces, labels = embeddings[some].astype(np.float64), groups.labels[some]
        apart = labels[:, None] != labels[None]
        median, spread = _median_and_spread((faces @ faces.T)[apart]) if apart.any() else (0.0, 1.0)
        spread = spread or 1.0  # equal faces
        medians, spreads = np.full(len(groups.sizes), median), np.full(len(groups.sizes), spread)
        for group in np.flatnonzero(groups.sizes >= least):
            others = faces[labels != group]
            if len(others) >= _LEAST_COHORT:
                own, own_spread = _median_and_spread(others @ groups.means[group])
                if 0 < own_spread < spread:
                    medians[group], spreads[group] = own, own_spread
        return cls(groups.sizes, medians, spreads, median, spread)

    def __call__(self, cosines: np.ndarray, here: np.ndarray, there: np.ndarray) -> np.ndarray:
        """Return the mean cosines of groups `here` and `there` as those of two faces, by the larger of both groups."""
        larger = np.where(self.sizes[here] >= self.sizes[there], here, there)
        return self.median + (cosines - self.medians[larger]) * self.spread / self.spreads[larger]


def _median_and_spread(values: np.ndarray) -> tuple[float, float]:
    """Return the median and the standard deviation that the median distance to it implies for a normal distribution."""
    median = float(np.median(values))
    return median, float(np.median(np.abs(values - median))) * _DEVIATION


def _likeness(cosines: np.ndarray | float, shared_neighbours: np.ndarray) -> np.ndarray:
    return (1 - _SHARED_NEIGHBOURS) * np.asarray(cosines) + _SHARED_NEIGHBOURS * shared_neighbours


def _pairs_in_common(means: np.ndarray, profile: Any, likeness: float) -> Pairs:
    """Return the pairs of groups that have neighbours in common and a similarity of at least `likeness`."""
    found = []
    transposed = profile.T.tocsr()
    for start in range(0, len(means), _BLOCK):
        shared = (profile[start : start + _BLOCK] @ transposed).tocoo()
        here, there, common = shared.row + np.int64(start), shared.col.astype(np.int64), shared.data
        # A cosine is at most 1: pairs that even a cosine of 1 would not join are dropped before theirs is computed.
        near = np.flatnonzero((here < there) & (_likeness(1.0, common) >= likeness))
        for some in np.array_split(near, len(near) // _PAIRS + 1):
            cosines = np.einsum("ij,ij->i", means[here[some]], means[there[some]])
            values = _likeness(cosines, common[some])
            enough = values >= likeness
            found.append((here[some][enough], there[some][enough], values[enough]))
    here, there, values = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return here, there, values


def _linked(nodes: int, pairs: Pairs, similarities: Callable[[np.ndarray], np.ndarray], threshold: float) -> np.ndarray:
    """Return the group (N,) from 0 of every node by average linkage within the parts connected by `pairs`.

    `similarities(members)` returns the similarities (M, M) of the members of a part.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    parts = _parts(nodes, *pairs)
    groups = np.empty(nodes, np.int64)
    order, used = np.argsort(parts, kind="stable"), 0
    for members in np.split(order, np.flatnonzero(np.diff(parts[order])) + 1):
        found = np.zeros(1, np.int64)
        if len(members) > 1:
            distances = 1 - similarities(members)[np.triu_indices(len(members), 1)]
            found = fcluster(linkage(np.clip(distances, 0, 2), "average"), 1 - threshold, "distance") - 1
        groups[members] = found + used
        used += int(found.max()) + 1
    return groups


def _parts(nodes: int, here: np.ndarray, there: np.ndarray, similarities: np.ndarray) -> np.ndarray:
    """Return the part (N,) of every node: its connected component; too large ones are split, keeping close pairs."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

    # An entry of zero would not be an edge.
    lengths = np.maximum(1 - similarities, 1e-9)
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
