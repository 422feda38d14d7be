"""The people and photos whose data is deleted or listed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import PurePath

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.errors import UserError
from pipelines.core.people import normal_name
from pipelines.versions.forgotten import Forgotten

_ID = re.compile(r"[0-9a-f]{64}")
# Columns that name a person: `label` is the folder of a curated photo.
PEOPLE = ("identity", "label")


@dataclass(frozen=True)
class Subject:
    """People by name, in normal form, and photos by `image_id`, the sha256 of a photo's bytes.

    `files`: sha256 of other files that show them (processed pictures, cut photos). `listed`: entries of the list of the
    forgotten about them, which hold hashes of what an earlier request deleted.
    """

    identities: frozenset[str]
    image_ids: frozenset[str]
    files: frozenset[str] = frozenset()
    listed: Forgotten = field(default_factory=lambda: Forgotten([]), compare=False)

    def names(self, identity: str | None) -> bool:
        """Whether a person's name, in any form, is the subject's."""
        return identity is not None and (
            normal_name(identity) in self.identities or self.listed.entry_of(identity) is not None
        )

    def shows(self, digest: str | None) -> bool:
        """Whether a file with this sha256 is one of the subject's."""
        return digest is not None and (
            digest in self.image_ids or digest in self.files or self.listed.entry_of(None, digest) is not None
        )

    def lies_in(self, relative: PurePath) -> bool:
        """Whether the first folders of a path in a source of photos name one of the subject's people."""
        folders = relative.parts[:-1]
        return any(self.names("/".join(folders[:depth])) for depth in range(1, len(folders) + 1))

    def mask(self, rows: pa.Table | pa.RecordBatch) -> pa.Array:
        """Return whether each row is the subject's; the table has `image_id` and maybe columns of PEOPLE."""
        names = rows.schema.names
        mask = _among(rows["image_id"], self.shows)
        for column in PEOPLE:
            if column in names:
                mask = pc.or_(mask, _among(rows[column], self.names))
        return mask

    def with_photos(self, image_ids: Iterable[str]) -> Subject:
        """Return the subject with more photos."""
        return replace(self, image_ids=self.image_ids | frozenset(image_ids))


def with_listed(subject: Subject, listed: Forgotten) -> Subject:
    """Return the subject with the entries of the list of the forgotten about it; about all, where it names nobody."""
    asked = [*((name, None) for name in subject.identities), *((None, name) for name in subject.image_ids)]
    entries = {id(entry): entry for one in asked if (entry := listed.entry_of(*one)) is not None}
    return replace(subject, listed=Forgotten(entries.values()) if asked else listed)


def _among(column: pa.Array, takes: object) -> pa.Array:
    """Return for each value whether `takes` holds; it is asked once for each distinct value."""
    wanted = [value for value in pc.unique(column).to_pylist() if takes(value)]  # type: ignore[operator]
    return pc.is_in(column, value_set=pa.array(wanted, pa.string())).fill_null(False)


def subject_of(identities: Iterable[str], image_ids: Iterable[str], *, again: bool = False) -> Subject:
    """Return the subject of a command line; UserError where it names none or an id is not a sha256 in hex.

    `again`: nobody is named; the subject is everybody in the list of the forgotten.
    """
    people = frozenset(normal_name(name) for name in identities)
    photos = frozenset(name.strip().lower() for name in image_ids)
    for name in photos:
        if not _ID.fullmatch(name):
            raise UserError(f"--image-id {name}: expected the 64 hexadecimal digits of a row's image_id")
    if again and (people or photos):
        raise UserError("--again is about everybody in the list of the forgotten: leave out --identity and --image-id")
    if not people and not photos and not again:
        raise UserError("no person or photo named: give --identity NAME or --image-id ID, each as often as needed")
    if "" in people:
        raise UserError("--identity: the name is empty")
    return Subject(people, photos)
