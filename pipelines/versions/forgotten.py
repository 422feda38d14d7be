"""The gate that photos pass wherever they come in or go out, and the list that it asks: `data/forgotten.jsonl`.

The list holds hashes only and is in git beside the dataset's `.dvc` file; every later dataset version holds it, so that
clones have it too. A photo is stored as a hash of its `image_id`, a person as a salted hash of the name: a given photo
or name can be checked, but the forgotten ones cannot be listed.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.files import write_atomically
from pipelines.core.formats.table import FORGOTTEN, KEY, check_format
from pipelines.core.people import normal_name
from pipelines.core.words import counted
from pipelines.versions.git import git, in_repository
from pipelines.versions.git_tags import origin_path, read_at

LEDGER = "data/forgotten.jsonl"
REASON = f"forgotten on request ({LEDGER})"
# The checkout of a run's workspace: workspaces ask its list, too.
_HOME = "DYNAMICID_HOME"
_REFS = ("HEAD", "refs/heads", "refs/remotes", "refs/tags")
_NAMED = 5


@dataclass(frozen=True)
class Entry:
    """One request to forget people or photos, written before anything is deleted.

    `people`: [salt, sha256 of salt and name] of each; `photos`: sha256 of each `image_id`. `copies`: the same hash of
    other files that showed them: processed pictures, cut photos, pages. `datasets`: DVC's hash of every version that
    held them → DVC's hash of what is left of that version, or None where nothing is left.
    """

    when: str
    people: list[list[str]]
    photos: list[str]
    datasets: dict[str, str | None] = field(default_factory=dict)
    copies: list[str] = field(default_factory=list)

    def same_subject(self, other: Entry) -> bool:
        """Whether `other` is the same request, repeated or resumed: the same photos and as many people."""
        return set(self.photos) == set(other.photos) and len(self.people) == len(other.people)


def new_entry(
    identities: Iterable[str],
    image_ids: Iterable[str],
    datasets: dict[str, str | None],
    copies: Iterable[str] = (),
) -> Entry:
    """Return an entry of these people, photos and other files (sha256 of their bytes), with the current time (UTC)."""
    people = hashed_people(identities)
    photos, others = (sorted(_photo(name) for name in names) for names in (image_ids, copies))
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return Entry(when, people, photos, dict(sorted(datasets.items())), others)


def hashed_people(names: Iterable[str]) -> list[list[str]]:
    """Return [salt, sha256 of salt and name] of each person: a given name can be checked, others cannot be listed."""
    salted = ((secrets.token_hex(16), name) for name in sorted({normal_name(name) for name in names}))
    return [[salt, _person(salt, name)] for salt, name in salted]


def is_person(pair: list[str], name: str) -> bool:
    """Whether `pair` is one of `hashed_people` for `name`, in any of its forms."""
    salt, digest = pair
    return any(_person(salt, form) == digest for form in _forms(name))


class Forgotten:
    """All entries, indexed by photo and person."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = list(entries)
        self._photos = {digest: entry for entry in self.entries for digest in (*entry.photos, *entry.copies)}
        self._people = {salt: (digest, entry) for entry in self.entries for salt, digest in entry.people}
        self._asked: dict[str | None, Entry | None] = {None: None}

    def __bool__(self) -> bool:
        return bool(self.entries)

    def entry_of(self, identity: str | None, image_id: str | None = None) -> Entry | None:
        """Return the entry of a forgotten person or photo (sha256 of a file's bytes, hex), or None."""
        if image_id is not None and (entry := self._photos.get(_photo(image_id))) is not None:
            return entry
        if identity not in self._asked:
            matches = (
                entry for salt, (digest, entry) in self._people.items() if is_person([salt, digest], identity or "")
            )
            self._asked[identity] = next(matches, None)
        return self._asked[identity]

    def reason(self, identity: str | None, image_id: str | None) -> str | None:
        """Return why a photo is left out, or None where neither it nor its person is forgotten."""
        return None if self.entry_of(identity, image_id) is None else REASON

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


def gate(*places: Path) -> Forgotten:
    """Return the list that everybody asks who takes photos from or puts photos into `places`.

    It joins the lists of all checkouts that these places are in, as written and behind links to other disks, of the
    working folder, and of the checkouts that these are workspaces of. Raises UserError where one cannot be asked.
    """
    roots: dict[Path, None] = {}
    for place in (Path.cwd(), Path(os.environ.get(_HOME) or Path.cwd()), *places):
        for path in (Path(os.path.abspath(place)), place.resolve()):  # noqa: PTH100 (links must stay as they are)
            inside = (folder for folder in (path, *path.parents) if (folder / ".dvc" / "config").is_file())
            roots.update(dict.fromkeys(inside))
    asked = list(roots)
    for root in asked:  # grows: a workspace's home may be a clone, too
        if root.is_dir() and (origin := origin_path(root)) is not None and origin not in asked:
            asked.append(origin)
    return _forgotten(dict.fromkeys(line for root in asked for line in _lines(root)))


def read_ledger(root: Path) -> Forgotten:
    """Return the entries of the lists in a checkout and in its branches and tags, the oldest first."""
    return _forgotten(dict.fromkeys(_lines(root)))


def refuse_forgotten(*folders: Path, content: bool = False) -> None:
    """Raise StageFailed, naming them, where Parquet files below `folders` have rows of forgotten people or photos.

    With `content` the bytes in the column `image` are hashed, too: the column `image_id` may name others.
    """
    forgotten = gate(*folders)
    for folder in folders if forgotten else ():
        held = list(forgotten_rows(folder, forgotten, content=content))
        if held:
            people = sorted({person for _, person in held if person is not None})
            named = ", ".join(people[:_NAMED]) or "photos without a name"
            raise StageFailed(
                f"{folder}: {counted(len(held), 'photo')} in it {REASON}: {named}, such as {held[0][0]}; "
                "`dynamicid forget --again` removes them"
            )


def forgotten_rows(folder: Path, forgotten: Forgotten, *, content: bool = False) -> Iterator[tuple[str, str | None]]:
    """Yield the file name and the person of every row of the forgotten in the Parquet files below `folder`."""
    import pyarrow.parquet as pq

    for shard in sorted(folder.rglob("*.parquet")):
        with pq.ParquetFile(shard, pre_buffer=False) as file:
            wanted = ("image_id", "identity", "file_name", *(("image",) if content else ()))
            names = [name for name in wanted if name in file.schema_arrow.names]
            if "image_id" not in names:
                continue
            for batch in file.iter_batches(batch_size=64 if content else 4096, columns=names):
                for row in batch.to_pylist():
                    ids = [row["image_id"]]
                    ids += [hashlib.sha256(row["image"]).hexdigest()] if row.get("image") else []
                    if any(forgotten.entry_of(row.get("identity"), name) is not None for name in ids):
                        yield str(row.get("file_name")), row.get("identity")


def append(root: Path, entry: Entry) -> None:
    """Add an entry to the list of a checkout, by one rename; do nothing where it is listed with the same datasets."""
    present = read_ledger(root).entries
    same = (one for one in present if one.same_subject(entry) and one.datasets == entry.datasets)
    if any(set(entry.copies) <= set(one.copies) for one in same):
        return
    file = root / LEDGER
    before = file.read_text(encoding="utf-8") if file.is_file() else ""
    write_atomically(file, before + json.dumps({KEY: FORGOTTEN.version, **asdict(entry)}) + "\n")


def describe_entries(entries: Iterable[Entry]) -> str:
    """Return one line: what was forgotten and when; empty where there are no entries."""
    parts = []
    for entry in entries:
        people = f" of {len(entry.people)} {'person' if len(entry.people) == 1 else 'people'}" if entry.people else ""
        photos = f"{len(entry.photos)} {'photo' if len(entry.photos) == 1 else 'photos'}"
        parts.append(f"{photos}{people} on {entry.when}")
    return f"forgotten since: {'; '.join(parts)} ({LEDGER})" if parts else ""


def _lines(root: Path) -> Iterator[str]:
    """Yield the lines of the lists in a repository: in its working tree, at HEAD, and in all branches and tags.

    Raises UserError where a list cannot be read, or a line is no entry: nobody can be asked about then.
    """
    if not root.is_dir():
        raise UserError(
            f"{root}: no such folder, though this checkout is a clone of it and its list of the forgotten must be "
            "asked; bring it back, or `git remote set-url origin` names where it is now"
        )
    file = root / LEDGER
    texts: dict[str, bytes] = {}
    try:
        if file.is_symlink() or file.exists():
            texts[str(file)] = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: the list of the forgotten cannot be read ({error.strerror}); {_REMEDY}") from None
    if in_repository(root):
        refs = [*git(root, "for-each-ref", "--format=%(refname)", *_REFS[1:]).splitlines(), _REFS[0]]
        texts |= {f"{root}: {LEDGER} at {ref}": text for ref, text in read_at(root, refs, LEDGER).items()}
    checked: set[str] = set()
    for place, text in texts.items():
        for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), 1):
            if line.strip() and line not in checked:
                _entry(line, f"{place}, line {number}")
                checked.add(line)
                yield line


_REMEDY = (
    f"no photo passes until it can be: bring it back with `git checkout VERSION -- {LEDGER}`; `dynamicid dataset list` "
    "prints the versions"
)


def _forgotten(lines: Iterable[str]) -> Forgotten:
    return Forgotten(sorted((_entry(line, LEDGER) for line in lines), key=lambda entry: entry.when))


def _entry(line: str, place: str) -> Entry:
    try:
        given = json.loads(line)
        check_format(FORGOTTEN, place, given.pop(KEY, None))
        return Entry(**given)
    except json.JSONDecodeError:
        problem = f"is cut or damaged; {_REMEDY}"
    except (TypeError, AttributeError) as error:
        problem = f"is not an entry of this version of the project ({error}); use the version that wrote it"
    raise UserError(f"{place}: the list of the forgotten {problem}")


def _forms(name: str) -> set[str]:
    """Return the forms in which a list may hold a name; lists of earlier versions hold it as it was given."""
    normal = normal_name(name)
    return {normal, name, unicodedata.normalize("NFD", normal)}


def _photo(image_id: str) -> str:
    return hashlib.sha256(f"photo:{image_id}".encode()).hexdigest()


def _person(salt: str, name: str) -> str:
    return hashlib.sha256(f"{salt}:person:{name}".encode()).hexdigest()
