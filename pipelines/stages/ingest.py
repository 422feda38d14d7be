"""ingest: photos in common layouts become rows of `data/faces`; existing rows stay unchanged.

Photos are stored as they are; only their headers are decoded. A killed run leaves complete shards, after which the next
run continues: it writes the same files as an uninterrupted run.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.locks import hold
from pipelines.core.params import Params
from pipelines.core.sections.data import Ingest
from pipelines.data.ingest.contents import Content, read_contents
from pipelines.data.ingest.header import read_header
from pipelines.data.ingest.known_rows import content_key, known_rows, label_key, row_key
from pipelines.data.ingest.layout import Source, open_source
from pipelines.data.ingest.photo_files import Skipped
from pipelines.data.ingest.shards import Row, ShardWriter
from pipelines.data.ingest.summary import Summary, Tally, summarise
from pipelines.versions.forgotten import REASON, Forgotten, gate


@dataclass(frozen=True)
class Inputs:
    """`source`: a folder or file for `open_source`; `identity_depth`: leading folders that name a person (None: 1)."""

    source: Path
    layout: str = "auto"
    identity_depth: int | None = None


@dataclass(frozen=True)
class Outputs:
    """`faces`: the dataset folder, created if it is missing."""

    faces: Path


def run(params: Params, inputs: Inputs, outputs: Outputs) -> Summary:
    """Add the photos of `inputs.source` that `outputs.faces` does not hold yet, as new shards.

    A photo is identified by its file name and bytes. Forgotten people and photos are left out. Raises UserError where
    the source has no known layout, the dataset or the list of the forgotten cannot be read, or another ingest writes to
    the dataset; StageFailed where there is nothing to ingest.
    """
    source = open_source(inputs.source, inputs.layout, inputs.identity_depth)
    faces = outputs.faces
    if source.only is None and faces.resolve().is_relative_to(source.root):
        raise UserError(f"{faces}: is in the source {inputs.source}; choose a dataset folder outside of it")
    if faces.exists() and not faces.is_dir():
        raise UserError(f"{faces}: is a file; expected a folder for the shards")
    taken = UserError(f"{faces}: another ingest writes to it; wait for it to end")
    # The lock is beside the folder, not in it, since the folder's contents are versioned.
    with hold(faces.with_name(f".{faces.name}.lock"), taken):
        return _run(params.ingest, source, faces, gate(faces, source.root))


def _run(params: Ingest, source: Source, faces: Path, forgotten: Forgotten) -> Summary:
    from tqdm import tqdm

    max_bytes = params.max_file_mb * 2**20
    known = known_rows(faces)
    writer = ShardWriter(faces, params.shard_mb * 2**20)
    tally = Tally()
    added: list[int] = []
    items = read_contents(source.read(max_bytes), max_bytes)
    try:
        for item in tqdm(items, desc="ingest", unit=" files", total=source.count(), file=sys.stderr, mininterval=0.5):
            if isinstance(item, Skipped):
                tally.skip(item)
                continue
            labels = item.photo.labels
            if forgotten.entry_of(labels.identity, item.image_id) is not None:
                tally.skip(Skipped(item.photo.file_name, REASON))
                continue
            earlier = known.labels_of(row_key(item.photo.file_name, item.image_id))
            if earlier is None:
                writer.add(_row(item, params))
                added.append(content_key(item.image_id))
                continue
            tally.known += 1
            tally.changed_labels += earlier != label_key(labels.identity, labels.prompt, labels.face_prompt)
        writer.close()
    except BaseException:
        writer.abandon()
        raise
    tally.new_rows = len(added)
    contents = np.concatenate([known.contents, np.array(added, np.uint64)])
    if not len(contents):
        reasons = ", ".join(f"{count} {reason}" for reason, count in tally.skipped.items())
        raise StageFailed(f"{source.root}: no photo in it ({source.layout} layout; left out: {reasons or 'nothing'})")
    return summarise(faces, source.layout, tally, len(writer.written), contents)


def _row(content: Content, params: Ingest) -> Row:
    labels = content.photo.labels
    header = read_header(content.data)
    return {
        "image_id": content.image_id,
        "identity": labels.identity,
        "file_name": content.photo.file_name,
        "image": content.data,
        "format": header.format if header else None,
        "width": header.width if header else None,
        "height": header.height if header else None,
        "n_bytes": len(content.data),
        "prompt": labels.prompt,
        "face_prompt": labels.face_prompt,
        "source": labels.source or params.source,
        "licence": labels.licence or params.licence,
        "consent": labels.consent or params.consent,
    }
