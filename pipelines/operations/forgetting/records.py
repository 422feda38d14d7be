"""Remove records that no remaining photo uses from the caches of latents, face crops, tokens and texts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock

from pipelines.core.files import atomic_file, write_atomically
from pipelines.core.row_schemas import CONTENT, OK, photo_keys

_KEY = 32
_COPIED = 1 << 26


def claimed_keys(processed: Iterable[Path]) -> np.ndarray:
    """Return (N,) S32, sorted: the keys of all records that trainings on the folders `processed` would read.

    A photo's key is made from its content (`pipelines.core.row_schemas.photo_keys`), a prompt's from its text.
    """
    from model.training.cache import text_keys

    keys: list[bytes] = []
    prompts: set[str] = {""}
    for shard in (shard for folder in processed for shard in sorted(folder.rglob("*.parquet"))):
        with pq.ParquetFile(shard, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=256, columns=[*CONTENT, "status", "prompt"]):
                usable = batch.filter(pc.equal(batch["status"], OK))
                keys += photo_keys(usable)
                prompts.update(text or "" for text in usable["prompt"].to_pylist())
    keys += [row.tobytes() for row in text_keys(sorted(prompts))]
    return np.sort(np.frombuffer(b"".join(keys), f"V{_KEY}").view(f"S{_KEY}"))


def clean_stores(caches: Iterable[Path], processed: Iterable[Path]) -> int:
    """Keep the records below `caches` that trainings on `processed` would read; return how many were removed."""
    claimed = claimed_keys(processed)
    return sum(keep_only(file.parent, claimed) for cache in caches for file in sorted(cache.rglob("store.json")))


def keep_only(folder: Path, claimed: np.ndarray) -> int:
    """Keep the records in `folder` whose keys are in `claimed`; return how many were removed.

    A process killed meanwhile leaves an empty store, never records under wrong keys.
    """
    described = json.loads((folder / "store.json").read_text(encoding="utf-8"))
    size = int(np.prod(described["shape"])) * np.dtype(described["dtype"]).itemsize
    keys_file, records_file = folder / "keys.bin", folder / "records.bin"
    with FileLock(folder / "store.lock"):
        if not keys_file.is_file():
            records_file.unlink(missing_ok=True)
            return 0
        keys = np.fromfile(keys_file, f"V{_KEY}")
        kept = np.flatnonzero(np.isin(keys.view(f"S{_KEY}"), claimed))
        whole = (records_file.stat().st_size, keys_file.stat().st_size) == (len(keys) * size, len(keys) * _KEY)
        if len(kept) == len(keys) and whole:
            return 0
        with atomic_file(records_file) as part:
            _copy_records(records_file, part, kept, size)
            keys_file.write_bytes(b"")
        write_atomically(keys_file, keys[kept].tobytes())
        return len(keys) - len(kept)


def _copy_records(source: Path, destination: Path, rows: np.ndarray, size: int) -> None:
    with destination.open("wb") as target:
        if not len(rows):
            return
        records = np.memmap(source, f"V{size}", "r", shape=(int(rows[-1]) + 1,))
        step = max(1, _COPIED // size)
        for start in range(0, len(rows), step):
            records[rows[start : start + step]].tofile(target)
