"""List the photos of a source, and analyse those that no earlier run has analysed."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipelines.core.errors import UserError
from pipelines.core.files import sha256
from pipelines.core.params import Params
from pipelines.core.weights.domains import check_domains, network_domains
from pipelines.data.curation.analyse import AnalyseTask, Photo, analyse_and_write
from pipelines.data.curation.records import STATE_SCHEMA, write_rows
from pipelines.data.faces.domain import measure_sample, sampled
from pipelines.data.faces.version import analyser_version, code_files
from pipelines.data.ingest.layout import open_source
from pipelines.data.ingest.photo_files import FoundPhoto, Skipped, Unmatched
from pipelines.data.ingest.walk import HIDDEN, NO_PICTURE
from pipelines.data.spark import run_tasks

# The parameters of `curate` on which the analysis depends.
_ANALYSIS_PARAMS = {"min_face_side", "working_side"}
_NO_PHOTO = frozenset({HIDDEN, NO_PICTURE})
# Why a photo of this person and with this sha256 must not be taken, or None.
Gate = Callable[[str | None, str | None], str | None]


@dataclass(frozen=True)
class PhotoFolder:
    """The photos of a source by name, and the files that cannot be read, with the reason."""

    photos: dict[str, FoundPhoto]
    unread: tuple[Skipped, ...]


def list_photos(source: Path, identity_depth: int, max_bytes: int, gate: Gate | None = None) -> PhotoFolder:
    """Return the photos of a folder; the first `identity_depth` folders of a name are its label (0: none).

    A photo for which `gate` gives a reason is not read. Raise UserError if the source is not a folder of photos.
    """
    layout = open_source(source, "flat" if identity_depth == 0 else "identity-folders", identity_depth or None)
    photos: dict[str, FoundPhoto] = {}
    unread: list[Skipped] = []
    for item in layout.read(max_bytes):
        if isinstance(item, FoundPhoto):
            if item.n_bytes > max_bytes:
                unread.append(Skipped(item.file_name, "larger than ingest.max_file_mb"))
            elif gate is not None and (reason := gate(item.labels.identity, _content_hash(item))) is not None:
                unread.append(Skipped(item.file_name, reason))
            else:
                photos[item.file_name] = item
        elif isinstance(item, Unmatched):
            print(f"{source}: {item.label}: {item.reason}; this label is not used", file=sys.stderr)
        elif item.reason not in _NO_PHOTO:
            unread.append(item)
    if not photos and not unread:
        raise UserError(f"{source}: no photo in it; expected a folder of pictures (other layouts: `dynamicid ingest`)")
    return PhotoFolder(photos, tuple(sorted(unread, key=lambda item: item.file_name)))


def _content_hash(photo: FoundPhoto) -> str | None:
    """Return the sha256 of a photo's bytes; None where it cannot be read, which is noted when it is analysed."""
    try:
        return sha256(Path(str(photo.path)))
    except OSError:
        return None


def state_folder(params: Params, state: Path, source: Path) -> Path:
    """Return the folder for a source's results by these analysers; those by others stay, as a run may use them."""
    settings = params.curate.model_dump(include=_ANALYSIS_PARAMS)
    patterns = ("pipelines/data/curation/analyse.py", "model/face/face_geometry.py")
    code = [sha256(file) for pattern in patterns for file in code_files(pattern)]
    version = hashlib.sha256(f"{analyser_version(params.preprocess)} {sorted(settings.items())} {code}".encode())
    name = hashlib.sha256(str(source.resolve()).encode()).hexdigest()[:16]
    folder = state / name / version.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def analyse_new(source: PhotoFolder, params: Params, folder: Path, context: object) -> int:
    """Analyse, on the workers, the photos that have no rows in `folder` yet; return their number.

    A photo is identified by its `photo_key`. Raise UserError if the configuration is wrong.
    """
    keys = {name: photo_key(photo) for name, photo in source.photos.items()}
    stored = {
        key for part in folder.glob("*.parquet") for key in pq.read_table(part, columns=["key"])["key"].to_pylist()
    }
    new = [name for name in sorted(keys) if keys[name] not in stored]
    size = params.curate.task_photos
    settings = params.model_dump_json(by_alias=True)
    tasks = []
    for start in range(0, len(new), size):
        part = [source.photos[name] for name in new[start : start + size]]
        photos = tuple(Photo(keys[it.file_name], it.file_name, str(it.path), it.labels.face_prompt) for it in part)
        name = hashlib.sha256("".join(photo.key for photo in photos).encode()).hexdigest()[:32]
        tasks.append(AnalyseTask(photos, settings, str(folder / f"{name}.parquet")))
    if tasks:
        weights = [len(task.photos) for task in tasks]
        title = "analysing photos"
        for error in run_tasks(context, tasks, analyse_and_write, weights=weights, title=title, unit="photos"):
            if error:
                raise UserError(error)
    return len(new)


def read_rows(source: PhotoFolder, folder: Path) -> pa.Table:
    """Return the source's rows in the order of file names and faces, without thumbnails.

    Rows of missing photos are deleted from `folder`.
    """
    keys = pa.array([photo_key(photo) for photo in source.photos.values()])
    for part in sorted(folder.glob("*.parquet")):
        present = pc.is_in(pq.read_table(part, columns=["key"])["key"], keys)
        if not pc.all(present).as_py():
            rows = pq.read_table(part).filter(present)
            part.unlink() if not rows.num_rows else write_rows(rows, part)
    parts = sorted(str(part) for part in folder.glob("*.parquet"))
    columns = [name for name in STATE_SCHEMA.names if name != "thumbnail"]
    rows = ds.dataset(parts, STATE_SCHEMA, format="parquet").to_table(columns=columns) if parts else _no_rows(columns)
    return rows.sort_by([("file_name", "ascending"), ("face_index", "ascending")])


def _no_rows(columns: list[str]) -> pa.Table:
    return STATE_SCHEMA.empty_table().select(columns)


def read_thumbnails(folder: Path, faces: Collection[tuple[str, int]]) -> dict[tuple[str, int], bytes]:
    """Return the JPEG of each face, by file name and index, of those that `folder` has."""
    found: dict[tuple[str, int], bytes] = {}
    wanted, parts = set(faces), sorted(str(part) for part in folder.glob("*.parquet"))
    if wanted and parts:
        names = ds.field("file_name").isin(sorted({name for name, _ in wanted}))
        rows = ds.dataset(parts, STATE_SCHEMA, format="parquet")
        for batch in rows.to_batches(columns=["file_name", "face_index", "thumbnail"], filter=names, batch_size=1024):
            for row in batch.to_pylist():
                if (face := (row["file_name"], row["face_index"])) in wanted:
                    found[face] = row["thumbnail"] or b""
    return found


def photo_key(photo: FoundPhoto) -> str:
    """Return the key of a photo: a sha256 (hex) of its name, size, modification time and given face prompt."""
    changed = Path(str(photo.path)).lstat().st_mtime_ns
    text = "\0".join([photo.file_name, str(photo.n_bytes), str(changed), photo.labels.face_prompt or ""])
    return hashlib.sha256(text.encode()).hexdigest()


def check_photo_domains(params: Params, source: Path, photos: PhotoFolder) -> None:
    """Raise UserError where the networks do not know pictures of this kind: as stated, else as a sample shows."""
    stated = params.ingest.domain
    files = [photo.path for photo in photos.photos.values()]
    check_domains(
        str(source),
        network_domains(params, ("preprocess",)),
        stated={stated: len(files)} if stated else None,
        measured=None if stated else measure_sample(sampled(files), params.preprocess.max_pixels),
    )
