"""ingest: photos in common layouts become rows of `data/faces`; existing rows stay unchanged.

Photos are stored as they are; only their headers are decoded. A killed run leaves complete shards, after which the next
run continues: it writes the same files as an uninterrupted run.
"""

from __future__ import annotations

import json
import sys
import tempfile
from array import array
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.locks import hold
from pipelines.core.params import Params
from pipelines.core.sections.data import Ingest
from pipelines.core.weights.domains import DRAWN
from pipelines.data.ingest.contents import Content
from pipelines.data.ingest.header import read_header
from pipelines.data.ingest.known_rows import changed_rights, content_key, known_rows, label_key, row_key
from pipelines.data.ingest.label_join import Absent
from pipelines.data.ingest.layout import Source, open_source
from pipelines.data.ingest.photo_files import FoundPhoto, Labels, Skipped, Unmatched
from pipelines.data.ingest.shards import Row, ShardWriter
from pipelines.data.ingest.summary import Summary, Tally, UnmatchedLabels, summarise
from pipelines.data.synthetic.dataset import MANIFEST
from pipelines.versions.forgotten import REASON, Forgotten, gate

_IN_MEMORY = 2**26
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
    the source has no known layout, or the dataset or the list of the forgotten cannot be read; StageFailed where there
    is nothing to ingest or another ingest writes to the dataset; UnmatchedLabels where labels of the source reach no
    row. In each case nothing is added.
    """
    source = open_source(inputs.source, inputs.layout, inputs.identity_depth)
    faces = outputs.faces
    if source.only is None and faces.resolve().is_relative_to(source.root):
        raise UserError(f"{faces}: is in the source {inputs.source}; choose a dataset folder outside of it")
    if faces.exists() and not faces.is_dir():
        raise UserError(f"{faces}: is a file; expected a folder for the shards")
    taken = StageFailed(f"{faces}: another ingest writes to it; wait for it to end")
    # The lock is beside the folder, not in it, since the folder's contents are versioned.
    with hold(faces.with_name(f".{faces.name}.lock"), taken):
        return _Addition(params, source, faces, gate(faces, source.root), inputs).run()


def _photo(line: str) -> FoundPhoto:
    tree = json.loads(line)
    return FoundPhoto(**{**tree, "labels": Labels(**tree["labels"])})


class _Addition:
    """The photos of one source on their way into a dataset, and what is counted of them."""

    def __init__(self, params: Params, source: Source, faces: Path, forgotten: Forgotten, inputs: Inputs) -> None:
        self._params, self._source, self._faces, self._forgotten = params, source, faces, forgotten
        self._max_bytes = params.ingest.max_file_mb * 2**20
        # Synthetic data knows what it is.
        drawn = DRAWN if (source.root / MANIFEST).is_file() else None
        self._domain = params.ingest.domain or drawn
        self._accepted, self._absent = inputs.accept_unmatched, Absent(inputs.absent)
        self._known = known_rows(faces)
        self._tally = Tally()
        self._added = array("Q")  # eight bytes a photo

    def run(self) -> Summary:
        """Read the labels of all photos, which are kept meanwhile, and then their bytes: nothing is read twice."""
        from tqdm import tqdm

        # JSON with escapes, so that names of any bytes come back as they were.
        with tempfile.SpooledTemporaryFile(_IN_MEMORY, "w+", encoding="ascii") as kept:
            total = 0
            for item in self._source.read(self._max_bytes):
                if isinstance(item, Skipped):
                    self._skip(item)
                    continue
                self._tally.note(item.labels)
                kept.write(json.dumps(asdict(item)) + "\n")
                total += 1
            self._refuse_unmatched([])
            self._writer = ShardWriter(self._faces, self._params.ingest.shard_mb * 2**20)
            kept.seek(0)
            photos = self._source.contents((_photo(line) for line in kept), self._max_bytes)
            try:
                for item in tqdm(photos, desc="ingest", unit=" photos", total=total, file=sys.stderr, mininterval=0.5):
                    self._skip(item) if isinstance(item, Skipped) else self._add(item)
                self._writer.close()
                self._refuse_unmatched(self._writer.written)
            except BaseException:
                self._writer.abandon()
                raise
        return self._summary()

    def _skip(self, item: Skipped) -> None:
        if not (isinstance(item, Unmatched) and self._absent.excuses(item)):
            self._tally.skip(item)

    def _refuse_unmatched(self, written: list[Path]) -> None:
        if self._tally.unmatched and not self._accepted:
            for shard in written:
                shard.unlink()
            args = (self._faces, self._source.layout, self._tally, self._known.contents, self._params.rights)
            raise UnmatchedLabels(summarise(*args))

    def _add(self, content: Content) -> None:
        name, labels = content.photo.file_name, content.photo.labels
        if self._forgotten.entry_of(labels.identity, content.image_id) is not None:
            self._tally.skip(Skipped(name, REASON))
            return
        earlier = self._known.labels_of(row_key(name, content.image_id))
        if earlier is None:
            self._writer.add(_row(content, self._params.ingest, self._domain))
            self._added.append(content_key(content.image_id))
            return
        self._tally.known += 1
        self._tally.changed_labels += earlier[0] != label_key(labels.identity, labels.prompt, labels.face_prompt)
        for column in changed_rights(_rights(labels, self._params.ingest), earlier[1]):
            self._skip(Unmatched(name, CHANGED.format(column), name))

    def _summary(self) -> Summary:
        tally, layout = self._tally, self._source.layout
        tally.new_rows, tally.new_shards = len(self._added), len(self._writer.written)
        contents = np.concatenate([self._known.contents, np.array(self._added, np.uint64)])
        if not len(contents):
            reasons = ", ".join(f"{count} {reason}" for reason, count in (tally.skipped + tally.unmatched).items())
            raise StageFailed(
                f"{self._source.root}: no photo in it ({layout} layout; left out: {reasons or 'nothing'})"
            )
        return summarise(self._faces, layout, tally, contents, self._params.rights)


def _rights(labels: Labels, params: Ingest) -> Labels:
    """Return the labels of a photo with the licence and consent that its row would have."""
    return replace(labels, licence=labels.licence or params.licence, consent=labels.consent or params.consent)


def _row(content: Content, params: Ingest, domain: str | None) -> Row:
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
        "domain": domain,
    }
