"""curate: turn photos into a balanced set with one folder per person, and record why each other photo is left out."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.files import atomic_folder
from pipelines.core.formats.folders import enter_state
from pipelines.core.formats.table import CURATION
from pipelines.core.locks import hold
from pipelines.core.params import Params
from pipelines.core.words import counted
from pipelines.data.curation.choice import choose
from pipelines.data.curation.cut import Box, free_square
from pipelines.data.curation.faces import Faces
from pipelines.data.curation.identities import find_identities
from pipelines.data.curation.quality import leave_out_near_duplicates, leave_out_poor, leave_out_repeats
from pipelines.data.curation.records import FACES_SCHEMA, LEFT_OUT, REASONS, write_rows
from pipelines.data.curation.report import write_report
from pipelines.data.curation.survey import (
    Gate,
    PhotoFolder,
    analyse_new,
    check_photo_domains,
    list_photos,
    read_rows,
    read_thumbnails,
    state_folder,
)
from pipelines.data.curation.write import Chosen, WriteTask, write_chosen
from pipelines.data.faces.calibration import Recogniser, pack_traits, recogniser_of
from pipelines.data.ingest.photo_files import FoundPhoto
from pipelines.data.rights import COLUMNS
from pipelines.data.spark import run_tasks, spark_context

STATE = Path(".dynamicid/curate")
TABLE, REPORT = "faces.parquet", "report.html"
_TASK_PHOTOS = 128


@dataclass(frozen=True)
class Inputs:
    """`source`: the folder of photos; `identity_depth`: how many leading folders name a person (0: no labels).

    `gate`: why a photo of a person (label, sha256) must not be taken, or None; None: every photo may be.
    """

    source: Path
    identity_depth: int = 0
    gate: Gate | None = None


@dataclass(frozen=True)
class Outputs:
    """`selected`: the output folder, replaced as a whole; `state`: results of the analysis, kept between runs."""

    selected: Path
    state: Path = STATE


@dataclass(frozen=True)
class Report:
    """Numbers of photos and faces found, people and photos selected, rows left out by reason, photos analysed now."""

    photos: int
    faces: int
    identities: int
    selected: int
    left_out: dict[str, int]
    looked_at: int


@dataclass(frozen=True)
class NetworkThresholds:
    """Thresholds of the face pack's networks.

    From the cosine `similarity` on two groups are one person; a face is surely one of a group if its cosine to the mean
    of the others is at least `sure`; below `copies` no two pictures are copies; a face with a score below `doubtful`
    may be none (None: not known).
    """

    similarity: float
    sure: float
    copies: float
    doubtful: float | None


def run(params: Params, inputs: Inputs, outputs: Outputs) -> Report:
    """Write photos by identity with their texts and rights, `faces.parquet` and `report.html` to `outputs.selected`.

    Raise UserError if the configuration is wrong, the recogniser has no threshold, or the output folder contains other
    files; StageFailed if no person has enough usable photos. In each case the earlier output is kept.
    """
    source, out = inputs.source, outputs.selected
    thresholds = _thresholds(params, recogniser_of(params.preprocess))
    photos = list_photos(source, inputs.identity_depth, params.ingest.max_file_mb * 2**20, inputs.gate)
    if out.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{out}: is inside the source {source}; choose a folder outside of it")
    _check_replaceable(out)
    check_photo_domains(params, source, photos)
    taken = UserError(f"{outputs.state}: another curate run uses this folder; wait until it ends")
    with hold(outputs.state / ".lock", taken):
        enter_state(CURATION, outputs.state)
        folder = state_folder(params, outputs.state, source).resolve()
        return _run(params, photos, folder, out, thresholds=thresholds, labelled=inputs.identity_depth > 0)


def _run(
    params: Params, source: PhotoFolder, folder: Path, out: Path, *, thresholds: NetworkThresholds, labelled: bool
) -> Report:
    with atomic_folder(out) as part:
        with spark_context(params.preprocess.master, "dynamicid curate", params.preprocess.spark) as context:
            analysed = analyse_new(source, params, folder, context)
            faces = Faces(read_rows(source, folder))
            chosen = decide(params, source, faces, thresholds=thresholds, labelled=labelled)
            _write(params, source, faces, chosen, out=part.resolve(), context=context)
        unread = [
            {"file_name": item.file_name, "status": LEFT_OUT, "reason": "not_read", "detail": item.reason}
            for item in source.unread
        ]
        table = pa.concat_tables([faces.table(), pa.Table.from_pylist(unread, schema=FACES_SCHEMA)])
        counts = Counter(table["reason"].drop_null().to_pylist())
        left_out = {reason: counts[reason] for reason in REASONS if counts[reason]}
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "none"
        selected = faces.rows[faces.rows["selected_file"].notna()]
        if selected.empty:
            raise StageFailed(f"{out}: no person has {params.curate.min_photos} usable photos; left out: {reasons}")
        write_rows(table, part / TABLE)
        page = write_report(
            faces,
            table,
            params.curate,
            similarity=thresholds.similarity,
            doubtful=thresholds.doubtful,
            thumbnails=partial(read_thumbnails, folder),
        )
        (part / REPORT).write_text(page, encoding="utf-8")
    n_photos, n_faces = len(source.photos) + len(unread), int(faces.rows["face_index"].notna().sum())
    people = int(selected["identity"].nunique())
    print(
        f"curate: {counted(n_photos, 'photo')} ({analysed} analysed now), {counted(n_faces, 'face')}; "
        f"{counted(len(selected), 'photo')} of {counted(people, 'person', 'people')} selected; left out: {reasons}",
        file=sys.stderr,
    )
    return Report(n_photos, n_faces, people, len(selected), left_out, analysed)


def _thresholds(params: Params, recogniser: Recogniser) -> NetworkThresholds:
    similarity = recogniser.similarity(params.curate.similarity, "curate.similarity")
    copies = recogniser.known.copies if recogniser.known else (1 + similarity) / 2
    # The mean of a group is nearer to a stranger than its single photos are: its chance differences cancel out.
    typical = recogniser.known.same if recogniser.known else similarity
    sure = max(similarity, (similarity + typical) / 2)
    return NetworkThresholds(similarity, sure, copies, pack_traits(params.preprocess).doubtful)


def decide(
    params: Params, source: PhotoFolder, faces: Faces, *, thresholds: NetworkThresholds, labelled: bool
) -> dict[str, list[int]]:
    """Note the reasons of the faces that are left out; return the chosen rows of every identity."""
    section = params.curate
    if labelled:
        faces.rows["label"] = [source.photos[name].labels.identity for name in faces.rows["file_name"]]
    leave_out_repeats(faces)
    leave_out_poor(faces, section)
    find_identities(faces, section, thresholds.similarity, thresholds.sure)
    leave_out_near_duplicates(faces, section, thresholds.copies)
    faces.rows["cut"] = _cuts(faces)
    return choose(faces, section)


def _cuts(faces: Faces) -> list[Box | None]:
    """Return per row the square to cut from a photo of several faces (None: whole photo); leave out crowded faces."""
    rows = faces.rows
    cuts: list[Box | None] = [None] * len(rows)
    of_photo = {str(name): part.index.to_numpy() for name, part in rows[rows["n_faces"] > 1].groupby("file_name")}
    for row in np.flatnonzero(faces.candidates & (rows["n_faces"] > 1).to_numpy()).tolist():
        others = faces.boxes[[other for other in of_photo[rows.at[row, "file_name"]] if other != row]]
        width, height = int(rows.at[row, "width"]), int(rows.at[row, "height"])
        cuts[row] = free_square(width, height, faces.boxes[row], others)
        if cuts[row] is None:
            faces.leave_out([row], "crowded")
    return cuts


def _write(
    params: Params, source: PhotoFolder, faces: Faces, chosen: dict[str, list[int]], *, out: Path, context: Any
) -> None:
    """Write the chosen faces on the workers, record files and texts; leave out identities with too few captions."""
    rows = faces.rows
    items = [
        _chosen(faces, row, source.photos[rows.at[row, "file_name"]], out / name / str(number))
        for name, members in chosen.items()
        for number, row in enumerate(members)
    ]
    if not items:
        return
    settings = params.model_dump_json(by_alias=True)
    starts = range(0, len(items), _TASK_PHOTOS)
    tasks = [WriteTask(tuple(items[start : start + _TASK_PHOTOS]), settings) for start in starts]
    weights = [len(task.faces) for task in tasks]
    files = {item.row: item.file for item in items}
    for answer in run_tasks(context, tasks, write_chosen, weights=weights, title="writing photos", unit="photos"):
        if isinstance(answer, str):
            raise UserError(answer)
        for item in answer:
            if item.failed:
                faces.leave_out([item.row], "no_caption")
                continue
            rows.at[item.row, "prompt"], rows.at[item.row, "face_prompt"] = item.prompt, item.face_prompt
            rows.at[item.row, "selected_file"] = Path(files[item.row]).relative_to(out).as_posix()
    for name, members in chosen.items():
        kept = [row for row in members if rows.at[row, "selected_file"] is not None]
        if len(kept) < params.curate.min_photos:
            shutil.rmtree(out / name, ignore_errors=True)
            rows.loc[kept, ["selected_file", "prompt", "face_prompt"]] = None
            faces.leave_out(kept, "too_few", [f"{len(kept)} of {name} have a caption"] * len(kept))


def _chosen(faces: Faces, row: int, photo: FoundPhoto, stem: Path) -> Chosen:
    rows = faces.rows
    alone = rows.at[row, "n_faces"] == 1
    cut = rows.at[row, "cut"]
    suffix = ".jpg" if cut is not None else PurePosixPath(photo.file_name).suffix.lower() or ".jpg"
    x0, y0, x1, y1 = (float(value) for value in faces.boxes[row])
    return Chosen(
        row=row,
        path=str(photo.path),
        file=f"{stem}{suffix}",
        turned=int(rows.at[row, "turned"]),
        cut=cut,
        bbox=(x0, y0, x1, y1),
        # The texts of a photo of several people describe all of them.
        prompt=photo.labels.prompt if alone else None,
        face_prompt=photo.labels.face_prompt if alone else None,
        expression=rows.at[row, "expression"],
        yaw=float(rows.at[row, "yaw"]),
        rights={name: value for name in COLUMNS if (value := getattr(photo.labels, name)) is not None},
    )


def _check_replaceable(out: Path) -> None:
    """Raise UserError if the output folder, which is replaced as a whole, contains anything but an earlier output."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; expected a folder for the selected photos")
    if out.is_dir() and any(out.iterdir()) and not (out / TABLE).is_file():
        raise UserError(f"{out}: would be replaced, but contains other files; choose another --out")
