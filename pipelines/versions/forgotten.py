"""Keep the list of the forgotten, `data/forgotten.jsonl`: hashes only, in git beside the dataset's `.dvc` file.

Every later dataset version holds it, so that clones have it too. A photo is stored as a hash of its `image_id`, a
person as a salted hash of the name: a given photo or name can be checked, but the forgotten ones cannot be listed.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pipelines.versions.git import in_repository
from pipelines.versions.git_tags import numbered_tags, read_at

LEDGER = "data/forgotten.jsonl"


@dataclass(frozen=True)
class Entry:
    """One request to forget people or photos, written before anything is deleted.

    `people`: [salt, sha256 of salt and name] of each; `photos`: sha256 of each `image_id`. `datasets`: DVC's hash of
    every version that held them → DVC's hash of what is left of that version, or None where nothing is left.
    """

    when: str
    people: list[list[str]]
    photos: list[str]
    datasets: dict[str, str | None] = field(default_factory=dict)

    def same_subject(self, other: Entry) -> bool:
        """Whether `other` is the same request, repeated or resumed: the same photos and as many people."""
        return set(self.photos) == set(other.photos) and len(self.people) == len(other.people)


def new_entry(identities: Iterable[str], image_ids: Iterable[str], datasets: dict[str, str | None]) -> Entry:
    """Return an entry of these people and photos, hashed, with the current time (UTC)."""
    people = []
    for name in sorted(identities):
        salt = secrets.token_hex(16)
        people.append([salt, _person(salt, name)])
    photos = sorted(_photo(name) for name in image_ids)
    return Entry(datetime.now(UTC).isoformat(timespec="seconds"), people, photos, dict(sorted(datasets.items())))


class Forgotten:
    """All entries, indexed by photo and person."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = list(entries)
        self._photos = {digest: entry for entry in self.entries for digest in entry.photos}
        self._people = {salt: (digest, entry) for entry in self.entries for salt, digest in entry.people}
        self._known: dict[str | None, Entry | None] = {None: None}

    def entry_of(self, identity: str | None, image_id: str | None = None) -> Entry | None:
        """Return the entry of a forgotten person or photo, or None."""
        if image_id is not None and (entry := self._photos.get(_photo(image_id))) is not None:
            return entry
        if identity not in self._known:
            matches = (
                entry for salt, (digest, entry) in self._people.items() if _person(salt, identity or "") == digest
            )
            self._known[identity] = next(matches, None)
        return self._known[identity]

    def of_dataset(self, md5: str) -> list[Entry]:
        """Return the entries that removed something from the dataset with DVC's hash `md5`, the oldest first."""
        return [entry for entry in self.entries if md5 in entry.datasets]

    def left_of(self, md5: str) -> str | None:
        """Return DVC's hash of what is left of a dataset after all requests, or None where nothing is left."""
        left: str | None = md5
        for _ in self.entries:
            step = next((entry.datasets[left] for entry in self.entries if left in entry.datasets), left)
            if step == left or step is None:
                return step
            left = step
        return left


def read_ledger(root: Path) -> Forgotten:
    """Return the entries of the lists in a checkout and in its dataset versions, the oldest first."""
    texts = []
    file = root / LEDGER
    if file.is_file():
        texts.append(file.read_text(encoding="utf-8"))
    if in_repository(root):
        tags = [name for _, name in numbered_tags(root, "faces-v")]
        texts += [content.decode() for content in read_at(root, tags, LEDGER).values()] if tags else []
    lines = dict.fromkeys(line for text in texts for line in text.splitlines() if line.strip())
    return Forgotten(sorted((Entry(**json.loads(line)) for line in lines), key=lambda entry: entry.when))


def append(root: Path, entry: Entry) -> None:
    """Append an entry and sync the file to disk; do nothing where the same request with the same datasets is listed."""
    if any(known.same_subject(entry) and known.datasets == entry.datasets for known in read_ledger(root).entries):
        return
    file = root / LEDGER
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(asdict(entry)) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def describe_entries(entries: Iterable[Entry]) -> str:
    """Return one line: what was forgotten and when; empty where there are no entries."""
    parts = []
    for entry in entries:
        people = f" of {len(entry.people)} {'person' if len(entry.people) == 1 else 'people'}" if entry.people else ""
        photos = f"{len(entry.photos)} {'photo' if len(entry.photos) == 1 else 'photos'}"
        parts.append(f"{photos}{people} on {entry.when}")
    return f"forgotten since: {'; '.join(parts)} ({LEDGER})" if parts else ""


def _photo(image_id: str) -> str:
    return hashlib.sha256(f"photo:{image_id}".encode()).hexdigest()


def _person(salt: str, name: str) -> str:
    return hashlib.sha256(f"{salt}:person:{name}".encode()).hexdigest()
