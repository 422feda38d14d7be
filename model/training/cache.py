"""Store fixed-size records on disk under 32-byte keys, so that each is computed once per photo or prompt.

A store only grows: for a hundred new photos among ten million, a hundred records are computed. Only the keys are in
memory. A process killed while appending leaves at most records without a key, which the next append overwrites.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from model.formats import KEY, RECORDS, NewerFormatError

_KEY = 32
# Records are appended when they are so large together, or the last append is so long ago.
_APPEND_BYTES, _APPEND_SECONDS = 1 << 26, 30.0


def text_keys(texts: Sequence[str]) -> np.ndarray:
    """Return (N, 32) uint8, the sha256 of each text."""
    joined = b"".join(hashlib.sha256(text.encode()).digest() for text in texts)
    return np.frombuffer(joined, np.uint8).reshape(-1, _KEY)


class RecordStore:
    """Records of `shape` and `dtype` under `folder` (see `store_folder`).

    Records of another shape or type, and what was half written, are named and computed again. Raise NewerFormatError if
    a newer program wrote the folder.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: str = "float16") -> None:
        self.folder = folder
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self.record_bytes = int(np.prod(self.shape)) * self.dtype.itemsize
        folder.mkdir(parents=True, exist_ok=True)
        self._keys_file = folder / "keys.bin"
        self._records_file = folder / "records.bin"
        self._lock = FileLock(folder / "store.lock")
        self._records: np.ndarray | None = None
        self._sorted = np.empty(0, f"S{_KEY}")
        self._order = np.empty(0, np.int64)
        with self._lock:
            self._describe()
        self.reload()

    def _describe(self) -> None:
        file = self.folder / "store.json"
        wanted = {"shape": list(self.shape), "dtype": self.dtype.name}
        if file.exists():
            try:
                found = json.loads(file.read_bytes())
                # Format 1 has the same files, and does not state its format.
                RECORDS.check(file, found.pop(KEY, None))
            except NewerFormatError:
                raise
            except (ValueError, AttributeError, TypeError, RecursionError):
                found = "a damaged store.json"
            if found == wanted:
                sizes = self._sizes()
                if (sizes[0] / _KEY, sizes[1] / self.record_bytes) != (self._whole(), self._whole()):
                    self._again("half-written records at the end")
                return
            self._again(f"holds {found}, expected {wanted}")
            for damaged in (self._keys_file, self._records_file):
                damaged.unlink(missing_ok=True)
        temporary = file.with_suffix(".tmp")
        temporary.write_text(json.dumps({KEY: RECORDS.version, **wanted}) + "\n", encoding="utf-8")
        temporary.replace(file)

    def _again(self, problem: str) -> None:
        print(f"{self.folder}: {problem}; these are computed again", file=sys.stderr)

    def reload(self) -> None:
        """Read the keys again, including those that this or another process has appended."""
        keys = np.fromfile(self._keys_file, np.uint8) if self._keys_file.exists() else np.empty(0, np.uint8)
        keys = keys[: self._whole() * _KEY].view(f"S{_KEY}")
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]
        self._records = (
            np.memmap(self._records_file, self.dtype, "r", shape=(len(keys), *self.shape)) if len(keys) else None
        )

    def _whole(self) -> int:
        """Return the number of records that have both key and content: a full disk may have cut either file."""
        keys, records = self._sizes()
        return min(keys // _KEY, records // self.record_bytes)

    def _sizes(self) -> tuple[int, int]:
        keys, records = (file.stat().st_size if file.exists() else 0 for file in (self._keys_file, self._records_file))
        return keys, records

    def __len__(self) -> int:
        return len(self._sorted)

    def missing(self, keys: np.ndarray) -> np.ndarray:
        """Return the ascending positions of `keys` (N, 32) without a record, of equal keys only the first."""
        flat = _flat(keys)
        first = np.sort(np.unique(flat, return_index=True)[1])
        return first[~self._has_record(flat[first])]

    def _has_record(self, flat: np.ndarray) -> np.ndarray:
        if not len(self._sorted):
            return np.zeros(len(flat), bool)
        place = np.minimum(np.searchsorted(self._sorted, flat), len(self._sorted) - 1)
        return self._sorted[place] == flat

    def rows(self, keys: np.ndarray) -> np.ndarray:
        """Return the record number of each of `keys` (N, 32); raise KeyError if any has no record."""
        flat = _flat(keys)
        found = self._has_record(flat)
        if not found.all():
            raise KeyError(f"{self.folder}: {int((~found).sum())} of {len(flat)} records are missing")
        return self._order[np.searchsorted(self._sorted, flat)] if len(flat) else np.empty(0, np.int64)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return a copy of the records with the numbers `rows`, (…, *shape)."""
        if self._records is None:
            raise KeyError(f"{self.folder}: no records yet")
        return np.asarray(self._records[rows])

    def append(self, keys: np.ndarray, values: np.ndarray) -> None:
        """Add records (N, *shape) under `keys` (N, 32); they are visible after `reload`."""
        values = np.ascontiguousarray(values, self.dtype)
        if values.shape != (len(keys), *self.shape):
            raise ValueError(f"{self.folder}: records of shape {values.shape}, expected ({len(keys)}, *{self.shape})")
        with self._lock:
            count = self._whole()
            # Records reach the disk before their keys, so every key has a whole record.
            _write_at(self._records_file, count * self.record_bytes, values.tobytes())
            _write_at(self._keys_file, count * _KEY, np.ascontiguousarray(keys, np.uint8).tobytes())

    def require_space(self, records: int) -> None:
        """Raise ValueError if `records` more records would not fit on the disk."""
        needed, free = records * self.record_bytes, shutil.disk_usage(self.folder).free
        if needed > free:
            raise ValueError(
                f"{self.folder}: {records} records need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; make room "
                "or train on fewer photos"
            )


def fill(
    store: RecordStore,
    keys: np.ndarray,
    content: Callable[[np.ndarray], Iterator[Any]],
    encode: Callable[[list[Any]], np.ndarray],
    *,
    batch: int,
    label: str,
    accelerator: Any = None,
) -> np.ndarray:
    """Compute the missing records of `keys` (N, 32) and return the record number of every key.

    `content(positions)` yields the items to encode. `encode` always takes a list of `batch` items (padded with the last
    one), so that a record does not depend on how many records were missing. Several processes share the work.
    """
    from tqdm import tqdm

    rank, world = (0, 1) if accelerator is None else (accelerator.process_index, accelerator.num_processes)
    todo = store.missing(keys)
    # In every process: one alone would end, and the others would wait for it.
    store.require_space(len(todo))
    if accelerator is not None:
        accelerator.wait_for_everyone()
    own = todo[rank::world]
    if len(own):
        items = content(own)
        with tqdm(total=len(own), desc=label, unit="record", disable=rank > 0) as bar:
            done: list[np.ndarray] = []
            kept, appended = 0, time.monotonic()
            for start in range(0, len(own), batch):
                chunk = list(islice(items, batch))
                padded = chunk + [chunk[-1]] * (batch - len(chunk))
                done.append(np.asarray(encode(padded)[: len(chunk)], store.dtype))
                bar.update(len(chunk))
                reached = start + len(chunk)
                # Every append waits for the disk: large appends are fast, but a kill must not lose much work.
                large = (reached - kept) * store.record_bytes >= _APPEND_BYTES
                if large or time.monotonic() - appended >= _APPEND_SECONDS or reached == len(own):
                    store.append(keys[own[kept:reached]], np.concatenate(done))
                    done, kept, appended = [], reached, time.monotonic()
    if accelerator is not None:
        accelerator.wait_for_everyone()
    store.reload()
    return store.rows(keys)


def store_folder(root: Path, kind: str, *parts: object) -> Path:
    """Return the folder of a store, named by `kind` and a hash of `parts`: everything its records depend on."""
    digest = hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()
    return root / kind / digest[:16]


def _flat(keys: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(keys, np.uint8).reshape(-1, _KEY).view(f"S{_KEY}").reshape(-1)


def _write_at(file: Path, position: int, data: bytes) -> None:
    with file.open("r+b" if file.exists() else "xb") as handle:
        handle.truncate(position)
        handle.seek(position)
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
