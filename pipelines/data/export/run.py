"""Export rows of a dataset into a layout."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from tqdm import tqdm

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.formats.folders import EXPORT_MARKER
from pipelines.core.formats.table import EXPORT, KEY
from pipelines.core.sections.data import Export
from pipelines.data.export.huggingface import HubWriter
from pipelines.data.export.rows import Selection, accepted_rows, dataset_rows
from pipelines.data.export.sidecars import SidecarsWriter
from pipelines.data.export.target import Target, new_folder
from pipelines.data.export.variface import FoldersWriter
from pipelines.data.export.webdataset_tar import TarWriter
from pipelines.data.same_photos import check_same_photos

Layout = Literal["sidecars", "variface", "consistentid", "webdataset", "huggingface"]
LAYOUTS: tuple[str, ...] = get_args(Layout)


@dataclass(frozen=True)
class Inputs:
    """The original dataset and the preprocessed one; the layout decides which of them is read."""

    faces: Path
    processed: Path


@dataclass(frozen=True)
class ExportReport:
    """The number of photos written, and of rows left out by reason."""

    layout: str
    photos: int
    left_out: dict[str, int]


def export(layout: str, inputs: Inputs, out: Path, params: Export, wanted: Selection) -> ExportReport:
    """Write the wanted rows into the new folder `out`, which appears when it is complete.

    `sidecars` and `consistentid` hold results of preprocessing, so they take accepted rows of `inputs.processed`; the
    others take the original photos. Raises UserError on an unknown layout or person, a folder that is not empty or a
    missing dataset, StageFailed where no row is left to export or the two datasets are of different versions.
    """
    if layout not in LAYOUTS:
        raise UserError(f"layout {layout!r}: expected one of {', '.join(LAYOUTS)}")
    for folder in (inputs.faces, inputs.processed):
        if out.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{out}: is in the dataset {folder}; choose a folder outside of it")
    if layout in ("sidecars", "consistentid"):
        check_same_photos(inputs.faces, inputs.processed)
    with new_folder(out) as target:
        target.write(EXPORT_MARKER, json.dumps({KEY: EXPORT.version, "layout": layout}).encode() + b"\n")
        if layout == "consistentid":
            count = _consistentid(inputs, target, params, wanted)
        else:
            sidecars = layout == "sidecars"
            rows = accepted_rows(inputs.processed, wanted) if sidecars else dataset_rows(inputs.faces, wanted)
            count = 0
            with closing(_WRITERS[layout](target, params.shard_mb * 2**20)) as writer:
                for row in tqdm(rows, desc="export", unit=" photos", file=sys.stderr, mininterval=0.5):
                    writer.add(row)
                    count += 1
        wanted.check_people()
        if not count:
            reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(wanted.left_out.items()))
            raise StageFailed(f"{out}: no row to export (left out: {reasons or 'nothing'})")
    return ExportReport(layout, count, dict(sorted(wanted.left_out.items())))


def _consistentid(inputs: Inputs, target: Target, params: Export, wanted: Selection) -> int:
    from pipelines.data.export.consistentid import export as write
    from pipelines.data.export.parsing import FaceParser

    parser = FaceParser(params.parsing) if params.parsing is not None else None
    try:
        return write(inputs.faces, inputs.processed, wanted, target, parser)
    except KeyError as error:
        raise StageFailed(f"{error.args[0]}: the two folders are of different versions; run preprocess first") from None


_WRITERS: dict[str, Any] = {
    "sidecars": SidecarsWriter,
    "variface": FoldersWriter,
    "webdataset": TarWriter,
    "huggingface": HubWriter,
}
