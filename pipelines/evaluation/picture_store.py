"""What an evaluation has drawn and what the judges read of it, on disk: one file a batch, found by what is in it.

A picture's key is a hash of all that it depends on (`CellRenderer.key_of`). Pictures are stored losslessly. A file is
written by one rename and its checksums are compared before it is used: one that is damaged is named, deleted and drawn
again. What the judges read is in a file of its own beside it, with their key in its name.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import zipfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any, overload

import cv2
import numpy as np

from pipelines.core.errors import StageFailed
from pipelines.core.files import atomic_file, mark_used, write_atomically
from pipelines.core.locks import hold, share
from pipelines.evaluation.scoring import JudgedPictures
from pipelines.versions.state import LOCK

_PICTURES, _JUDGED = ".pictures.npz", ".judged.npz"
_LAST = "last.json"
# Wider rows (embeddings, features) are not kept in memory.
_NARROW = 8
_FAULTS = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile)


@dataclass(frozen=True)
class DrawnPicture:
    """`image` (H, W, 3) uint8 RGB; `gate` (h, w) float32, the mean over steps and layers, or None."""

    image: np.ndarray
    gate: np.ndarray | None


class PictureStore:
    """The batches below `folder`; without one, in a temporary folder that is removed with the store."""

    def __init__(self, folder: Path | None = None) -> None:
        self._temporary = TemporaryDirectory() if folder is None else None
        self.folder = Path(self._temporary.name) if self._temporary is not None else Path(folder or "")
        self._keys: dict[Path, list[str]] = {}
        self._places: dict[str, tuple[Path, int]] = {}

    def file_of(self, keys: Sequence[str]) -> Path:
        """Return the file of the batch with exactly these pictures."""
        return self.folder / f"{hashlib.sha256(' '.join(keys).encode()).hexdigest()[:32]}{_PICTURES}"

    def find(self, keys: Collection[str]) -> None:
        """Look for batches with any of the pictures `keys`; name and delete damaged ones."""
        wanted = {key for key in keys if key not in self._places}
        for file in sorted(self.folder.glob(f"[!.]*{_PICTURES}")) if wanted else ():
            try:
                with np.load(file) as stored:
                    found = stored["keys"].tolist()
                if wanted.isdisjoint(found):
                    continue
                _check(file)
            except _FAULTS as error:
                print(f"evaluate: {file}: damaged ({error}); its pictures are drawn again", file=sys.stderr)
                file.unlink(missing_ok=True)
            else:
                self.add(found)

    def add(self, keys: Sequence[str]) -> None:
        """Take note of the batch with the pictures `keys`, which this or another process has written."""
        file = self.file_of(keys)
        mark_used(file)
        self._keys[file] = list(keys)
        self._places |= {key: (file, row) for row, key in enumerate(keys) if key not in self._places}

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def batches(self, keys: Collection[str]) -> list[list[str]]:
        """Return the keys of every batch that has some of the pictures `keys`, which are in the store."""
        return [self._keys[file] for file in dict.fromkeys(self._places[key][0] for key in keys if key in self)]

    def write(self, keys: Sequence[str], pictures: Sequence[DrawnPicture], people: int) -> None:
        """Write a batch of pictures of so many `people`."""
        arrays: dict[str, Any] = {"keys": np.array(keys), "people": np.array(people)}
        for row, one in enumerate(pictures):
            arrays[f"image_{row}"] = cv2.imencode(".png", one.image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
            arrays |= {} if one.gate is None else {f"gate_{row}": one.gate}
        _save(self.file_of(keys), arrays)

    def read(self, keys: Sequence[str]) -> tuple[list[DrawnPicture], int]:
        """Return the pictures of the batch with exactly these keys, and the number of people in each."""
        with np.load(self.file_of(keys)) as stored:
            return [_picture(stored, row) for row in range(len(keys))], int(stored["people"])

    def picture(self, key: str) -> DrawnPicture:
        """Return one picture of the store."""
        file, row = self._places[key]
        with np.load(file) as stored:
            return _picture(stored, row)

    def write_judged(self, keys: Sequence[str], judges: str, judged: JudgedPictures) -> None:
        """Write what the judges with the key `judges` read of the batch with exactly these pictures."""
        _save(self._judged_file(keys, judges), judged.arrays())

    def is_judged(self, keys: Sequence[str], judges: str) -> bool:
        """Whether what these judges read of a batch is here; name and delete it where it is damaged."""
        file = self._judged_file(keys, judges)
        try:
            _check(file)
        except FileNotFoundError:
            return False
        except _FAULTS as error:
            print(f"evaluate: {file}: damaged ({error}); its pictures are judged again", file=sys.stderr)
            file.unlink(missing_ok=True)
            return False
        return True

    def judged(self, keys: Sequence[str], judges: str) -> JudgedPictures:
        """Return what these judges read of the pictures `keys`, in their order; embeddings and features stay on disk.

        One batch at a time is in memory.
        """
        rows: dict[str, list[int]] = {}
        for row, key in enumerate(keys):
            rows.setdefault(key, []).append(row)
        columns: dict[str, _Column] = {}
        faces: dict[str, np.ndarray] = {}
        with ExitStack() as files:
            for batch in self.batches(keys):
                with np.load(self._judged_file(batch, judges)) as stored:
                    read = {name: stored[name] for name in stored.files}
                mark_used(self._judged_file(batch, judges))
                pairs = [(old, row) for old, key in enumerate(batch) for row in rows.pop(key, ())]
                for name, values in read.items():
                    place, _, field = name.partition(".")
                    if place.startswith("face_"):
                        faces |= {f"face_{row}.{field}": values for old, row in pairs if place == f"face_{old}"}
                        continue
                    if name not in columns:
                        wide = values.ndim > 1 and values.shape[1] > _NARROW
                        file = files.enter_context(TemporaryFile(dir=self.folder)) if wide else None
                        columns[name] = _Column(values, len(keys), file)
                    columns[name].put(pairs, values)
            return JudgedPictures.of({name: column.array() for name, column in columns.items()} | faces)

    def _judged_file(self, keys: Sequence[str], judges: str) -> Path:
        return self.folder / f"{self.file_of(keys).name.removesuffix(_PICTURES)}.{judges[:32]}{_JUDGED}"

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Use the folder during the block, with other evaluations; afterwards remove what nobody uses any more.

        What the last evaluation drew stays, so that `register`, or this evaluation with other judges, can take
        pictures from it. What it did not use of the one that was finished before is removed; batches of unfinished
        evaluations stay for them. Raises StageFailed while `forget` or `clean` removes files there.
        """
        lock = self.folder / LOCK
        busy = StageFailed(f"{self.folder}: `forget` or `clean` is at work there; wait for it to end, evaluate again")
        with share(lock, busy, alone=self._remove_parts):
            yield
        with suppress(StageFailed), hold(lock, busy):  # another evaluation may be using the pictures
            last, used = self.folder / _LAST, sorted(file.name for file in self._keys)
            before = json.loads(last.read_text(encoding="utf-8")) if last.is_file() else []
            write_atomically(last, json.dumps(used))
            for name in set(before) - set(used):
                self._remove(f"{name.removesuffix(_PICTURES)}.*")

    def _remove_parts(self) -> None:
        self._remove(".*.part")  # of killed processes

    def _remove(self, pattern: str) -> None:
        for found in self.folder.glob(pattern):
            if found.is_dir():  # pages of people
                shutil.rmtree(found, ignore_errors=True)
            else:
                found.unlink(missing_ok=True)


class StoredPictures(Sequence[DrawnPicture]):
    """Pictures of a store, each read whenever it is asked for."""

    def __init__(self, store: PictureStore, keys: Sequence[str]) -> None:
        self._store, self._keys = store, keys

    @overload
    def __getitem__(self, index: int) -> DrawnPicture: ...
    @overload
    def __getitem__(self, index: slice) -> StoredPictures: ...
    def __getitem__(self, index: int | slice) -> DrawnPicture | StoredPictures:
        if isinstance(index, slice):
            return StoredPictures(self._store, self._keys[index])
        return self._store.picture(self._keys[index])

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def keys(self) -> list[str]:
        """The key of each picture."""
        return list(self._keys)

    def with_more(self, others: StoredPictures) -> StoredPictures:
        """Return these pictures and after them those of `others`, of the same store."""
        return StoredPictures(self._store, [*self._keys, *others._keys])


class _Column:
    """So many rows like those of `values`, put in any order, in `file` where there is one."""

    def __init__(self, values: np.ndarray, count: int, file: Any | None) -> None:
        self._shape, self._kind, self._file = (count, *values.shape[1:]), values.dtype, file
        self._values = np.empty(self._shape if file is None else 0, self._kind)

    def put(self, pairs: Sequence[tuple[int, int]], values: np.ndarray) -> None:
        """Put row `old` of `values` at `row`, for each pair (old, row)."""
        for old, row in pairs:
            if self._file is None:
                self._values[row] = values[old]
            else:
                self._file.seek(row * values[old].nbytes)
                self._file.write(values[old].tobytes())

    def array(self) -> np.ndarray:
        """Return all rows; those of a file are read when they are used, also after it is closed."""
        if self._file is None:
            return self._values
        self._file.flush()
        return np.asarray(np.memmap(self._file, self._kind, "r", shape=self._shape))


def _picture(stored: Any, row: int) -> DrawnPicture:
    image = np.asarray(cv2.imdecode(stored[f"image_{row}"], cv2.IMREAD_COLOR))
    return DrawnPicture(np.ascontiguousarray(image[..., ::-1]), stored.get(f"gate_{row}"))


def _save(file: Path, arrays: dict[str, Any]) -> None:
    with atomic_file(file, shared=True) as part, part.open("wb") as stream:
        np.savez(stream, **arrays)


def _check(file: Path) -> None:
    """Raise an error where a file does not have the bytes that were written."""
    with zipfile.ZipFile(file) as packed:
        if (member := packed.testzip()) is not None:
            raise ValueError(f"checksum of {member}")
