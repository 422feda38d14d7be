"""ingest: photos in common layouts become rows of `data/faces`; existing rows stay unchanged.

Photos are stored as they are; only their headers are decoded. A killed run leaves complete shards, after which the next
run continues: it writes the same files as an uninterrupted run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.locks import hold
from pipelines.core.params import Params
from pipelines.core.sections.data import Ingest
from pipelines.data.ingest.contents import Content, read_contents
from pipelines.data.ingest.header import read_header
from pipelines.data.ingest.known_rows import changed_rights, content_key, known_rows, label_key, row_key
from pipelines.data.ingest.label_join import Absent
from pipelines.data.ingest.layout import Source, open_source
from pipelines.data.ingest.photo_files import FoundPhoto, Labels, Skipped, Unmatched
from pipelines.data.ingest.shards import Row, ShardWriter
from pipelines.data.ingest.summary import Summary, Tally, UnmatchedLabels, summarise
from pipelines.versions.forgotten import REASON, Forgotten, gate

CHANGED = "the photo is known with another {}, which its row keeps; ingest into a new folder to change it"


@dataclass(frozen=True)
class Inputs:
    """`source`: a folder or file for `open_source`; `identity_depth`: leading folders that name a person (None: 1).

    `accept_unmatched`: go on although labels reach no row. `absent`: names of photos that were removed from the source;
    their labels are no fault.
    """

    source: Path
    layout: str = "auto"
    identity_depth: int | None = None
    accept_unmatched: bool = False
    absent: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Outputs:
    """`faces`: the dataset folder, created if it is missing."""

    faces: Path


def run(params: Params, inputs: Inputs, outputs: Outputs) -> Summary:
    """Add the photos of `inputs.source` that `outputs.faces` does not hold yet, as new shards.

    A photo is identified by its file name and bytes. Forgotten people and photos are left out. Raises UserError where
    the source has no known layout, the dataset or the list of the forgotten cannot be read, or another ingest writes to
    the dataset; StageFailed where there is nothing to ingest; UnmatchedLabels where labels of the source reach no row.
    In each case nothing is added.
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
        return _run(params, source, faces, gate(faces, source.root), inputs)


def _run(params: Params, source: Source, faces: Path, forgotten: Forgotten, inputs: Inputs) -> Summary:
    from tqdm import tqdm

    max_bytes = params.ingest.max_file_mb * 2**20
    known = known_rows(faces)
    absent = Absent(inputs.absent)
    tally, total = Tally(), 0
    for item in _items(source, max_bytes, absent, with_pictures=False):
        total += 1
        tally.take(item)
    if tally.unmatched and not inputs.accept_unmatched:
        raise UnmatchedLabels(summarise(faces, source.layout, tally, known.contents, params.rights))
    writer = ShardWriter(faces, params.ingest.shard_mb * 2**20)
    tally = Tally()
    added: list[int] = []
    items = read_contents(_items(source, max_bytes, absent, with_pictures=True), max_bytes)
    try:
        for item in tqdm(items, desc="ingest", unit=" files", total=total, file=sys.stderr, mininterval=0.5):
            if isinstance(item, Skipped):
                tally.skip(item)
                continue
            labels = item.photo.labels
            if forgotten.entry_of(labels.identity, item.image_id) is not None:
                tally.skip(Skipped(item.photo.file_name, REASON))
                continue
            tally.note(labels)
            earlier = known.labels_of(row_key(item.photo.file_name, item.image_id))
            if earlier is None:
                writer.add(_row(item, params.ingest))
                added.append(content_key(item.image_id))
                continue
            tally.known += 1
            tally.changed_labels += earlier[0] != label_key(labels.identity, labels.prompt, labels.face_prompt)
            for name in changed_rights(_rights(labels, params.ingest), earlier[1]):
                tally.skip(Unmatched(item.photo.file_name, CHANGED.format(name), item.photo.file_name))
        writer.close()
        if tally.unmatched and not inputs.accept_unmatched:
            for shard in writer.written:
                shard.unlink()
            raise UnmatchedLabels(summarise(faces, source.layout, tally, known.contents, params.rights))
    except BaseException:
        writer.abandon()
        raise
    tally.new_rows, tally.new_shards = len(added), len(writer.written)
    contents = np.concatenate([known.contents, np.array(added, np.uint64)])
    if not len(contents):
        reasons = ", ".join(f"{count} {reason}" for reason, count in (tally.skipped + tally.unmatched).items())
        raise StageFailed(f"{source.root}: no photo in it ({source.layout} layout; left out: {reasons or 'nothing'})")
    return summarise(faces, source.layout, tally, contents, params.rights)


def _items(source: Source, max_bytes: int, absent: Absent, *, with_pictures: bool) -> Iterator[FoundPhoto | Skipped]:
    items = source.read(max_bytes, with_pictures=with_pictures)
    return (item for item in items if not (isinstance(item, Unmatched) and absent.excuses(item)))


def _rights(labels: Labels, params: Ingest) -> Labels:
    """Return the labels of a photo with the licence and consent that its row would have."""
    return replace(labels, licence=labels.licence or params.licence, consent=labels.consent or params.consent)


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
