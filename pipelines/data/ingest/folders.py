"""Read photos from folders: flat, one folder per identity, with landmark pictures, or those that a list names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.core.paths import refuse_pointer
from pipelines.data.ingest.huggingface import columns_of, picture_column
from pipelines.data.ingest.label_files import (
    CAPTION_BYTES,
    TABLE_BYTES,
    describes_one_photo,
    may_hold_labels,
    parse_table,
    table_of,
)
from pipelines.data.ingest.label_join import NO_PHOTO, SEVERAL, Folder, TableJoin
from pipelines.data.ingest.photo_files import FoundPhoto, Labels, Skipped, row_name
from pipelines.data.ingest.sidecars import FolderFiles, labels_beside, sort_files, unmatched
from pipelines.data.ingest.walk import NO_PICTURE, Entry, files_of, walk_files

PICTURE_TABLE = "Parquet of pictures; --layout huggingface reads it"
# A column of the table that `curate` writes: its names are those of another folder.
_CURATED = "selected_file"


def join_tables(root: Path, lists: Iterable[Path] = (), *, whole_folder: bool = True) -> TableJoin:
    """Return the labels that the tables in `root` give to its photos.

    The tables are the files `lists`, or with `whole_folder` every table that is no label file of a photo of its name.
    Raises UserError where one of `lists` cannot be parsed.
    """
    tables = TableJoin(Folder(os.fspath(root)), os.fspath(root))
    for file in lists:
        try:
            if not tables.add(file.name, list(table_of(file))):
                raise ValueError("no entry names a photo; expected keys such as file_name")
        except (ValueError, OSError) as error:
            raise UserError(f"{file}: {error}") from None
    for files in walk_files(root) if whole_folder else ():
        for item in sort_files(files).tables:
            tables.left += add_table(tables, item)
    return tables


def add_table(tables: TableJoin, item: Entry) -> list[Skipped]:
    """Join the entries of a table to their photos; return it as Skipped or Unmatched where it names none."""
    path = Path(item.path)
    is_parquet = item.name.lower().endswith(".parquet")
    if is_parquet and picture_column(path) is not None:
        return [unmatched(item, PICTURE_TABLE)]
    if is_parquet and _CURATED in columns_of(path):
        return [Skipped(row_name(item.relative), NO_PICTURE)]
    try:
        with item.opened() as file:
            raw = b"" if is_parquet else file.read(TABLE_BYTES + 1)
        refuse_pointer(raw, item.path)
        one = item.name.lower().endswith(".json") and describes_one_photo(raw)
        entries = table_of(path) if is_parquet else parse_table(item.name, raw)
        if tables.add(item.relative, list(entries), exact=one):
            # A JSON object that names one photo describes it, and does not choose it.
            tables.lists += [item.relative] if "/" not in item.relative and not one else []
            return []
    except (ValueError, OSError) as error:
        return [unmatched(item, str(error))]
    holds = may_hold_labels(item.name, item.start(CAPTION_BYTES))
    return [unmatched(item, NO_PHOTO) if holds else Skipped(row_name(item.relative), NO_PICTURE)]


def read_folder(
    root: Path, tables: TableJoin, identity_depth: int, *, landmarks: bool = False
) -> Iterator[FoundPhoto | Skipped]:
    """Yield the photos under `root`; the first `identity_depth` folders of a photo's path name its person.

    Depth 0 is the flat layout: no folder names a person. A photo in fewer folders has no name either; folders further
    down (one per session, for example) do not change the person. Labels of `tables` have priority over label files
    beside a photo, and both over folders. With `landmarks`, a `.png` beside a `.jpg` of its name is no photo.
    """
    photos: set[str] = set()
    for files in (sort_files(each, landmarks=landmarks) for each in walk_files(root)):
        yield from files.rest
        for photo in files.pictures:
            photos.add(photo.relative)
            yield from _photo(photo, files, tables, _person(photo.relative, identity_depth))
    yield from tables.left
    yield from tables.unread(photos)


def read_list(root: Path, tables: TableJoin, *, whole_folder: bool) -> Iterator[FoundPhoto | Skipped]:
    """Yield the photos that `tables` name, in their order, without names from folders.

    With `whole_folder`, the files of `root` that no table names are yielded last, as Skipped.
    """
    folders: dict[str, FolderFiles] = {}
    for photo in tables.files.values():
        folder = photo.relative.rpartition("/")[0]
        if folder not in folders:
            files = sort_files(files_of(root, folder), only=tables.files)
            folders[folder] = FolderFiles(labels=files.labels, shared=files.shared)
            if not whole_folder:
                yield from (item for item in files.rest if item.reason == SEVERAL)
        yield from _photo(photo, folders[folder], tables, None)
    yield from tables.left
    for each in walk_files(root) if whole_folder else ():
        yield from sort_files(each, only=tables.files).rest


def _person(relative: str, depth: int) -> str | None:
    folders = row_name(relative).split("/")[:-1][:depth]
    return "/".join(folders) if folders and len(folders) == depth else None


def _photo(photo: Entry, files: FolderFiles, tables: TableJoin, person: str | None) -> Iterator[FoundPhoto | Skipped]:
    labels, left = join_labels(photo, files, tables)
    yield from left
    yield FoundPhoto(row_name(photo.relative), photo.path, photo.n_bytes, Labels(identity=person).updated(labels))


def join_labels(photo: Entry, files: FolderFiles, tables: TableJoin) -> tuple[Labels, list[Skipped]]:
    """Return the labels of a photo, of files beside it and of tables, and what of them is not read."""
    labels, left = labels_beside(photo, files)
    return labels.updated(tables.labels.get(photo.relative, Labels())), left
