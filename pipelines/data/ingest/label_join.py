"""Join labels to photos: label files by the names of photos in their folder, entries of tables by the paths they give.

Every layout passes through here. Names are compared exactly first, then without regard to case and Unicode form. A
label belongs to one photo; a label that fits none, or several, is Unmatched.
"""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import unquote

from pipelines.data.ingest.label_files import Entry as TableEntry
from pipelines.data.ingest.label_files import names_photo, paths_in
from pipelines.data.ingest.label_values import labels_of, left_out
from pipelines.data.ingest.photo_files import Labels, Skipped, Unmatched, row_name, system_name
from pipelines.data.ingest.walk import MISSING, Entry, classify

# Folders beside a table in which published datasets keep the pictures.
PICTURE_FOLDERS = ("", "FGID_Origin", "origin_IMG", "FGID_resize", "resize_IMG", "IMG", "images", "data")
# Keys that only ConsistentID's lists have.
_PUBLISHED = ("img", "origin_img", "resize_img")
NAMED_TWICE = "named by the list more than once"
CONFLICT = "named more than once, with another {}; the first is used"
LEADS_OUT = "path that leads out of the folder"
NO_PICTURE_KEY = "entry of the list that names no picture"
NO_PHOTO = "names no photo that is read"
SEVERAL = "fits several photos"
# webdataset's compound suffixes: 0001.meta.json, but not 2023.05.01.json.
_COMPOUND = re.compile(r"(\.[A-Za-z_][\w-]*)*")
_TRIED = 200


def similar_form(name: str) -> str:
    """Return a name in the form in which systems that ignore case, or decompose letters, take it for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def owners(pictures: Sequence[str], files: Iterable[str]) -> dict[str, list[str]]:
    """Return for every label file the pictures of its folder that it fits: one, none, or several equally well.

    `1.jpg.txt` fits 1.jpg; `1.txt` every picture 1.*; `1.jpg.meta.json` 1.jpg. In webdataset's convention the key ends
    at the first dot, so that `1.meta.json` fits 1.jpg, and `1.json` fits 1.left.jpg, where nothing fits better.
    """
    same = _Names(pictures, str)
    similar: _Names | None = None
    result: dict[str, list[str]] = {}
    for file in files:
        result[file] = same.fit(file)
        if not result[file]:
            similar = similar or _Names(pictures, similar_form)
            result[file] = similar.fit(file)
    return result


class _Names:
    """The pictures of a folder by name, by name without suffix and by webdataset's key."""

    def __init__(self, pictures: Sequence[str], form: Callable[[str], str]) -> None:
        self._form = form
        self._names: dict[str, list[str]] = defaultdict(list)
        self._stems: dict[str, list[str]] = defaultdict(list)
        self._keys: dict[str, list[str]] = defaultdict(list)
        for picture in pictures:
            name = form(picture)
            self._names[name].append(picture)
            self._stems[_stem(name)].append(picture)
            self._keys[name.split(".", 1)[0]].append(picture)

    def fit(self, file: str) -> list[str]:
        stem = _stem(self._form(file))
        if hit := self._names.get(stem) or self._stems.get(stem):
            return hit
        shorter = stem
        while (shorter := _stem(last := shorter)) != last:
            if hit := self._names.get(shorter):
                return hit
        key, _, rest = stem.partition(".")
        if rest:  # pictures of one key may be many, and so may its label files
            return self._stems.get(key, []) if _COMPOUND.fullmatch(f".{rest}") else []
        stems = [(picture, _stem(self._form(picture))) for picture in self._keys.get(key, ())]
        return [picture for picture, own in stems if _COMPOUND.fullmatch(own[len(key) :])]


def _stem(name: str) -> str:
    stem, dot, _ = name.rpartition(".")
    return stem if dot and stem else name


class Place(Protocol):
    """Where tables find photos: a folder on disk, or the members of an archive."""

    def exact(self, relative: str) -> Entry | Skipped:
        """Return the file of this name, or why there is none (MISSING)."""

    def similar(self, relative: str) -> list[str]:
        """Return the names that are this one except for case and Unicode form."""


class Folder:
    """A folder on disk, whose sub-folders are listed when they are needed."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._listed: dict[str, dict[str, list[str]]] = {}

    def exact(self, relative: str) -> Entry | Skipped:
        """Return the file of this name, or why there is none."""
        return classify(self._root, relative)

    def similar(self, relative: str) -> list[str]:
        """Return the names that are this one except for case and Unicode form."""
        places = [""]
        for part in relative.split("/"):
            places = [
                f"{place}/{name}" if place else name
                for place in places
                for name in self._names(place).get(similar_form(part), ())
            ]
        return places

    def _names(self, place: str) -> dict[str, list[str]]:
        if place not in self._listed:
            names: dict[str, list[str]] = defaultdict(list)
            try:
                for name in os.listdir(os.path.join(self._root, place)):  # noqa: PTH118, PTH208
                    names[similar_form(name)].append(name)
            except OSError:
                pass
            self._listed[place] = names
        return self._listed[place]


class Members:
    """The members of an archive, by name."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = set(names)
        self._similar: dict[str, list[str]] = defaultdict(list)
        for name in self._names:
            self._similar[similar_form(name)].append(name)

    def exact(self, relative: str) -> Entry | Skipped:
        """Return the member of this name, or MISSING."""
        return Entry(relative, "", 0) if relative in self._names else Skipped(row_name(relative), MISSING)

    def similar(self, relative: str) -> list[str]:
        """Return the names that are this one except for case and Unicode form."""
        return self._similar.get(similar_form(relative), [])


@dataclass
class TableJoin:
    """The labels that tables give to photos, by the photo's name in `place`, and the entries that could not be joined.

    `published` is true for ConsistentID's lists: no folder names a person, and most pictures are masks and copies.
    """

    place: Place
    root: str = ""
    labels: dict[str, Labels] = field(default_factory=dict)
    files: dict[str, Entry] = field(default_factory=dict)
    entries: dict[str, str] = field(default_factory=dict)  # photo → the entry that named it first
    left: list[Skipped] = field(default_factory=list)
    lists: list[str] = field(default_factory=list)  # tables at the top of a folder
    published: bool = False

    def add(self, table: str, entries: list[TableEntry | str], *, exact: bool = False) -> bool:
        """Join the entries of the table at the relative path `table`; return whether any of them names a picture.

        With `exact`, their paths have no other leading folders than the photos.
        """
        cut = self._cut(table, entries, exact)
        if cut is None:
            if not any(isinstance(entry, str) or names_photo(entry) for entry in entries):
                return False
            cut = 0
        for number, entry in enumerate(entries, start=1):
            label = f"{row_name(table)}[{number}]"
            if isinstance(entry, str):
                self.left.append(Unmatched(label, entry, label))
                continue
            located = self._locate(table, entry, cut)
            if isinstance(located, Entry):
                self.published |= not entry.keys().isdisjoint(_PUBLISHED)
                self._join(located, label, entry)
            elif located is None:
                self.left.append(Unmatched(label, NO_PICTURE_KEY, label))
            else:
                self.left.append(Unmatched(located.file_name, located.reason, label))
        return True

    def unread(self, photos: set[str]) -> list[Skipped]:
        """Return the entries whose photos are not among `photos`."""
        return [Unmatched(row_name(name), NO_PHOTO, self.entries[name]) for name in self.labels if name not in photos]

    def _join(self, photo: Entry, label: str, entry: TableEntry) -> None:
        labels, problems = labels_of(entry)
        name = photo.relative
        shown = row_name(name)
        self.left += [left_out(shown, problem, label) for problem in problems]
        earlier = self.labels.get(name)
        if earlier is None:
            self.labels[name], self.files[name], self.entries[name] = labels, photo, label
            return
        if conflicts := earlier.conflicts(labels):
            self.left.append(Unmatched(shown, CONFLICT.format(" and ".join(conflicts)), label))
        elif labels.updated(earlier) == earlier:
            self.left.append(Skipped(shown, NAMED_TWICE))
        self.labels[name] = labels.updated(earlier)

    def _cut(self, table: str, entries: list[TableEntry | str], exact: bool) -> int | None:
        """Return how many leading folders, common to all entries, the paths have more than the photos; None: no fit."""
        objects = [entry for entry in entries if isinstance(entry, dict)]
        paths = [path for entry in objects for path in _paths(entry)]
        common = posixpath.commonpath([posixpath.dirname(_plain(path)) for path in paths]) if paths else ""
        depth = 0 if exact or not common or ".." in common.split("/") else len(common.split("/"))
        for cut in range(depth + 1):
            if any(isinstance(self._locate(table, entry, cut), Entry) for entry in objects[:_TRIED]):
                return cut
        return 0 if any(isinstance(self._locate(table, entry, 0), Entry) for entry in objects[_TRIED:]) else None

    def _locate(self, table: str, entry: TableEntry, cut: int) -> Entry | Skipped | None:
        """Return the photo of an entry, or Skipped (a reason other than MISSING first), or None without any path."""
        failures: list[Skipped] = []
        own = posixpath.dirname(table)
        for path in _paths(entry):
            names = dict.fromkeys(self._forms(path, cut))
            inside = [name for name in names if name != ".." and not name.startswith("../")]
            if not inside:
                failures.append(Skipped(row_name(_plain(path)), LEADS_OUT))
                continue
            for name in self._places(inside, own):
                result = self.place.exact(name)
                if isinstance(result, Entry):
                    return result
                if result.reason != MISSING or name == inside[0]:
                    failures.append(result)
            alike = list(
                dict.fromkeys(found for name in self._places(inside, own) for found in self.place.similar(name))
            )
            if len(alike) > 1:
                failures.append(Skipped(row_name(inside[0]), SEVERAL))
            elif alike and isinstance(result := self.place.exact(alike[0]), Entry):
                return result
        return min(failures, key=lambda failure: failure.reason == MISSING) if failures else None

    @staticmethod
    def _places(names: list[str], own: str) -> Iterator[str]:
        """Yield where a table in the folder `own` may mean the files `names`."""
        for name in names:
            for folder in PICTURE_FOLDERS:
                inner = f"{folder}/{name}" if folder else name
                yield from (f"{own}/{inner}", inner) if own else (inner,)

    def _forms(self, path: str, cut: int) -> Iterable[str]:
        """Yield the relative paths that `path` may mean, without its first `cut` folders."""
        plain = _plain(path)
        if not cut:
            if posixpath.isabs(path):
                # An absolute path in this folder, perhaps through a link.
                yield os.path.relpath(os.path.realpath(path), self.root or "/")
            else:
                # JSON cannot hold names that are not UTF-8: such a name may be written with %XX, as in `file_name`.
                yield from map(posixpath.normpath, (path, system_name(path), plain, unquote(plain)))
        else:
            rest = "/".join(plain.split("/")[cut:])
            yield from (rest, unquote(rest))


class Absent:
    """Photos that were removed from a source on purpose, by their names in it."""

    def __init__(self, photos: Iterable[str]) -> None:
        self._folders: dict[str, list[str]] = defaultdict(list)
        for photo in photos:
            self._folders[posixpath.dirname(photo)].append(posixpath.basename(photo))

    def excuses(self, item: Unmatched) -> bool:
        """Whether `item` is a label of one of these photos."""
        folder, name = posixpath.split(item.file_name)
        photos = self._folders.get(folder, ())
        return name in photos or bool(photos and owners(photos, [name])[name])


def _paths(entry: TableEntry) -> list[str]:
    """Return the paths in an entry that a file system can have."""
    return [path for path in paths_in(entry) if "\x00" not in path and _is_path(path)]


def _is_path(path: str) -> bool:
    try:
        return bool(os.fsencode(path))
    except UnicodeEncodeError:
        return False


def _plain(path: str) -> str:
    """Return a path of any system with "/", without drive, scheme and "./", relative to the root of its system."""
    return posixpath.normpath(re.sub(r"^(file:)?/*([A-Za-z]:(?=/))?/*", "", path.replace("\\", "/")))
