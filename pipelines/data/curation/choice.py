"""Choose the faces of an identity: first all expressions and poses, then those that differ most."""

from __future__ import annotations

import numpy as np

from model.face.face_prompts import POSES, pose_of_yaw
from pipelines.core.sections.data import Curate
from pipelines.data.curation.faces import Faces

_DEGREES = 30.0
# Landmarks of one person move by a few hundredths of the crop frame's side.
_MOTION = 0.02


def choose(faces: Faces, params: Curate) -> dict[str, list[int]]:
    """Return the chosen rows of every identity, and leave the other candidates out.

    An identity with fewer than `min_photos` candidates is left out. Where it has more than `max_photos`, the most
    diverse ones are chosen.
    """
    rows = faces.rows
    quality = faces.quality()
    chosen: dict[str, list[int]] = {}
    for name, part in rows.loc[np.flatnonzero(faces.candidates)].groupby("identity", sort=True):
        members = part.index.to_numpy()
        if len(members) < params.min_photos:
            texts = [f"{len(members)} of {name}, at least {params.min_photos}"] * len(members)
            faces.leave_out(members, "too_few", texts)
            continue
        taken = diverse(members, faces, quality, params.max_photos)
        chosen[str(name)] = sorted(taken)
        faces.leave_out(np.setdiff1d(members, taken), "enough")
    return chosen


def diverse(members: np.ndarray, faces: Faces, quality: np.ndarray, count: int) -> list[int]:
    """Return up to `count` of the rows `members`, spread over expression and pose.

    Cells of expression and pose are visited in turn, those with fewest rows first. From each cell the best picture is
    taken first, then the one whose landmarks and head pose differ most from those already taken from it.
    """
    cells: dict[tuple[str, int], list[int]] = {}
    for row in members.tolist():
        expression = faces.rows.at[row, "expression"] or ""
        pose = POSES.index(pose_of_yaw(float(faces.rows.at[row, "yaw"])))
        cells.setdefault((expression, pose), []).append(row)
    motion = _motion(members, faces)
    place = {row: index for index, row in enumerate(members.tolist())}
    order = sorted(cells, key=lambda cell: (len(cells[cell]), cell))
    taken: list[int] = []
    taken_of: dict[tuple[str, int], list[int]] = {cell: [] for cell in cells}
    while len(taken) < min(count, len(members)):
        for cell in order:
            left = [row for row in cells[cell] if row not in taken_of[cell]]
            if not left or len(taken) == count:
                continue
            if taken_of[cell]:
                earlier = motion[[place[row] for row in taken_of[cell]]]
                distances = [float(np.linalg.norm(earlier - motion[place[row]], axis=1).min()) for row in left]
                best = left[int(np.argmax(np.round(distances, 6)))]
            else:
                best = max(left, key=lambda row: (quality[row], -row))
            taken_of[cell].append(best)
            taken.append(best)
    return taken


def _motion(members: np.ndarray, faces: Faces) -> np.ndarray:
    """Return (N, 138): offsets of each face's landmarks from their mean, and its yaw and pitch, in comparable units."""
    points = faces.landmarks[members].reshape(len(members), -1)
    points = (points - points.mean(0)) / (_MOTION * np.sqrt(points.shape[1]))
    angles = faces.rows.loc[members, ["yaw", "pitch"]].to_numpy(float) / _DEGREES
    return np.hstack([points, angles])
