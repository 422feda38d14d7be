"""Check what a backup contains: only names and formats that `dynamicid backup` writes, no links, every byte as listed.

Hashes find damage, not malice: whoever changes a file can change its hash in the manifest, too. A file of another name
or format is therefore refused although its hash fits, and nothing in a backup is followed, run or taken as a setting.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from pipelines.core.errors import UserError
from pipelines.core.files import sha256
from pipelines.operations.stack.credentials import FILE, read_credentials

MANIFEST = "manifest.json"
ARTEFACTS = "artefacts"
BUNDLE = "refs.bundle"
DATABASE = re.compile(r"(mlflow|accounts|airflow)\.(sqlite|pgdump)")
# Names of git, in any spelling of file systems that ignore case: a folder with them is a repository to git, which runs
# programs that its configuration names.
_OF_GIT = {".git", "head"}
# The first bytes of each format.
_FORMATS = {".sqlite": b"SQLite format 3\0", ".pgdump": b"PGDMP", ".bundle": b"# v"}
# The credentials that a restore needs; others are generated where they are missing.
_NEEDED = ("POSTGRES_PASSWORD", "AIRFLOW_DB_PASSWORD", "MLFLOW_DB_PASSWORD")
_SHA256 = re.compile("[0-9a-f]{64}")


def check_contents(folder: Path, listed: dict[str, str]) -> None:
    """Compare a backup with the files that its manifest lists ({name: sha256}); raise UserError for a difference."""
    if malformed := [name for name, digest in listed.items() if not _SHA256.fullmatch(digest)]:
        raise UserError(f"{folder / MANIFEST}: damaged: no sha256 of {malformed[0]!r}; copy it again")
    present = set(files_in(folder)) - {MANIFEST}
    if strange := unknown_names(present | set(listed)):
        raise UserError(f"{folder}: {strange[0]!r}: no file of a backup has this name; nothing was restored")
    wrong = [f"{name} is missing" for name in sorted(set(listed) - present)]
    wrong += [f"{name} is not in {MANIFEST}" for name in sorted(present - set(listed))]
    both = sorted(present & set(listed))
    wrong += [f"{name} is damaged" for name in both if sha256(folder / name) != listed[name]]
    wrong = wrong or [f"{name}: not a file of its format" for name in both if not _has_format(folder, name)]
    if wrong:
        raise UserError(f"{folder}: {'; '.join(wrong[:5])}; nothing was restored")
    if FILE in present:
        given = read_credentials(folder / FILE)
        if missing := [name for name in _NEEDED if name not in given]:
            raise UserError(f"{folder / FILE}: {', '.join(missing)} is missing; nothing was restored")


def unknown_names(names: Iterable[str]) -> list[str]:
    """Return, sorted, the names that no file of a backup has."""
    return sorted(name for name in names if not _is_known(name))


def files_in(folder: Path) -> list[str]:
    """Return the files below `folder`, sorted; raise UserError where an entry is a link, a pipe or the like."""
    return sorted(path.relative_to(folder).as_posix() for path in _walk(folder))


def _walk(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield Path(entry.path)
            else:
                raise UserError(f"{entry.path!r}: a link or pipe, neither a file nor a folder; nothing was restored")


def _is_known(name: str) -> bool:
    if name in (FILE, BUNDLE) or DATABASE.fullmatch(name):
        return True
    parts = PurePosixPath(name).parts
    plain = name == "/".join(parts) and ".." not in parts and not _OF_GIT & {part.lower() for part in parts}
    unsafe = any(ord(letter) < 32 or "\ud800" <= letter <= "\udfff" for letter in name)
    return plain and len(parts) > 1 and parts[0] == ARTEFACTS and not unsafe


def _has_format(folder: Path, name: str) -> bool:
    start = _FORMATS.get(Path(name).suffix, b"") if "/" not in name else b""
    with (folder / name).open("rb") as file:
        return file.read(len(start)) == start
