"""Which photos there are, and having those looked at that no earlier run has seen."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipelines.core.errors import UserError
from pipelines.core.files import sha256
from pipelines.core.params import Params
from pipelines.data.curation.look import Photo, Work, look_and_keep
from pipelines.data.curation.records import SEEN_SCHEMA, write_rows
from pipelines.data.faces.version import analyser_version, code_files
from pipelines.data.ingest.layout import open_source
from pipelines.data.ingest.photo_files import FoundPhoto, Skipped
from pipelines.data.ingest.walk import HIDDEN, NO_PICTURE, UNPAIRED_TEXT
from pipelines.data.spark import run_tasks

# What the rows of the state depend on besides photos and analysers.
_LOOKING = ("min_face_side", "working_side")
_NO_PHOTO = frozenset({HIDDEN, UNPAIRED_TEXT, NO_PICTURE})


@dataclass(frozen=True)
class Pile:
    """What a source holds: photos by name, and files that cannot be read, with the reason."""

    photos: dict[str, FoundPhoto]
    unread: tuple[Skipped, ...]


def list_pile(source: Path, identity_depth: int, max_bytes: int) -> Pile:
    """Return the photos of a folder; the first `identity_depth` folders of a name are its label (0: none).

    Raises UserError where the source is no folder of photos.
    """
    found_layout = open_source(source, "flat" if identity_depth == 0 else "identity-folders", identity_depth or None)
    photos: dict[str, FoundPhoto] = {}
    unread: list[Skipped] = []
    for item in found_layout.read(max_bytes):
        if isinstance(item, FoundPhoto):
            if item.n_bytes > max_bytes:
                unread.append(Skipped(item.file_name, "larger than ingest.max_file_mb"))
            else:
                photos[item.file_name] = item
        elif item.reason not in _NO_PHOTO:
            unread.append(item)
    if not photos and not unread:
        raise UserError(f"{source}: no photo in it; expected a folder of pictures (other layouts: `dynamicid ingest`)")
    return Pile(photos, tuple(sorted(unread, key=lambda item: item.file_name)))


def state_folder(params: Params, state: Path, source: Path) -> Path:
    """Return the folder for what is seen of a source by the analysers of the parameters; others of it are removed."""
    looking = params.curate.model_dump(include=set(_LOOKING))
    code = [sha256(file) for file in code_files("pipelines/data/curation/look.py")]
    version = hashlib.sha256(f"{analyser_version(params.preprocess)} {sorted(looking.items())} {code}".encode())
    mine = state / hashlib.sha256(str(source.resolve()).encode()).hexdigest()[:16]
    folder = mine / version.hexdigest()[:16]
    for other in mine.iterdir() if mine.is_dir() else ():
        if other.is_dir() and other != folder:
            shutil.rmtree(other)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def look(pile: Pile, params: Params, folder: Path, context: object) -> int:
    """Have the workers look at the photos of which `folder` holds no rows yet; return how many these were.

    A photo is known by its name, size and time of change. Raises UserError where the configuration is wrong.
    """
    keys = {name: photo_key(photo) for name, photo in pile.photos.items()}
    known = _keys(folder)
    new = [name for name in sorted(keys) if keys[name] not in known]
    size = params.curate.task_photos
    settings = params.model_dump_json(by_alias=True)
    tasks = []
    for start in range(0, len(new), size):
        part = [pile.photos[name] for name in new[start : start + size]]
        photos = tuple(
            Photo(keys[item.file_name], item.file_name, str(item.path), item.labels.face_prompt) for item in part
        )
        name = hashlib.sha256("".join(photo.key for photo in photos).encode()).hexdigest()[:32]
        tasks.append(Work(photos, settings, str(folder / f"{name}.parquet")))
    if tasks:
        weights = [len(task.photos) for task in tasks]
        problems = run_tasks(context, tasks, look_and_keep, weights=weights, title="looking at photos", unit="photos")
        for problem in problems:
            if problem:
                raise UserError(problem)
    return len(new)


def read_seen(pile: Pile, folder: Path) -> pa.Table:
    """Return the rows of the pile's photos in the order of file names and faces; rows of photos that are gone go."""
    keys = pa.array([photo_key(photo) for photo in pile.photos.values()])
    for part in sorted(folder.glob("*.parquet")):
        held = pq.read_table(part, columns=["key"])["key"]
        present = pc.is_in(held, keys)
        if not pc.all(present).as_py():
            rows = pq.read_table(part).filter(present)
            part.unlink() if not rows.num_rows else write_rows(rows, part)
    parts = sorted(str(part) for part in folder.glob("*.parquet"))
    rows = ds.dataset(parts, SEEN_SCHEMA, format="parquet").to_table() if parts else SEEN_SCHEMA.empty_table()
    return rows.sort_by([("file_name", "ascending"), ("face_index", "ascending")])


def photo_key(photo: FoundPhoto) -> str:
    """Return what a photo is known by: a sha256 of its name, size, time of change and own face prompt."""
    changed = Path(str(photo.path)).lstat().st_mtime_ns
    text = "\0".join([photo.file_name, str(photo.n_bytes), str(changed), photo.labels.face_prompt or ""])
    return hashlib.sha256(text.encode()).hexdigest()


def _keys(folder: Path) -> set[str]:
    parts: Sequence[Path] = sorted(folder.glob("*.parquet"))
    return {key for part in parts for key in pq.read_table(part, columns=["key"])["key"].to_pylist()}
