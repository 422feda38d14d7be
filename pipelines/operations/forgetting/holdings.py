"""What the project holds of people or photos, as data and as a self-contained page to hand over to them."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipelines.core.errors import UserError
from pipelines.core.pages import render_page
from pipelines.core.words import counted
from pipelines.operations.forgetting import local, stores
from pipelines.operations.forgetting.forget import Locations, locate, located_in, nearest_people, refuse_strangers
from pipelines.operations.forgetting.journal import read_journal
from pipelines.operations.forgetting.pages import may_show
from pipelines.operations.forgetting.registry import Traces, use_of
from pipelines.operations.forgetting.subject import Subject
from pipelines.versions import forgotten
from pipelines.versions.dataset_version import versions_of_data
from pipelines.versions.places import UNREADABLE, Copy
from pipelines.versions.state import states_of

PAGE = Path(__file__).with_name("holdings.html.j2")
_COLUMNS = ("image_id", "identity", "file_name", "prompt", "face_prompt", "source", "licence", "consent")
_SIDE = 160
# A photo of more pixels is listed without its picture, as preprocessing rejects it.
_MAX_PIXELS = 89_000_000


@dataclass(frozen=True)
class Holdings:
    """Everything that is held of a subject.

    `photos`: one dictionary per photo, with its labels and the split that it is used in; `versions`: dataset versions
    that hold them; `traces`: models, runs and logged pictures; `bases`: folders
    of bases that were trained on them; `places`: number of files by place; `forgotten`: what
    was deleted earlier; `beyond`: places that could not be searched.
    """

    people: list[str]
    photos: list[dict[str, Any]]
    versions: list[str]
    traces: Traces
    bases: list[str]
    exports: list[Copy]
    places: dict[str, int]
    forgotten: str
    beyond: list[str]


def holdings(root: Path, subject: Subject) -> tuple[Holdings, dict[str, bytes]]:
    """Return what is held of `subject`, and the bytes of its photos by image id; nothing is changed.

    Raises UserError where `root` is not a DVC repository, or nothing is held and nothing was forgotten.
    """
    root, subject = located_in(root, subject)
    opened, beyond = stores.open_stores(root)
    begun = read_journal(root)
    refuse_strangers(root, subject, opened, begun)
    found = locate(root, subject, opened, begun)
    photos, pictures = _photos(root, found, subject)
    held = Holdings(
        people=sorted(subject.identities),
        photos=sorted(photos.values(), key=lambda photo: str(photo["file_name"])),
        versions=versions_of_data(root, found.begun.datasets),
        traces=found.traces,
        bases=found.bases,
        exports=found.copies,
        places=_places(root, found),
        forgotten=forgotten.describe_entries(subject.listed.entries),
        beyond=[*beyond, *found.beyond, *found.unread],
    )
    certain = [copy for copy in held.exports if copy.what not in UNREADABLE]
    if not (held.photos or held.places or certain or held.forgotten):
        wanted = ", ".join(sorted(subject.identities | subject.image_ids))
        raise UserError(f"{wanted}: nothing of such a person or photo is held here{nearest_people(root, subject)}")
    return held, pictures


def write_holdings(file: Path, held: Holdings, pictures: dict[str, bytes]) -> None:
    """Write the page; it holds small copies of the photos."""
    shown = [{**photo, "picture": _small(pictures.get(photo["image_id"]))} for photo in held.photos]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(render_page(PAGE, held=held, photos=shown, counted=counted, use_of=use_of), encoding="utf-8")


def _photos(root: Path, found: Locations, subject: Subject) -> tuple[dict[str, dict[str, Any]], dict[str, bytes]]:
    """Return the rows of the subject's photos by image id, and their pictures: of the checkout, else of the caches."""
    photos: dict[str, dict[str, Any]] = {}
    pictures: dict[str, bytes] = {}
    states = states_of(root)

    def take(source: Any) -> None:
        with pq.ParquetFile(source, pre_buffer=False) as file:
            names = file.schema_arrow.names
            wanted = [name for name in (*_COLUMNS, "split", "n_bytes", "image") if name in names]
            for batch in file.iter_batches(batch_size=64, columns=wanted):
                for row in batch.filter(subject.mask(batch)).to_pylist():
                    image, split = row.pop("image", None), row.pop("split", None)
                    if row.pop("n_bytes", None) is not None:
                        pictures.setdefault(row["image_id"], image)
                    known = photos.setdefault(row["image_id"], {**dict.fromkeys(_COLUMNS), **row, "split": None})
                    known["split"] = known["split"] or split

    for table in found.tables:
        if table.suffix == ".parquet" and not any(map(table.is_relative_to, states)):
            take(table)
    for oid in found.found.dataset_tables if not photos else ():
        with found.found.holders[oid][0].opened(oid) as file:
            take(file)
    for file in sorted(found.files.pictures):
        data = file.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        pictures.setdefault(digest, data)
        photos.setdefault(
            digest, {**dict.fromkeys(_COLUMNS), "image_id": digest, "file_name": file.name, "split": None}
        )
    return photos, pictures


def _places(root: Path, found: Locations) -> dict[str, int]:
    """Return how many files of each folder hold the subject, and how many objects of each store."""
    counts: dict[str, int] = {}
    for file in (*found.tables, *found.files.pictures, *found.files.beside, *found.files.shared):
        place = file.parent.relative_to(root) if file.is_relative_to(root) else file.parent
        counts[place.as_posix()] = counts.get(place.as_posix(), 0) + 1
    for oid in found.found.tables:
        for store in found.found.holders[oid]:
            counts[f"DVC {store.name}"] = counts.get(f"DVC {store.name}", 0) + 1
    counts |= {f"workspace {path}": 1 for path in found.workspaces}
    if counts:
        shown = local.pages_with_faces(root, evaluations=may_show(found.begun.splits))
        counts |= {f"{page.relative_to(root).as_posix()} (may show them)": 1 for page in shown}
    return dict(sorted(counts.items()))


def _small(picture: bytes | None) -> str | None:
    """Return a small copy of a picture as a data address; None where it cannot be decoded."""
    from PIL import Image

    from pipelines.data.faces.decode import Undecodable, decode

    if picture is None:
        return None
    buffer = io.BytesIO()
    try:
        small = Image.fromarray(decode(picture, max_pixels=_MAX_PIXELS, min_side=1, working_side=_SIDE).image)
    except Undecodable:
        return None
    small.thumbnail((_SIDE, _SIDE))
    small.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
