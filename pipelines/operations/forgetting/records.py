"""The stores of latents, face crops, tokens and texts without the records that no remaining photo claims."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from pipelines.core.records import OK

_KEY = 32
_COPIED = 1 << 26


def claimed_keys(processed: Path) -> np.ndarray:
    """Return (N,) S32, sorted: the keys of everything that a training on `processed` would look up.

    Photos by their content, as `pipelines.data.training_data` names them, and prompts by their text.
    """
    from model.training.cache import text_keys
    from pipelines.data.training_data import key_columns, photo_keys

    keys: list[bytes] = []
    prompts: set[str] = {""}
    for shard in sorted(processed.rglob("*.parquet")):
        with pq.ParquetFile(shard, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=256, columns=[*key_columns(), "status", "prompt"]):
                rows = np.flatnonzero(np.array([status == OK for status in batch["status"].to_pylist()]))
                if len(rows):
                    usable = batch.take(pa.array(rows))
                    keys += photo_keys(usable)
                    prompts.update(text or "" for text in usable["prompt"].to_pylist())
    keys += [row.tobytes() for row in text_keys(sorted(prompts))]
    return np.sort(np.frombuffer(b"".join(keys), f"V{_KEY}").view(f"S{_KEY}"))


def stores_below(cache: Path) -> Iterable[Path]:
    """Return the folders of record stores below `cache`."""
    return sorted(file.parent for file in cache.rglob("store.json"))


def keep_only(folder: Path, claimed: np.ndarray) -> int:
    """Rewrite the record store in `folder` to the records whose keys are `claimed`; return how many went.

    A process killed meanwhile leaves an empty store, never records under wrong keys.
    """
    described = json.loads((folder / "store.json").read_text(encoding="utf-8"))
    size = int(np.prod(described["shape"])) * np.dtype(described["dtype"]).itemsize
    keys_file, records_file = folder / "keys.bin", folder / "records.bin"
    with FileLock(folder / "store.lock"):
        if not keys_file.is_file():
            records_file.unlink(missing_ok=True)
            return 0
        raw = np.fromfile(keys_file, np.uint8)
        keys = raw[: len(raw) // _KEY * _KEY].view(f"S{_KEY}")
        kept = np.flatnonzero(np.isin(keys, claimed))
        whole = records_file.stat().st_size == len(keys) * size and len(raw) == len(keys) * _KEY
        if len(kept) == len(keys) and whole:
            return 0
        part = records_file.with_suffix(".part")
        _copy_records(records_file, part, kept, size)
        keys_file.write_bytes(b"")
        part.replace(records_file)
        fresh = keys_file.with_suffix(".part")
        fresh.write_bytes(b"".join(raw[row * _KEY : (row + 1) * _KEY].tobytes() for row in kept))
        fresh.replace(keys_file)
        return len(keys) - len(kept)


def _copy_records(source: Path, destination: Path, rows: np.ndarray, size: int) -> None:
    with destination.open("wb") as target:
        if not len(rows):
            return
        records = np.memmap(source, np.uint8, "r")
        step = max(1, _COPIED // size)
        for start in range(0, len(rows), step):
            for row in rows[start : start + step]:
                target.write(records[row * size : (row + 1) * size].tobytes())
