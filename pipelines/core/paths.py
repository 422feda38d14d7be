"""The project's root folder, how relative paths of `params.yaml` are resolved, and files that git-lfs did not fetch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipelines.core.errors import UserError

_POINTER = b"version https://git-lfs.github.com/spec/"
_POINTER_BYTES = 1024


def project_root() -> Path:
    """Return the folder that holds `model/` and `pipelines/`: the checkout whose code is running."""
    return Path(__file__).resolve().parents[2]


def resolve(path: str | Path) -> Path:
    """Return `path` if it exists, else `path` below the project root if that exists.

    If neither exists, `path` is returned, so that an error on opening it names what the user wrote. Raises UserError
    where the file, or one in the folder, is only the pointer of a file that git-lfs keeps.
    """
    given = Path(path).expanduser()
    in_project = project_root() / given
    found = in_project if not given.exists() and in_project.exists() else given
    refuse_pointers(found.rglob("*") if found.is_dir() else [found])
    return found


def refuse_pointers(files: Iterable[Path]) -> None:
    """Raise UserError where one of `files` is only the pointer of a file that git-lfs keeps; skip missing ones."""
    for file in files:
        if not file.is_file() or file.stat().st_size > _POINTER_BYTES:
            continue
        with file.open("rb") as opened:
            refuse_pointer(opened.read(len(_POINTER)), file)


def refuse_pointer(content: bytes, name: object) -> None:
    """Raise UserError where `content`, the bytes of the file `name` or their beginning, is a pointer of git-lfs."""
    if content.startswith(_POINTER):
        raise UserError(
            f"{name}: only the pointer of a git-lfs file, not the file itself; `git lfs pull` in its repository "
            "fetches it (git-lfs must be installed)"
        )
