"""Leave out unusable faces, repeated photos and near-duplicates."""

from __future__ import annotations

import numpy as np

from pipelines.core.sections.data import Curate
from pipelines.data.curation.faces import Faces, unit_textures
from pipelines.data.curation.neighbourhood import neighbours

# Pairs of faces whose textures are compared at once: about 400 MB.
_PAIRS = 100_000


def leave_out_repeats(faces: Faces) -> None:
    """Leave out every file with the same bytes as an earlier one by name."""
    rows = faces.rows
    first = rows[rows["image_id"].notna()].groupby("image_id")["file_name"].transform("first")
    repeated = first.index[(first != rows.loc[first.index, "file_name"]).to_numpy()]
    # This replaces every other reason: a copy is not examined further.
    rows.loc[repeated, "reason"] = "duplicate"
    rows.loc[repeated, "detail"] = [f"same bytes as {name}" for name in first[repeated]]


def leave_out_poor(faces: Faces, params: Curate) -> None:
    """Leave out photos without a face and faces that are small, uncertain, blurred, turned away or cut off."""
    rows = faces.rows
    faces.leave_out(rows["face_index"].isna().to_numpy(), "no_face")
    _below(faces, "side", params.min_face_side, "small_face", "px")
    _below(faces, "det_score", params.min_score, "uncertain_face")
    _below(faces, "sharpness", params.min_sharpness, "blurred")
    for name, bound in (("yaw", params.max_yaw), ("pitch", params.max_pitch)):
        turned = np.flatnonzero(faces.candidates & (rows[name].abs() > bound).to_numpy())
        texts = [f"{name} {rows.at[row, name]:.0f}°, at most {bound:g}°" for row in turned]
        faces.leave_out(turned, "turned_away", texts)
    outside = _outside(faces)
    cut = np.flatnonzero(faces.candidates & (outside > params.max_outside_share))
    faces.leave_out(cut, "cut_off", [f"{outside[row]:.2f} of the face box is outside of the photo" for row in cut])


def leave_out_near_duplicates(faces: Faces, params: Curate, copies: float) -> None:
    """Leave out all but the best of nearly identical pictures of a face (recompressed, resized, cropped).

    Pairs are found among the nearest neighbours of the embeddings, with a cosine of at least `copies`, and compared by
    the grey values of the aligned face.
    """
    rows = np.flatnonzero(faces.candidates)
    if len(rows) < 2:
        return
    others, cosines = neighbours(faces.embeddings[rows], params.neighbours)
    here, place = np.nonzero((cosines >= copies) & (others >= 0))
    there = others[here, place]
    same = _same_grey(faces.textures[rows], here, there, params.duplicate_similarity)
    same_photo: dict[int, set[int]] = {}
    for one, other in zip(here[same].tolist(), there[same].tolist(), strict=True):
        same_photo.setdefault(one, set()).add(other)
        same_photo.setdefault(other, set()).add(one)
    quality = faces.quality()[rows]
    # The best first: each face that is kept removes its direct copies, but not the copies of those copies.
    removed: set[int] = set()
    for best in sorted(same_photo, key=lambda row: (-quality[row], row)):
        if best in removed:
            continue
        for copy in sorted(same_photo[best] - removed):
            removed.add(copy)
            faces.leave_out([int(rows[copy])], "near_duplicate", [f"of {_name(faces, int(rows[best]))}"])


def _same_grey(textures: np.ndarray, here: np.ndarray, there: np.ndarray, bound: float) -> np.ndarray:
    """Return which pairs of textures correlate at least `bound`."""
    same = np.zeros(len(here), bool)
    for start in range(0, len(here), _PAIRS):
        some = slice(start, start + _PAIRS)
        one, other = (unit_textures(textures[rows[some]]) for rows in (here, there))
        same[some] = np.einsum("ij,ij->i", one, other) >= bound
    return same


def _below(faces: Faces, column: str, bound: float, reason: str, unit: str = "") -> None:
    values = faces.rows[column]
    low = np.flatnonzero(faces.candidates & (values < bound).to_numpy())
    faces.leave_out(low, reason, [f"{values[row]:.4g}{unit} < {bound:g}{unit}" for row in low])


def _outside(faces: Faces) -> np.ndarray:
    """Return the share (N,) of each face box that is outside of its photo; 0 where there is no box."""
    width, height = (faces.rows[name].to_numpy(float, na_value=np.nan) for name in ("width", "height"))
    x0, y0, x1, y1 = faces.boxes.T
    inside = np.clip(np.minimum(x1, width) - np.maximum(x0, 0), 0, None)
    inside = inside * np.clip(np.minimum(y1, height) - np.maximum(y0, 0), 0, None)
    return np.nan_to_num(1 - inside / np.maximum((x1 - x0) * (y1 - y0), 1e-6), nan=0.0)


def _name(faces: Faces, row: int) -> str:
    name, index = faces.rows.at[row, "file_name"], int(faces.rows.at[row, "face_index"])
    return f"{name}, face {index}" if index else str(name)
