"""curate: from a pile of photos to an identity-labelled, balanced set, with the reason for every photo left out."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.files import atomic_folder
from pipelines.core.locks import hold
from pipelines.core.params import Params
from pipelines.data.curation.choice import choose
from pipelines.data.curation.cut import Box, free_square
from pipelines.data.curation.faces import Faces
from pipelines.data.curation.identities import find_identities
from pipelines.data.curation.quality import leave_out_near_duplicates, leave_out_poor, leave_out_repeats
from pipelines.data.curation.records import REASONS, write_rows
from pipelines.data.curation.report import write_report
from pipelines.data.curation.survey import Pile, list_pile, look, read_seen, state_folder
from pipelines.data.curation.write import Chosen, Errand, write_chosen
from pipelines.data.ingest.photo_files import FoundPhoto
from pipelines.data.spark import run_tasks, spark_context

STATE = Path(".dynamicid/curate")
TABLE, REPORT = "faces.parquet", "report.html"
_TASK_PHOTOS = 128


@dataclass(frozen=True)
class Inputs:
    """`source`: a folder of photos; `identity_depth`: how many leading folders name a person (0: labels unknown)."""

    source: Path
    identity_depth: int = 0


@dataclass(frozen=True)
class Outputs:
    """`selected`: the folder that is made, replaced as a whole; `state`: where looks are kept between runs."""

    selected: Path
    state: Path = STATE


@dataclass(frozen=True)
class Report:
    """Photos and faces found, people and photos selected, rows left out by reason, photos that this run looked at."""

    photos: int
    faces: int
    identities: int
    selected: int
    left_out: dict[str, int]
    looked_at: int


def run(params: Params, inputs: Inputs, outputs: Outputs) -> Report:
    """Curate `inputs.source` into `outputs.selected`: `<identity>/<n>.jpg`, texts, `faces.parquet`, `report.html`.

    Raises UserError on wrong configuration or a folder that holds something else; StageFailed where nobody has
    enough usable photos. Then a former output stays as it is.
    """
    source, out = inputs.source, outputs.selected
    pile = list_pile(source, inputs.identity_depth, params.ingest.max_file_mb * 2**20)
    if out.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{out}: lies in the source {source}; choose a folder outside of it")
    _check_replaceable(out)
    taken = UserError(f"{outputs.state}: another curate run works here; wait for it to end")
    with hold(outputs.state / ".lock", taken):
        folder = state_folder(params, outputs.state, source).resolve()
        return _run(params, pile, folder, out, labelled=inputs.identity_depth > 0)


def _run(params: Params, pile: Pile, folder: Path, out: Path, *, labelled: bool) -> Report:
    with atomic_folder(out) as part:
        with spark_context(params.preprocess.master, "dynamicid curate", params.preprocess.spark) as context:
            looked_at = look(pile, params, folder, context)
            faces, chosen = decide(params, pile, read_seen(pile, folder), labelled=labelled)
            _write(params, pile, faces, chosen, out=part.resolve(), context=context)
        table = _with_unread(faces.table(), pile)
        selected = int(faces.rows["selected_file"].notna().sum())
        if not selected:
            reasons = ", ".join(f"{count} {reason}" for reason, count in left_out(table).items())
            raise StageFailed(f"{out}: nobody has {params.curate.min_photos} usable photos; left out: {reasons}")
        write_rows(table, part / TABLE)
        (part / REPORT).write_text(write_report(faces, table, params.curate), encoding="utf-8")
    found = int(faces.rows["face_index"].notna().sum())
    people = int(faces.rows.loc[faces.rows["selected_file"].notna(), "identity"].nunique())
    report = Report(len(pile.photos) + len(pile.unread), found, people, selected, left_out(table), looked_at)
    _tell(report)
    return report


def decide(params: Params, pile: Pile, seen: pa.Table, *, labelled: bool) -> tuple[Faces, dict[str, list[int]]]:
    """Return all faces with the reasons of those left out, and the chosen rows of every identity."""
    section = params.curate
    faces = Faces(seen)
    if labelled:
        faces.rows["label"] = [pile.photos[name].labels.identity for name in faces.rows["file_name"]]
    leave_out_repeats(faces)
    leave_out_poor(faces, section)
    find_identities(faces, section)
    leave_out_near_duplicates(faces, section)
    faces.rows["cut"] = _cuts(faces)
    return faces, choose(faces, section)


def left_out(table: pa.Table) -> dict[str, int]:
    """Return how many rows were left out, by reason, in the order of REASONS."""
    counts = Counter(table["reason"].drop_null().to_pylist())
    return {reason: counts[reason] for reason in REASONS if counts[reason]}


def _cuts(faces: Faces) -> list[Box | None]:
    """Return the square to cut for every open face beside others (None: the whole photo); leave out crowded ones."""
    rows = faces.rows
    cuts: list[Box | None] = [None] * len(rows)
    of_photo = {str(name): part.index.to_numpy() for name, part in rows[rows["n_faces"] > 1].groupby("file_name")}
    for row in np.flatnonzero(faces.open & (rows["n_faces"] > 1).to_numpy()).tolist():
        others = faces.boxes[[other for other in of_photo[rows.at[row, "file_name"]] if other != row]]
        width, height = int(rows.at[row, "width"]), int(rows.at[row, "height"])
        cuts[row] = free_square(width, height, faces.boxes[row], others)
        if cuts[row] is None:
            faces.leave_out([row], "crowded")
    return cuts


def _write(params: Params, pile: Pile, faces: Faces, chosen: dict[str, list[int]], *, out: Path, context: Any) -> None:
    """Have the workers write the chosen faces, and record files and texts; an identity may become too small by that."""
    errand: list[Chosen] = []
    for name, members in chosen.items():
        for number, row in enumerate(members):
            photo = pile.photos[faces.rows.at[row, "file_name"]]
            errand.append(_chosen(faces, row, photo, out / name / f"{number}{_suffix(faces, row)}"))
    settings = params.model_dump_json(by_alias=True)
    tasks = [
        Errand(tuple(errand[start : start + _TASK_PHOTOS]), settings) for start in range(0, len(errand), _TASK_PHOTOS)
    ]
    if not tasks:
        return
    weights = [len(task.faces) for task in tasks]
    rows = faces.rows
    files = {item.row: item.file for item in errand}
    for answer in run_tasks(context, tasks, write_chosen, weights=weights, title="writing photos", unit="photos"):
        if isinstance(answer, str):
            raise UserError(answer)
        for item in answer:
            if item.prompt is None:
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


def _chosen(faces: Faces, row: int, photo: FoundPhoto, file: Path) -> Chosen:
    rows = faces.rows
    alone = rows.at[row, "n_faces"] == 1
    x0, y0, x1, y1 = (float(value) for value in faces.boxes[row])
    return Chosen(
        row=row,
        path=str(photo.path),
        file=str(file),
        cut=rows.at[row, "cut"],
        bbox=(x0, y0, x1, y1),
        # The texts of a photo of several people are about all of them.
        prompt=photo.labels.prompt if alone else None,
        face_prompt=photo.labels.face_prompt if alone else None,
        expression=rows.at[row, "expression"],
        yaw=float(rows.at[row, "yaw"]),
    )


def _suffix(faces: Faces, row: int) -> str:
    if faces.rows.at[row, "cut"] is not None:
        return ".jpg"
    return PurePosixPath(faces.rows.at[row, "file_name"]).suffix.lower() or ".jpg"


def _with_unread(table: pa.Table, pile: Pile) -> pa.Table:
    rows = [
        {"file_name": item.file_name, "status": "left_out", "reason": "not_read", "detail": item.reason}
        for item in pile.unread
    ]
    return pa.concat_tables([table, pa.Table.from_pylist(rows, schema=table.schema)])


def _check_replaceable(out: Path) -> None:
    """Raise UserError where the output folder holds anything but an earlier output: it is replaced as a whole."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; expected a folder for the selected photos")
    if out.is_dir() and any(out.iterdir()) and not (out / TABLE).is_file():
        raise UserError(f"{out}: would be replaced, but holds something else; choose another --out")


def _tell(report: Report) -> None:
    reasons = ", ".join(f"{count} {reason}" for reason, count in report.left_out.items()) or "none"
    print(
        f"curate: {report.photos} photos ({report.looked_at} looked at now), {report.faces} faces; "
        f"{report.selected} photos of {report.identities} people selected; left out: {reasons}",
        file=sys.stderr,
    )
