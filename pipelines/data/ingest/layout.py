"""Detect which of the known layouts a source has, by its content, and read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, get_args

from pipelines.core.errors import UserError
from pipelines.data.ingest.contents import Content, read_contents
from pipelines.data.ingest.folders import join_tables, read_folder, read_list
from pipelines.data.ingest.huggingface import SUFFIX as PARQUET
from pipelines.data.ingest.huggingface import by_path, picture_column, pictures_of, read_parquet
from pipelines.data.ingest.label_files import TABLES
from pipelines.data.ingest.label_join import TableJoin
from pipelines.data.ingest.photo_files import FoundPhoto, Skipped, is_picture_name, is_tar_name
from pipelines.data.ingest.sidecars import has_sidecars, sort_files
from pipelines.data.ingest.walk import Entry, check_root, each_file, walk_files
from pipelines.data.ingest.webdataset_tar import members_of, read_shards

Layout = Literal["auto", "flat", "sidecars", "identity-folders", "consistentid", "webdataset", "huggingface"]
LAYOUTS: tuple[str, ...] = get_args(Layout)
# Detecting the layout or the depth of identity folders stops after this many matching files.
_ENOUGH = 10_000
_ABOUT = {
    "consistentid": "the photos that {list} names, and no other",
    "identity-folders": "each folder names a person",
    "flat": "all photos, and no folder names a person",
    "sidecars": "all photos, with their landmark pictures",
    "webdataset": "the photos in tar shards",
    "huggingface": "the photos in Parquet",
}


class UnclearLayout(UserError):
    """No layout fits a source, or two do."""


@dataclass(frozen=True)
class Source:
    """A source whose layout is known.

    `root` is a real folder. Where the source is a file, `only` is its name in `root`, and no other file is read; where
    it is a list of photos, it is in `lists`.
    """

    root: Path
    layout: str
    identity_depth: int = 1
    lists: tuple[Path, ...] = ()
    only: str | None = None
    joined: TableJoin | None = field(default=None, repr=False, compare=False)

    @cached_property
    def tables(self) -> TableJoin:
        """The labels that tables give to photos, for layouts of files on disk."""
        return self.joined or join_tables(self.root, self.lists, whole_folder=self.only is None)

    def read(self, max_bytes: int) -> Iterator[FoundPhoto | Skipped]:
        """Yield every picture with its labels, every skipped file, and as Unmatched which labels are not joined."""
        if self.layout == "webdataset":
            return read_shards(self.root, self.only, max_bytes)
        if self.layout == "huggingface":
            return read_parquet(self.root, self.only)
        if self.layout == "consistentid":
            return read_list(self.root, self.tables, whole_folder=self.only is None)
        depth = self.identity_depth if self.layout == "identity-folders" else 0
        return read_folder(self.root, self.tables, depth, landmarks=self.layout == "sidecars")

    def contents(self, photos: Iterable[FoundPhoto | Skipped], max_bytes: int) -> Iterator[Content | Skipped]:
        """Yield the bytes of photos that `read` yielded, in their order."""
        members = members_of if self.layout == "webdataset" else partial(pictures_of, root=self.root)
        return read_contents(photos, max_bytes, members)


def open_source(source: Path, layout: str = "auto", identity_depth: int | None = None) -> Source:
    """Return the source with its layout, detected where `layout` is "auto".

    A table file that names photos is ConsistentID's list, a tar file a webdataset shard, a `.parquet` file with
    pictures part of a Hugging Face dataset. A folder with a list at its top that names all its photos is
    `consistentid`; one with pictures in sub-folders, `identity-folders`; one with tar shards, `webdataset`; one with
    Parquet of pictures, `huggingface`; one whose photos have landmark pictures and embeddings, `sidecars`; else
    `flat`. Raises UserError where no layout fits, or two, or where all pictures are more than one folder deep and
    `identity_depth` is None.
    """
    if layout not in LAYOUTS:
        raise UserError(f"layout {layout!r}: expected one of {', '.join(LAYOUTS)}")
    if source.is_file():
        return _open_file(source, layout)
    root = check_root(source)
    joined = None
    if layout == "auto":
        layout, joined = _detect(source, root, identity_depth)
    elif layout == "consistentid":
        joined = join_tables(root)
        if not joined.lists:
            left = "; ".join(f"{item.file_name}: {item.reason}" for item in joined.left[:3])
            expected = f"expected JSON_all.json (see docs/reference/layouts.md){f'; {left}' if left else ''}"
            raise UserError(f"{source}: no list of photos at its top; {expected}")
    if layout == "identity-folders":
        return Source(root, layout, identity_depth or _identity_depth(source, root), joined=joined)
    return Source(root, layout, joined=joined)


def _open_file(source: Path, layout: str) -> Source:
    real = source.resolve()
    if layout in ("auto", "webdataset") and is_tar_name(real.name):
        return Source(real.parent, "webdataset", only=real.name)
    if layout in ("auto", "huggingface") and picture_column(real) is not None:
        return Source(real.parent, "huggingface", only=real.name)
    if layout in ("auto", "consistentid") and real.suffix.lower() in TABLES:
        return Source(real.parent, "consistentid", lists=(real,), only=real.name)
    raise UserError(
        f"{source}: a file is ingested as a list of photos ({', '.join(TABLES)}), a tar shard or Parquet with a column "
        "of pictures; give a folder"
    )


def _detect(source: Path, root: Path, identity_depth: int | None) -> tuple[str, TableJoin | None]:
    """Return the only layout that fits, and the labels of tables, if they were read."""
    counts: Counter[str] = Counter()
    parquet: Path | None = None
    for files in walk_files(root):
        entries = [item for item in files if isinstance(item, Entry)]
        kinds = [(item, kind) for item in entries if (kind := _kind(item))]
        counts.update(kind for _, kind in kinds)
        parquet = parquet or next((Path(item.path) for item, kind in kinds if kind == "parquet"), None)
        if "picture at top" in counts and entries and "/" not in entries[0].relative:
            counts["sidecars"] += has_sidecars(entries)
        counts["file"] += len(entries)
        if counts["shard"] + counts["parquet"] + counts["picture below"] >= _ENOUGH:
            break
    fits = [layout for layout, kind in (("webdataset", "shard"), ("huggingface", "parquet")) if counts[kind]]
    of_parquet = parquet is not None and by_path(parquet, str(picture_column(parquet)))
    joined, named = None, ""
    if not of_parquet and (counts["picture at top"] or counts["picture below"] or not fits):
        joined = join_tables(root)
        named = ", ".join(joined.lists)
        fits += _of_files(root, counts, joined, identity_depth)
        if not counts["file"]:
            raise UserError(
                f"{source}: no file in it that could be a photo; expected pictures, a JSON list, tar shards or Parquet"
            )
    if len(fits) > 1:
        both = " and ".join(f"{layout} ({_ABOUT[layout].format(list=named)})" for layout in fits)
        raise UnclearLayout(f"{source}: {len(fits)} layouts fit: {both}; choose one with --layout")
    return fits[0], joined


def _of_files(root: Path, counts: Counter[str], tables: TableJoin, identity_depth: int | None) -> list[str]:
    """Return the layouts of files on disk that fit; of those that give the same rows, one."""
    if tables.published or (tables.lists and not counts["picture below"] and not counts["picture at top"]):
        return ["consistentid"]
    folder = "identity-folders" if counts["picture below"] else "sidecars" if counts["sidecars"] else "flat"
    if not tables.files or identity_depth is not None:
        return [folder]
    each = (sort_files(files, landmarks=folder == "sidecars").pictures for files in walk_files(root))
    unnamed = any(photo.relative not in tables.files for photos in each for photo in photos)
    listed = ["consistentid"] if tables.lists else []
    if folder == "identity-folders":
        # A table gives no person to a photo in a folder: the folder may name one, or not.
        if any("/" in name and labels.identity is None for name, labels in tables.labels.items()):
            return [*(listed if listed and not unnamed else ["flat"]), folder]
    elif folder == "sidecars" and not unnamed:
        return [folder]
    return [*listed, folder] if unnamed else listed or [folder]


def _kind(item: Entry) -> str | None:
    if is_tar_name(item.relative):
        return "shard"
    if item.relative.lower().endswith(PARQUET):
        return "parquet" if picture_column(Path(item.path)) is not None else None
    if is_picture_name(item.relative):
        return "picture below" if "/" in item.relative else "picture at top"
    return None


def _identity_depth(source: Path, root: Path) -> int:
    """Return 1; raise UserError where all pictures are deeper than one folder, as in train/<person>/1.jpg."""
    checked = 0
    example = ""
    for item in each_file(root):
        if not isinstance(item, Entry) or not is_picture_name(item.relative) or "/" not in item.relative:
            continue
        if item.relative.count("/") == 1:
            return 1
        example = example or item.relative
        checked += 1
        if checked >= _ENOUGH:
            break
    if example:
        raise UnclearLayout(
            f"{source}: pictures are more than one folder deep ({example!a}); give --identity-depth N, the number "
            "of folders that name a person, or give the folder that holds the people"
        )
    return 1
