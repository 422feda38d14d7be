"""Mend what a killed DVC left half written: it writes `.dvc` files, `dvc.lock` and its list of locks in place.

A damaged one would stop every later DVC command in the checkout. DVC's own lock shows whether a writer is at work. In a
remote that is a folder, DVC makes each new object as an empty file under its final name before it tries to clone it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from pipelines.core.chain import FACES
from pipelines.core.errors import UserError
from pipelines.core.files import write_atomically
from pipelines.core.locks import hold

# The lists that DVC keeps of paths being read and written, and a copy of `dvc.lock` as it last was.
_LISTS = "rwlock"
_COPY = "dvc.lock.whole"
# A process that clones an object has it empty for microseconds.
_SECONDS_EMPTY = 1.0


class _AtWork(Exception):
    """DVC is running in the checkout."""


def mend_interrupted(root: Path, folder: str = FACES) -> None:
    """Replace or remove damaged files of DVC in the checkout `root`, and print which; keep a copy of `dvc.lock`.

    `dvc.lock` becomes as it was before the last command, so that the stage which was interrupted runs again. The `.dvc`
    file of `folder` is removed if the folder is there: `dvc add` writes it again. Changes nothing while DVC is at work.
    """
    state = root / ".dvc" / "tmp"
    lock, copy = root / "dvc.lock", state / _COPY
    if state.is_dir() and _content(copy) != _content(lock) and _is_lock(lock):
        write_atomically(copy, lock.read_bytes())
    if not _damaged(root, folder):
        return
    with suppress(_AtWork), hold(state / "lock", _AtWork()), hold(state / f"{_LISTS}.lock", _AtWork()):
        for file in _damaged(root, folder):  # again, as it may have been written meanwhile
            if file == lock and copy.is_file():
                write_atomically(file, copy.read_bytes())
                print(f"{file}: a killed DVC left it half written; it is as before that command", file=sys.stderr)
            else:
                file.unlink()
                print(f"{file}: a killed DVC left it half written; removed", file=sys.stderr)


def mend_stores(stores: Iterable[Path]) -> None:
    """Remove the empty lists of folders that a killed DVC left in caches and remotes that are folders; print which.

    DVC would neither send the folder's data again nor fetch it.
    """
    empty = [file for store in stores for file in store.glob("files/md5/??/*.dir") if not file.stat().st_size]
    if empty:
        time.sleep(_SECONDS_EMPTY)
    for file in empty:
        if file.is_file() and not file.stat().st_size:
            file.unlink(missing_ok=True)
            print(f"{file}: a killed DVC left it empty; removed", file=sys.stderr)


def unfinished_objects(stores: Iterable[Path]) -> Iterator[Path]:
    """Yield the files under temporary names that a DVC which is at work, or was killed, has in such folders."""
    for store in stores:
        yield from sorted(store.glob("files/md5/??/.*.tmp"))


def _damaged(root: Path, folder: str) -> list[Path]:
    state, lock, pointer = root / ".dvc" / "tmp", root / "dvc.lock", root / f"{folder}.dvc"
    checks = {state / _LISTS: _is_json, pointer: lambda file: not (root / folder).exists() or _is_pointer(file)}
    if _content(lock) != _content(state / _COPY):
        checks[lock] = _is_lock
    for file in (pointer, lock):
        if b"\n<<<<<<< " in b"\n" + (_content(file) or b""):
            raise UserError(
                f"{file}: marks of a merge conflict in it; `git checkout --ours -- FILE` or `--theirs` takes one side, "
                "then run again"
            )
    return [file for file, is_whole in checks.items() if file.is_file() and not is_whole(file)]


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


def _is_pointer(file: Path) -> bool:
    return file.read_bytes().endswith(b"\n") and bool(_tree(file).get("outs"))


def _is_lock(file: Path) -> bool:
    stages = _tree(file).get("stages")
    return isinstance(stages, dict) and all(isinstance(entry, dict) and "cmd" in entry for entry in stages.values())


def _tree(file: Path) -> dict[str, Any]:
    """Return the content of a YAML file; empty where the file is missing, cut or no mapping."""
    try:
        text = file.read_text(encoding="utf-8")
        tree = yaml.safe_load(text) if text.endswith("\n") else None
    except (FileNotFoundError, yaml.YAMLError, UnicodeDecodeError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None
