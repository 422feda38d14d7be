"""Who is who: clusters become identities, and labels that photos came with are checked against them."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from pipelines.core.sections.data import Curate
from pipelines.data.curation.clusters import cluster
from pipelines.data.curation.faces import Faces

_UNSAFE = re.compile(r"[^\w.-]+")


def find_identities(faces: Faces, params: Curate) -> None:
    """Give every open face a cluster, a name for it and its similarity to the others of it.

    With labels (`label` of the rows), a cluster has the name of the label whose home it is, and photos that are
    elsewhere than their label's home are left out as disputed. Faces that are too unlike their cluster, and all but
    the likeliest of several in one photo, are left out.
    """
    rows = faces.rows
    members = np.flatnonzero(faces.open)
    clusters = cluster(faces.embeddings[members], params.similarity, params.neighbours, params.likeness)
    rows.loc[members, "cluster"] = clusters
    groups = [members[clusters == number] for number in range(clusters.max(initial=-1) + 1)]
    for group in groups:
        rows.loc[group, "similarity"] = faces.similarities(group)
    homes = _homes(faces)
    names = _names(groups, homes, faces)
    for group, name in zip(groups, names, strict=True):
        rows.loc[group, "identity"] = name
    _dispute(faces, homes, names)
    for group in groups:
        _once_a_photo(faces, group)
        unlike = [row for row in group if faces.open[row] and rows.at[row, "similarity"] < params.similarity]
        texts = [f"similarity {rows.at[row, 'similarity']:.2f} < {params.similarity:g}" for row in unlike]
        faces.leave_out(unlike, "unlike_identity", texts)


def _homes(faces: Faces) -> dict[str, int]:
    """Return for every label the cluster in which most of its photos have a face (of equals the first)."""
    known = faces.rows[faces.rows["label"].notna() & (faces.rows["cluster"] >= 0)]
    homes: dict[str, int] = {}
    for label, part in known.groupby("label"):
        photos = part.groupby("cluster")["file_name"].nunique()
        homes[str(label)] = int(photos.index[int(photos.to_numpy().argmax())])
    return homes


def _names(groups: list[np.ndarray], homes: dict[str, int], faces: Faces) -> list[str]:
    """Return a name that can be a folder's for every cluster: the label at home in it, else person_00001 by size."""
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


def _dispute(faces: Faces, homes: dict[str, int], names: list[str]) -> None:
    """Leave out photos none of whose faces is at home with their label, and all of a label that shares its home."""
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
            looks = f"looks like {other}" if other else f"is unlike {label}'s others"
            alone = faces.similarities(np.append(rows.index[rows["cluster"] == home], main[0]))[-1]
            faces.leave_out(main, "label_disputed", [f"{looks} (similarity to {label} {alone:.2f})"])


def _once_a_photo(faces: Faces, group: np.ndarray) -> None:
    rows = faces.rows
    open_rows = [row for row in group if faces.open[row]]
    best: dict[str, int] = {}
    for row in sorted(open_rows, key=lambda item: (-np.nan_to_num(rows.at[item, "similarity"]), item)):
        name = rows.at[row, "file_name"]
        if best.setdefault(name, row) != row:
            kept = int(rows.at[best[name], "face_index"])
            faces.leave_out([row], "twice_in_photo", [f"face {kept} of the photo is more like the others"])
