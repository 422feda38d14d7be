"""Read ConsistentID's training list: a JSON file that names the photos and their captions.

The published scripts (JackAILab/ConsistentID, `data/FGID_*.py`) write `JSON_all.json`, a list of objects

    {"origin_IMG": "15/0062963.png", "resize_IMG": "15/0062963_resize.png", "parsing_mask_IMG": …,
     "vqa_llva": "The image features a young woman …", "vqa_llva_face_caption": …, "id_embed_file_resize": …}

with paths relative to folders such as `FGID_Origin` and `FGID_resize`; other versions use `IMG` or `image`. Lists of
other tools (`file_name`, `text`) and one object per line are read too.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.core.errors import UserError
from pipelines.data.ingest.photo_files import (
    FoundPhoto,
    Labels,
    Skipped,
    is_picture_name,
    one_line,
    row_name,
    system_name,
)
from pipelines.data.ingest.walk import MISSING, Entry, classify, each_file

# The first key whose file exists wins; the original comes before the resized copy, which is distorted to a square.
PICTURE_KEYS = ("IMG", "origin_IMG", "resize_IMG", "image", "image_path", "image_file", "file_name", "file", "path")
# Folders beside the list in which published datasets keep the pictures.
PICTURE_FOLDERS = ("", "FGID_Origin", "origin_IMG", "FGID_resize", "resize_IMG", "IMG", "images", "data")
_NAMED = re.compile(rf'"(?:{"|".join(PICTURE_KEYS)})"\s*:\s*"([^"]*)"')
PROMPT_KEYS: tuple[str, ...] = ("prompt", "text", "caption", "vqa_llva", "vqa_llva_more_face_detail")
# ConsistentID's facial captions describe identity (nose, hair), not expression and pose: they are no face prompts.
FACE_PROMPT_KEYS: tuple[str, ...] = ("face_prompt",)
IDENTITY_KEYS: tuple[str, ...] = ("identity", "identity_id", "person", "person_id", "celebrity")
OTHER_KEYS: tuple[str, ...] = ("source", "licence", "consent")

NOT_NAMED = "not named by the list"
NAMED_TWICE = "named by the list more than once"
LEADS_OUT = "path that leads out of the folder"
NO_PICTURE_KEY = "entry of the list that names no picture"


def is_photo_list(file: Path) -> bool:
    """Whether the first 64 KB of a JSON file begin a list of photos (`.jsonl`: one object per line)."""
    try:
        with file.open("rb") as stream:
            start = stream.read(64 * 1024).decode("utf-8-sig", "ignore").lstrip()
    except OSError:
        return False
    if not start.startswith("{" if file.suffix.lower() == ".jsonl" else "["):
        return False
    return any(is_picture_name(name) for name in _NAMED.findall(start))


def read_list(root: Path, lists: list[Path], *, whole_folder: bool) -> Iterator[FoundPhoto | Skipped]:
    """Yield the photos that JSON `lists` in `root` name, in the order of the lists.

    With `whole_folder`, the files of `root` that no list names are yielded last, as Skipped. Paths that lead out of
    `root` are not followed. Raises UserError where a list cannot be parsed.
    """
    named: set[str] = {row_name(path.name) for path in lists}
    for file in lists:
        for number, entry in enumerate(entries_of(file), start=1):
            located = _locate(root, entry)
            if located is None:
                yield Skipped(f"{row_name(file.name)}[{number}]", NO_PICTURE_KEY)
            elif isinstance(located, Skipped):
                yield located
            elif (name := row_name(located.relative)) in named:
                yield Skipped(name, NAMED_TWICE)
            else:
                named.add(name)
                yield FoundPhoto(name, located.path, None, located.n_bytes, labels_of(entry))
    for item in each_file(root) if whole_folder else ():
        if isinstance(item, Skipped):
            yield item
        elif row_name(item.relative) not in named:
            yield Skipped(row_name(item.relative), NOT_NAMED)


def labels_of(entry: dict[str, Any]) -> Labels:
    """Return the labels in an entry of a list or in the JSON of a tar shard's sample."""
    return Labels(
        _first(entry, IDENTITY_KEYS),
        _first(entry, PROMPT_KEYS),
        _first(entry, FACE_PROMPT_KEYS),
        *(_first(entry, (key,)) for key in OTHER_KEYS),
    )


def _first(entry: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    for key in keys:
        value = entry.get(key)
        if isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if text := one_line(value):
            return text
    return None


def _locate(root: Path, entry: dict[str, Any]) -> Entry | Skipped | None:
    """Return the file of an entry, or Skipped (a reason other than MISSING first), or None where no key has a path."""
    failures: list[Skipped] = []
    for key in PICTURE_KEYS:
        relative = _relative(root, entry.get(key))
        if relative is None:
            continue
        if relative.startswith("../"):
            failures.append(Skipped(row_name(relative), LEADS_OUT))
            continue
        # JSON cannot hold names that are not UTF-8: such a name may be written with %XX, as in `file_name` of a row.
        for name in dict.fromkeys((relative, system_name(relative))):
            for folder in PICTURE_FOLDERS:
                result = classify(str(root), f"{folder}/{name}" if folder else name)
                if isinstance(result, Entry):
                    return result
                if not folder and name == relative:
                    failures.append(result)
    return min(failures, key=lambda failure: failure.reason == MISSING) if failures else None


def _relative(root: Path, name: object) -> str | None:
    """Return `name` relative to `root` ("../…" where it leads out), or None where it is not a path."""
    if not isinstance(name, str) or not name.strip() or "\x00" in name:
        return None
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return None
    if os.path.isabs(name):  # noqa: PTH117
        # An absolute path in this folder, perhaps through a link.
        name = os.path.relpath(os.path.realpath(name), root)
    relative = os.path.normpath(name)
    return "../" if relative == ".." else relative


def entries_of(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the entries of a JSON or JSON Lines file ({} where one is no object); raise UserError for other files."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read as UTF-8 text ({error}); expected a JSON list of photos") from None
    try:
        tree = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        tree = _lines(file, text)
    if isinstance(tree, dict):
        inner = [value for value in tree.values() if isinstance(value, list)]
        tree = inner[0] if len(inner) == 1 else [tree]
    if not isinstance(tree, list):
        raise UserError(f"{file}: expected a JSON list of objects that name photos, found {type(tree).__name__}")
    for entry in tree:
        yield entry if isinstance(entry, dict) else {}


def _lines(file: Path, text: str) -> list[Any]:
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(
            f"{file}: not valid JSON ({error}); expected a list of objects that name photos, or one object per line"
        ) from None
