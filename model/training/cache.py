"""Store fixed-size records on disk under 32-byte keys, so that each is computed once per photo or prompt.

A store only grows: for a hundred new photos among ten million, a hundred records are computed. Only the keys are in
memory. A process killed while appending leaves at most records without a key, which the next append overwrites. Several
processes may append to a store while others read it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from model.formats import KEY, RECORDS, NewerFormatError
from model.training import eight_bits

_KEY = 32
# Records are appended when they are so large together, or the last append is so long ago.
APPEND_BYTES, APPEND_SECONDS = 1 << 28, 30.0
EIGHT_BITS = "int8"


def text_keys(texts: Sequence[str]) -> np.ndarray:
    """Return (N, 32) uint8, the sha256 of each text."""
    joined = b"".join(hashlib.sha256(text.encode()).digest() for text in texts)
    return np.frombuffer(joined, np.uint8).reshape(-1, _KEY)


class RecordStore:
    """Records of `shape` and `dtype` under `folder` (see `store_folder`); int8 stands for float32 in eight bits.

    Records of another shape or type, and what was half written, are named and computed again. Raise NewerFormatError if
    a newer program wrote the folder.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: str = "float16") -> None:
        self.folder = folder
        self.shape = tuple(shape)
        self._count = int(np.prod(self.shape))
        self._quantised = dtype == EIGHT_BITS
        # As `append` takes them and reading returns them, and as they are in the file.
        self.dtype = np.dtype("float32" if self._quantised else dtype)
        self._file_shape = (eight_bits.packed_bytes(self._count),) if self._quantised else self.shape
        self._file_dtype = np.dtype(np.uint8) if self._quantised else self.dtype
        self.record_bytes = int(np.prod(self._file_shape)) * self._file_dtype.itemsize
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
        wanted = {"shape": list(self._file_shape), "dtype": self._file_dtype.name}
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
        self._map(len(keys))

    def _map(self, count: int) -> None:
        shape = (count, *self._file_shape)
        self._records = np.memmap(self._records_file, self._file_dtype, "r", shape=shape) if count else None

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

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the record number of each of `keys` (N, 32), -1 where there is no record."""
        flat = _flat(keys)
        found = self._has_record(flat)
        rows = np.full(len(flat), -1)
        rows[found] = self._order[np.searchsorted(self._sorted, flat[found])]
        return rows

    def rows(self, keys: np.ndarray) -> np.ndarray:
        """Return the record number of each of `keys` (N, 32); raise KeyError if any has no record."""
        rows = self.find(keys)
        if (rows < 0).any():
            raise KeyError(f"{self.folder}: {int((rows < 0).sum())} of {len(rows)} records are missing")
        return rows

    def grown(self) -> bool:
        """Whether others have appended records since `reload`."""
        return self._whole() != len(self._sorted)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return a copy of the records with the numbers `rows`, (…, *shape)."""
        if self._records is None:
            raise KeyError(f"{self.folder}: no records yet")
        return self.unpacked(np.asarray(self._records[rows]))

    def packed(self, values: np.ndarray) -> np.ndarray:
        """Return records (N, *shape) as they are in the file, with its rounding."""
        values = np.asarray(values)
        if values.shape[1:] != self.shape:
            raise ValueError(f"{self.folder}: records of shape {values.shape}, expected (N, *{self.shape})")
        if self._quantised:
            return eight_bits.pack(values.reshape(len(values), self._count))
        return np.ascontiguousarray(values, self.dtype)

    def unpacked(self, packed: np.ndarray) -> np.ndarray:
        """Return records (…, *shape) as they are read, from those as in the file."""
        if not self._quantised:
            return packed
        flat = eight_bits.unpack(packed.reshape(-1, self.record_bytes), self._count)
        return flat.reshape(*packed.shape[:-1], *self.shape)

    def append(self, keys: np.ndarray, values: np.ndarray) -> None:
        """Add records (N, *shape) under `keys` (N, 32); they are visible after `reload`."""
        if len(values) != len(keys):
            raise ValueError(f"{self.folder}: {len(values)} records for {len(keys)} keys")
        with self._lock:
            self._append(keys, self.packed(values))

    def append_absent(self, keys: np.ndarray, packed: np.ndarray) -> None:
        """Add those of the records `packed` (N, …), as in the file, whose keys (N, 32) have none yet, and `reload`."""
        with self._lock:
            if self.grown():
                self.reload()
            new = self.missing(keys)
            self._append(keys[new], packed[new])
            self.reload()

    def _append(self, keys: np.ndarray, packed: np.ndarray) -> None:
        count = self._whole()
        try:
            # Records reach the disk before their keys, so every key has a whole record.
            _write_at(self._records_file, count * self.record_bytes, packed.tobytes())
            _write_at(self._keys_file, count * _KEY, np.ascontiguousarray(keys, np.uint8).tobytes())
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            size = f"{packed.nbytes / 1e9:.2f} GB of records"
            raise OSError(error.errno, f"{os.strerror(error.errno)}: {size}", str(self._records_file)) from error

    def require_space(self, records: int) -> None:
        """Raise ValueError if `records` more records would not fit on the disk."""
        require_space(self.folder, {f"{records} records": records * self.record_bytes}, "")


def require_space(folder: Path, planned: Mapping[str, int], advice: str) -> None:
    """Raise ValueError, which names what needs how many bytes, if all that is `planned` does not fit on the disk."""
    needed, free = sum(planned.values()), shutil.disk_usage(folder).free
    if needed > free:
        parts = ", ".join(f"{name} {size / 1e9:.1f} GB" for name, size in planned.items() if size)
        raise ValueError(
            f"{folder}: {needed / 1e9:.1f} GB are needed ({parts}), {free / 1e9:.1f} GB are free; make room or train "
            f"on fewer photos{advice}"
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
                large = (reached - kept) * store.record_bytes >= APPEND_BYTES
                if large or time.monotonic() - appended >= APPEND_SECONDS or reached == len(own):
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
