"""Name clusters of faces as identities, and check the labels of photos against them."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from pipelines.core.sections.data import Curate
from pipelines.data.curation.clusters import cluster
from pipelines.data.curation.faces import Faces

_UNSAFE = re.compile(r"[^\w.-]+")


def find_identities(faces: Faces, params: Curate, similarity: float, sure: float) -> None:
    """Set `cluster`, `identity` and `similarity` (cosine to the mean of the cluster's other faces) of every candidate.

    `similarity` is the recogniser's cosine from which two groups of faces are one person, `sure` the cosine to the mean
    of the cluster's other faces that a face must have to be selected.

    Where rows have a `label`, the cluster with most photos of a label is the label's home and is named after it; photos
    without a face in their label's home are left out as disputed. Faces that are not similar enough to their cluster
    are left out, too (they stay in it); so are all but the most similar of several faces of a cluster in one photo.
    """
    rows = faces.rows
    members = np.flatnonzero(faces.candidates)
    clusters = cluster(faces.embeddings[members], similarity, params.neighbours, params.likeness)
    rows.loc[members, "cluster"] = clusters
    groups = [members[clusters == number] for number in range(clusters.max(initial=-1) + 1)]
    for group in groups:
        rows.loc[group, "similarity"] = faces.similarities(group)
    homes = _homes(faces)
    for group, name in zip(groups, _names(groups, homes, faces), strict=True):
        rows.loc[group, "identity"] = name
    _dispute(faces, homes)
    for group in groups:
        _keep_one_per_photo(faces, group)
        unlike = [row for row in group if faces.candidates[row] and rows.at[row, "similarity"] < sure]
        texts = [f"similarity {rows.at[row, 'similarity']:.2f} < {sure:g}" for row in unlike]
        faces.leave_out(unlike, "unlike_identity", texts)


def _homes(faces: Faces) -> dict[str, int]:
    """Return for every label the cluster in which most of its photos have a face (the first of equal ones)."""
    labelled = faces.rows[faces.rows["label"].notna() & (faces.rows["cluster"] >= 0)]
    homes: dict[str, int] = {}
    for label, part in labelled.groupby("label"):
        photos = part.groupby("cluster")["file_name"].nunique()
        homes[str(label)] = int(photos.index[int(photos.to_numpy().argmax())])
    return homes


def _names(groups: list[np.ndarray], homes: dict[str, int], faces: Faces) -> list[str]:
    """Return a folder name for every cluster: its most frequent home label, else person_00001, … by falling size."""
    counts = Counter(
        faces.rows.loc[faces.rows["cluster"] >= 0, ["label", "cluster"]].itertuples(index=False, name=None)
    )
    at_home: dict[int, list[str]] = {}
    for label in sorted(homes, key=lambda name: (-counts[name, homes[name]], name)):
        at_home.setdefault(homes[label], []).append(label)
    names = [""] * len(groups)
    taken: set[str] = set()
    for number in sorted(at_home):
        name = _UNSAFE.sub("_", at_home[number][0]).lstrip(".") or "_"
        while name.casefold() in taken:
            name += "_"
        taken.add(name.casefold())
        names[number] = name
    serial = 0
    for number in sorted(range(len(groups)), key=lambda item: (-len(groups[item]), item)):
        while not names[number]:
            serial += 1
            name = f"person_{serial:05d}"
            names[number] = name if name not in taken else ""
    return names


def _dispute(faces: Faces, homes: dict[str, int]) -> None:
    """Leave out photos without a face in their label's home, and labels that share it with a more frequent label."""
    rows = faces.rows
    owners: dict[int, str] = {}
    counts = rows[rows["cluster"] >= 0].groupby(["label", "cluster"], dropna=True)["file_name"].nunique()
    for label in sorted(homes, key=lambda name: (-counts[name, homes[name]], name)):
        owners.setdefault(homes[label], label)
    for (label, _), part in rows[rows["label"].notna() & (rows["cluster"] >= 0)].groupby(["label", "file_name"]):
        home = homes[str(label)]
        owner = owners[home]
        at_home = part.index[part["cluster"] == home]
        if owner != label:
            faces.leave_out(at_home, "label_disputed", [f"{label} looks like {owner}"] * len(at_home))
        elif not len(at_home):
            main = part.index[:1]
            other = owners.get(int(rows.at[main[0], "cluster"]))
            text = f"looks like {other}" if other else f"is unlike {label}'s others"
            cosine = faces.similarities(np.append(rows.index[rows["cluster"] == home], main[0]))[-1]
            faces.leave_out(main, "label_disputed", [f"{text} (similarity to {label} {cosine:.2f})"])


def _keep_one_per_photo(faces: Faces, group: np.ndarray) -> None:
    rows = faces.rows
    candidates = [row for row in group if faces.candidates[row]]
    best: dict[str, int] = {}
    for row in sorted(candidates, key=lambda item: (-np.nan_to_num(rows.at[item, "similarity"]), item)):
        name = rows.at[row, "file_name"]
        if best.setdefault(name, row) != row:
            kept = int(rows.at[best[name], "face_index"])
            faces.leave_out([row], "twice_in_photo", [f"face {kept} of the photo is more like the others"])
