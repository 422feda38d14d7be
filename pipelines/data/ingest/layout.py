"""Detect which of the known layouts a source has, and read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pipelines.core.errors import UserError
from pipelines.data.ingest.consistentid import is_photo_list, read_list
from pipelines.data.ingest.folders import read_folder
from pipelines.data.ingest.huggingface import SUFFIX as PARQUET
from pipelines.data.ingest.huggingface import picture_column, read_parquet
from pipelines.data.ingest.metadata import read_metadata, with_metadata
from pipelines.data.ingest.photo_files import FoundPhoto, Skipped, is_picture_name
from pipelines.data.ingest.sidecars import has_sidecars, read_sidecars
from pipelines.data.ingest.walk import Entry, check_root, each_file, walk_files
from pipelines.data.ingest.webdataset_tar import is_tar_name, read_shards

Layout = Literal["auto", "flat", "sidecars", "identity-folders", "consistentid", "webdataset", "huggingface"]
LAYOUTS: tuple[str, ...] = get_args(Layout)
# Detecting the layout or the depth of identity folders stops after this many matching files.
_ENOUGH = 10_000


@dataclass(frozen=True)
class Source:
    """A source whose layout is known.

    `root` is a real folder; `lists` are JSON files in it. Where the source is a file, `only` is its name in `root`, and
    no other file is read.
    """

    root: Path
    layout: str
    identity_depth: int = 1
    lists: tuple[Path, ...] = ()
    only: str | None = None

    def read(self, max_bytes: int) -> Iterator[FoundPhoto | Skipped]:
        """Yield every picture of the source and every skipped file."""
        if self.layout == "consistentid":
            return read_list(self.root, list(self.lists), whole_folder=self.only is None)
        if self.layout == "webdataset":
            return read_shards(self.root, self.only, max_bytes)
        if self.layout == "huggingface":
            return read_parquet(self.root, self.only, max_bytes)
        known = read_metadata(self.root)
        if self.layout == "sidecars":
            return with_metadata(read_sidecars(self.root), known)
        return with_metadata(read_folder(self.root, 0 if self.layout == "flat" else self.identity_depth), known)

    def count(self) -> int | None:
        """Return the number of files except `.txt`, or None where photos can only be counted by reading them."""
        if self.layout in ("webdataset", "huggingface") or self.only is not None:
            return None
        names = (item.relative if isinstance(item, Entry) else "" for item in each_file(self.root))
        return sum(not name.lower().endswith(".txt") for name in names)


def open_source(source: Path, layout: str = "auto", identity_depth: int | None = None) -> Source:
    """Return the source with its layout, detected where `layout` is "auto".

    A `.json` or `.jsonl` file is ConsistentID's list, a tar file a webdataset shard, a `.parquet` file with pictures
    part of a Hugging Face dataset. A folder with a list of photos at its top is `consistentid`; one with pictures in
    sub-folders, `identity-folders`; one with tar shards and no picture at its top, `webdataset`; one with Parquet of
    pictures, `huggingface`; one whose photos have landmark pictures and embeddings, `sidecars`; else `flat`. Raises
    UserError where no layout fits, or where all pictures are more than one folder deep and `identity_depth` is None.
    """
    if layout not in LAYOUTS:
        raise UserError(f"layout {layout!r}: expected one of {', '.join(LAYOUTS)}")
    if source.is_file():
        return _open_file(source, layout)
    root = check_root(source)
    if layout == "auto":
        layout = _detect(source, root)
    if layout == "consistentid":
        lists = _lists(root)
        if not lists:
            expected = "expected JSON_all.json (see docs/reference/layouts.md)"
            raise UserError(f"{source}: no JSON list of photos at its top; {expected}")
        return Source(root, layout, lists=tuple(lists))
    if layout == "identity-folders":
        return Source(root, layout, identity_depth or _identity_depth(source, root))
    return Source(root, layout)


def _open_file(source: Path, layout: str) -> Source:
    real = source.resolve()
    if layout in ("auto", "consistentid") and real.suffix.lower() in (".json", ".jsonl"):
        return Source(real.parent, "consistentid", lists=(real,), only=real.name)
    if layout in ("auto", "webdataset") and is_tar_name(real.name):
        return Source(real.parent, "webdataset", only=real.name)
    if layout in ("auto", "huggingface") and picture_column(real) is not None:
        return Source(real.parent, "huggingface", only=real.name)
    raise UserError(
        f"{source}: a file is ingested as a JSON list (.json, .jsonl), a tar shard or Parquet with a column of "
        "pictures; give a folder"
    )


def _lists(root: Path) -> list[Path]:
    names = [path for path in root.iterdir() if path.suffix.lower() in (".json", ".jsonl") and not path.is_symlink()]
    return sorted(path for path in names if path.is_file() and is_photo_list(path))


def _detect(source: Path, root: Path) -> str:
    if _lists(root):
        return "consistentid"
    counts: Counter[str] = Counter()
    for files in walk_files(root):
        entries = [item for item in files if isinstance(item, Entry)]
        counts.update(kind for item in entries if (kind := _kind(item)))
        if "picture at top" in counts and entries and "/" not in entries[0].relative:
            counts["sidecars"] += has_sidecars(entries)
        counts["file"] += len(entries)
        if counts["shard"] + counts["parquet"] + counts["picture below"] >= _ENOUGH:
            break
    if counts["picture below"]:
        return "identity-folders"
    if not counts["picture at top"]:
        if counts["shard"]:
            return "webdataset"
        if counts["parquet"]:
            return "huggingface"
        if not counts["file"]:
            raise UserError(
                f"{source}: no file in it that could be a photo; expected pictures, a JSON list, tar shards or Parquet"
            )
    return "sidecars" if counts["sidecars"] else "flat"


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
        raise UserError(
            f"{source}: pictures are more than one folder deep ({example!a}); give --identity-depth N, the number "
            "of folders that name a person, or give the folder that holds the people"
        )
    return 1
