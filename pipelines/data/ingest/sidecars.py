"""Sort the files of one folder: photos, the label files of each, tables, landmark pictures and embeddings.

Beside `1.jpg` may be `1.txt` (line 1 the prompt, line 2 the face prompt) and `1.json`. The course project's folders
also have `1.png`, the landmarks of `1.jpg`, and `1.pt`, its embedding.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field

from pipelines.core.paths import refuse_pointer
from pipelines.data.ingest.label_files import (
    BAD_JSON,
    CAPTION_BYTES,
    CAPTIONS,
    DESCRIPTION_BYTES,
    TABLES,
    UNREAD,
    decode_text,
    holds_no_labels,
    is_readme,
    is_text,
    may_hold_labels,
    parse_caption,
    parse_object,
)
from pipelines.data.ingest.label_join import CONFLICT, SEVERAL, owners
from pipelines.data.ingest.label_values import labels_of, left_out, names_label
from pipelines.data.ingest.photo_files import Labels, Skipped, Unmatched, is_picture_name, is_tar_name, row_name
from pipelines.data.ingest.walk import DENIED, FOLDER, HIDDEN, NO_PICTURE, UNPAIRED_TEXT, Entry, has_signature

LANDMARK_PICTURE = "landmark picture of the photo of its name; preprocessing finds landmarks itself"
EMBEDDING = "embedding of the photo of its name; preprocessing measures it itself"
NOT_NAMED = "not named by the list"
UNREAD_FORMAT = "labels in a format that is not read"
BESIDE_SHARDS = "labels beside shards; only labels in the shards are read"
# The label files of one photo, by suffix; the later ones have priority.
BESIDE: tuple[str, ...] = (*CAPTIONS, ".json")
_CHECKED = 10_000


@dataclass
class FolderFiles:
    """The files of a folder: photos, the label files of each by its path, tables, and files that are neither."""

    pictures: list[Entry] = field(default_factory=list)
    labels: dict[str, list[Entry]] = field(default_factory=dict)
    # Photos that share a label file with others → its path; the file is Unmatched, in `rest`.
    shared: dict[str, str] = field(default_factory=dict)
    tables: list[Entry] = field(default_factory=list)
    rest: list[Skipped] = field(default_factory=list)


def sort_files(
    files: Iterable[Entry | Skipped], *, landmarks: bool = False, only: Container[str] | None = None
) -> FolderFiles:
    """Return the files of one folder by what they are.

    With `landmarks`, a `.png` beside a `.jpg` or `.jpeg` of its name is no photo. With `only`, exactly these paths are.
    """
    result = FolderFiles()
    items = [item for item in files if isinstance(item, Entry)]
    result.rest += [_skipped(item) for item in files if isinstance(item, Skipped)]
    photos = {_stem(item) for item in items if suffix_of(item) in (".jpg", ".jpeg")} if landmarks else set()
    beside: dict[str, Entry] = {}
    others: dict[str, Entry] = {}
    for item in items:
        suffix = suffix_of(item)
        if suffix in (".png", ".pt") and _stem(item) in photos:
            result.rest.append(Skipped(row_name(item.relative), LANDMARK_PICTURE if suffix == ".png" else EMBEDDING))
        elif suffix in BESIDE:
            beside[item.name] = item
        elif suffix in TABLES and not has_signature(item):
            result.tables.append(item)
        elif is_picture_name(item.relative) or has_signature(item) or (only and item.relative in only):
            result.pictures.append(item)
        elif suffix in UNREAD and not holds_no_labels(item.name) and not is_tar_name(item.relative):
            result.rest.append(unmatched(item, UNREAD_FORMAT))
        else:
            others[item.name] = item
    _assign(result, beside, only)
    fitting = owners([item.name for item in result.pictures], others)
    result.rest += [_other(item, bool(fitting[name]), NO_PICTURE) for name, item in others.items()]
    return result


def _other(item: Entry, beside_photo: bool, reason: str) -> Skipped:
    """Return a file of no known kind as Skipped, or as Unmatched: text beside a photo, or what mentions labels."""
    name = item.name
    if not (holds_no_labels(name) or is_tar_name(name)) and item.n_bytes:
        start = item.start(CAPTION_BYTES)
        if may_hold_labels(name, start) or (beside_photo and start is not None and is_text(start)):
            return unmatched(item, UNREAD_FORMAT)
    return Skipped(row_name(item.relative), reason)


def _skipped(item: Skipped) -> Skipped:
    """Return a skipped file, as Unmatched where it is a label file that cannot be opened."""
    is_label = os.path.splitext(item.file_name)[1].lower() in (*CAPTIONS, *TABLES)  # noqa: PTH122
    if is_label and item.reason not in (HIDDEN, FOLDER):
        return Unmatched(item.file_name, item.reason, item.file_name)
    return item


def _assign(result: FolderFiles, beside: dict[str, Entry], only: Container[str] | None) -> None:
    """Assign the label files `beside` photos; those that fit none are tables, photos with another suffix, or rest."""
    pictures = {item.name: item.relative for item in result.pictures}
    for name, fits in owners(list(pictures), beside).items():
        item = beside[name]
        fitting = fits if only is None else [picture for picture in fits if pictures[picture] in only]
        if fits and not fitting:
            result.rest.append(Skipped(row_name(item.relative), NOT_NAMED))
        elif len(fitting) == 1:
            result.labels.setdefault(pictures[fitting[0]], []).append(item)
        elif fitting:
            result.rest.append(unmatched(item, SEVERAL))
            if suffix_of(item) not in CAPTIONS:
                result.shared |= {pictures[picture]: item.relative for picture in fitting}
        elif has_signature(item):
            result.pictures.append(item)
        elif suffix_of(item) in TABLES:
            result.tables.append(item)
        elif is_readme(name):
            result.rest.append(Skipped(row_name(item.relative), NO_PICTURE))
        else:
            result.rest.append(unmatched(item, UNPAIRED_TEXT))
    if only is not None:
        result.rest += [
            Skipped(row_name(item.relative), NOT_NAMED) for item in result.pictures if item.relative not in only
        ]
        result.pictures = [item for item in result.pictures if item.relative in only]
    result.pictures.sort(key=lambda item: os.fsencode(item.relative))


def labels_beside(photo: Entry, files: FolderFiles) -> tuple[Labels, list[Skipped]]:
    """Return the labels in the label files of a photo, and what of them is not read."""
    contents: list[tuple[str, bytes]] = []
    left: list[Skipped] = []
    for item in files.labels.get(photo.relative, ()):
        raw = item.start(DESCRIPTION_BYTES + 1)
        if raw is None:
            left.append(unmatched(item, DENIED))
            continue
        refuse_pointer(raw, item.path)
        contents.append((row_name(item.relative), raw))
    labels, problems = sidecar_labels(row_name(photo.relative), contents)
    if shared := files.shared.get(photo.relative):
        labels = labels.updated(not_joined(row_name(shared)))
    return labels, [*left, *problems]


def sidecar_labels(photo: str, contents: Sequence[tuple[str, bytes]]) -> tuple[Labels, list[Skipped]]:
    """Return the labels in the files (name, content) of the photo of this name; JSON has priority over text."""
    labels, left = Labels(), []
    for is_json in (False, True):
        own = Labels()
        for name, raw in contents:
            if name.lower().endswith(CAPTIONS) == is_json:
                continue
            given, problems = _parse(photo, name, raw)
            if conflicts := own.conflicts(given):
                problems.append(CONFLICT.format(" and ".join(conflicts)))
            own = given.updated(own)
            left += [left_out(name, problem, name) for problem in problems]
        labels = labels.updated(own)
    return labels, left


def _parse(photo: str, name: str, raw: bytes) -> tuple[Labels, list[str]]:
    if name.lower().endswith(CAPTIONS):
        if (key := _key_in(photo, name)) is not None:
            return labels_of({key: _plain_text(raw)})
        prompt, face_prompt, problem = parse_caption(raw)
        return Labels(prompt=prompt, face_prompt=face_prompt), [problem] if problem else []
    entry = parse_object(raw) if len(raw) <= DESCRIPTION_BYTES else None
    return labels_of(entry) if entry is not None else (not_joined(name), [BAD_JSON])


def _key_in(photo: str, name: str) -> str | None:
    """Return the label that a text has in its name, such as "consent" of `1.consent.txt`; None for captions."""
    _, *words = name.lower().rpartition("/")[2].split(".")[:-1]
    key = words[-1] if words else ""
    own = photo.lower().rpartition("/")[2].split(".")
    return key if key not in own and names_label(key) else None


def _plain_text(raw: bytes) -> str:
    try:
        return decode_text(raw).strip()
    except UnicodeDecodeError:
        return raw.decode("latin-1").strip()


def not_joined(name: str) -> Labels:
    """Return the labels of a photo whose label file cannot be read: it may hold a refusal, so this is no clear yes."""
    return Labels(consent=f"not joined: {name}")


def unmatched(item: Entry, reason: str) -> Unmatched:
    """Return a label file as a whole, as Unmatched."""
    return Unmatched(row_name(item.relative), reason, row_name(item.relative))


def beside_shards(item: Entry, reason: str) -> Skipped:
    """Return a file beside tar or Parquet shards as Skipped, or as Unmatched where it may hold labels."""
    name = item.name
    without = holds_no_labels(name) or is_tar_name(name) or not item.n_bytes
    if not without and may_hold_labels(name, item.start(CAPTION_BYTES)):
        return unmatched(item, BESIDE_SHARDS)
    return Skipped(row_name(item.relative), reason)


def has_sidecars(files: list[Entry]) -> bool:
    """Whether `files`, the files at the top of a folder, include a photo with landmark picture and embedding."""
    suffixes: dict[str, set[str]] = {}
    for item in files[:_CHECKED]:
        suffixes.setdefault(_stem(item), set()).add(suffix_of(item))
    return any({".jpg", ".png", ".pt"} <= each for each in suffixes.values())


def suffix_of(item: Entry) -> str:
    """Return the suffix of a file in lower case."""
    return os.path.splitext(item.relative)[1].lower()  # noqa: PTH122 (millions of names)


def _stem(item: Entry) -> str:
    return os.path.splitext(item.name)[0]  # noqa: PTH122
