"""Mend what a killed DVC left half written: it writes `.dvc` files, `dvc.lock` and its list of locks in place.

A damaged one would stop every later DVC command in the checkout. DVC's own lock shows whether a writer is at work, and
only a file that is cut off is taken for a killed DVC's: what a person has broken is named and stays. In a remote that
is a folder, DVC makes each new object as an empty file under its final name before it tries to clone it.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
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
# How DVC's files begin, and the lines of a `.dvc` file in DVC's order: how each begins, and what may follow.
_POINTER, _LOCK = "outs:\n- md5: ", "schema: '2.0'\nstages:\n"
_LINES = (
    ("outs:", ""),
    ("- md5: ", r"[0-9a-f]*(\.d?i?r?)?"),
    ("  size: ", r"\d*"),
    ("  nfiles: ", r"\d*"),
    ("  hash: ", "[md5]*"),
    ("  path: ", ".*"),
)


class _AtWork(Exception):
    """DVC is running in the checkout."""


def mend_interrupted(root: Path, folder: str = FACES) -> None:
    """Replace or remove files of DVC in the checkout `root` that are cut off, and print which; copy a whole `dvc.lock`.

    `dvc.lock` becomes as it was before the last command, so that the stage which was interrupted runs again. The `.dvc`
    file of `folder` is removed if the folder is there: `dvc add` writes it again. The part that there was goes to
    `.dvc/tmp`. Changes nothing while DVC is at work. Raises UserError for files that are damaged otherwise.
    """
    state = root / ".dvc" / "tmp"
    lock, copy = root / "dvc.lock", state / _COPY
    content = _content(lock)
    if state.is_dir() and content is not None and content != _content(copy) and _is_lock(_text(content)):
        write_atomically(copy, content)
    if not _damaged(root, folder):
        return
    with suppress(_AtWork), hold(state / "lock", _AtWork()), hold(state / f"{_LISTS}.lock", _AtWork()):
        for file, content, is_cut in _damaged(root, folder):  # again, as it may have been written meanwhile
            if not is_cut:
                raise UserError(_problem(file, content, root))
            write_atomically(state / f"{file.name}.cut", content)
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
        yield from sorted(store.glob("files/md5/??/*.tmp"))


def _damaged(root: Path, folder: str) -> list[tuple[Path, bytes, bool]]:
    """Return the files that are not whole, with their content, and whether they are only cut off."""
    state, lock, pointer = root / ".dvc" / "tmp", root / "dvc.lock", root / f"{folder}.dvc"
    found = []
    for file, is_whole, is_cut in (
        (state / _LISTS, _is_json, lambda _: True),  # DVC alone writes it
        (pointer, partial(_is_pointer, pointer.stem), lambda text: (root / folder).exists() and _is_cut_pointer(text)),
        (lock, _is_lock, _is_cut_lock),
    ):
        content = _content(file)
        if content is None or (file == lock and content == _content(state / _COPY)):
            continue
        if not is_whole(text := _text(content)):
            found.append((file, content, is_cut(text)))
    return found


def _problem(file: Path, content: bytes, root: Path) -> str:
    if b"\n<<<<<<< " in b"\n" + content:
        return (
            f"{file}: marks of a merge conflict in it; `git checkout --ours -- FILE` or `--theirs` takes one side, "
            "then run again"
        )
    return (
        f"{file}: damaged, and not by a killed DVC, so it is left as it is: repair it, or take the committed one with "
        f"`git checkout -- {file.relative_to(root)}`"
    )


def _is_json(text: str) -> bool:
    with suppress(ValueError):
        json.loads(text)
        return True
    return False


def _is_pointer(name: str, text: str) -> bool:
    outs = (_tree(text) or {}).get("outs")
    paths = [out.get("path") if isinstance(out, dict) else None for out in outs] if isinstance(outs, list) else []
    # Without a line break at its end, the path may be cut off.
    return bool(paths) and all(paths) and (text.endswith("\n") or paths == [name])


def _is_cut_pointer(text: str) -> bool:
    """Whether `text` is the beginning of a `.dvc` file, as DVC writes it for a folder."""
    *lines, last = text.split("\n")
    expected = iter(_LINES)
    return (
        _begins(text, _POINTER)
        and all(any(re.fullmatch(name + value, line) for name, value in expected) for line in lines)
        and (not last or any(name.startswith(last) or re.fullmatch(name + value, last) for name, value in expected))
    )


def _is_lock(text: str) -> bool:
    return text.endswith("\n") and _are_stages((_tree(text) or {}).get("stages"))


def _is_cut_lock(text: str) -> bool:
    """Whether `text` is the beginning of a lock file: every stage is whole but the last one."""
    tree = _tree(text.rpartition("\n")[0])
    stages = {} if tree is None else tree.get("stages") or {}
    return _begins(text, _LOCK) and tree is not None and _are_stages(dict(list(stages.items())[:-1]))


def _begins(text: str, start: str) -> bool:
    return text.startswith(start) or start.startswith(text)


def _are_stages(stages: Any) -> bool:
    return isinstance(stages, dict) and all(isinstance(entry, dict) and "cmd" in entry for entry in stages.values())


def _tree(text: str) -> dict[str, Any] | None:
    """Return the mapping in a YAML text; empty without content, None where it is damaged or no mapping."""
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    return tree if isinstance(tree, dict) else {} if tree is None else None


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None
