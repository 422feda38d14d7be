"""Outputs of frozen networks for photos and prompts: read from a store, computed when they are first drawn.

Training begins before a store is complete: what a step draws and the store lacks is computed and kept. A kind without a
store is computed whenever it is drawn. Either way a value is the same: networks always get full batches, the last one
filled up, and a record that has just been computed has the rounding of the store.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.network.text_encoding import TextStates
from model.training.cache import APPEND_BYTES, APPEND_SECONDS, RecordStore
from model.training.runtime import exact

EMBEDDING, POINTS = 512, 68
_PART = 1024


@dataclass(frozen=True)
class Source:
    """How records are computed: `encode` takes a list of `batch` of the items that `content(positions)` yields.

    `networks`: the names of the base models that it uses.
    """

    content: Callable[[np.ndarray], Iterator[Any]]
    encode: Callable[[list[Any]], np.ndarray]
    batch: int
    networks: tuple[str, ...] = ()


class Records:
    """The records of photos or prompts with `keys` (N, 32), in a store or, without one, in memory for one call.

    Threads may read at once.
    """

    def __init__(
        self, name: str, keys: np.ndarray, source: Source, shape: tuple[int, ...], store: RecordStore | None
    ) -> None:
        self.name, self.source, self.store = name, source, store
        self._shape, self._dtype = shape, np.dtype(np.float32) if store is None else store.dtype
        self._keys = keys
        self._rows = np.full(len(keys), -1) if store is None else store.find(keys)
        # Computed, and not in the store yet: by position, as in the file.
        self._made: dict[int, np.ndarray] = {}
        self._appended = self._reloaded = time.monotonic()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def missing(self) -> int:
        """Number of records that are not in the store."""
        return int((self._rows < 0).sum())

    @property
    def networks(self) -> tuple[str, ...]:
        """The base models that are still needed to compute records."""
        return self.source.networks if self.missing else ()

    def __getitem__(self, positions: np.ndarray) -> np.ndarray:
        """Return the records (B, …) at `positions` (B,), as stored; what is missing is computed."""
        positions = np.asarray(positions)
        with self._lock:
            self._provide(positions)
            stored = self._rows[positions] >= 0
            found = np.empty((len(positions), *self._shape), self._dtype)
            if self.store is not None and stored.any():
                found[stored] = self.store[self._rows[positions[stored]]]
            if not stored.all():
                made = np.stack([self._made[int(place)] for place in positions[~stored]])
                found[~stored] = made if self.store is None else self.store.unpacked(made)
            if self.store is None:
                self._made.clear()
            elif (
                len(self._made) * self.store.record_bytes >= APPEND_BYTES
                or time.monotonic() - self._appended >= APPEND_SECONDS
            ):
                self._append()
            return found

    def tensor(self, positions: np.ndarray) -> Tensor:
        """Return the records at `positions` as a float32 tensor on the host."""
        return torch.from_numpy(self[positions].astype(np.float32))

    def complete(self) -> None:
        """Compute all that is missing, in parts that fit into memory, and append it to the store."""
        for start in range(0, len(self), _PART):
            self[np.arange(start, min(start + _PART, len(self)))]
        self.flush()

    def flush(self) -> None:
        """Append to the store what is not in it yet."""
        with self._lock:
            self._append()

    def _provide(self, positions: np.ndarray) -> None:
        """Compute the records at `positions` that are neither in the store nor in memory."""
        wanted = self._absent(positions)
        # Another process may have appended them; reading its keys takes a while, so not at every step.
        if len(wanted) and self.store is not None and time.monotonic() - self._reloaded >= APPEND_SECONDS:
            self._reloaded = time.monotonic()
            if self.store.grown():
                self.store.reload()
                self._rows = self.store.find(self._keys)
                wanted = self._absent(positions)
        items, batch = self.source.content(wanted), self.source.batch
        for start in range(0, len(wanted), batch):
            chunk = list(islice(items, batch))
            with nullcontext() if self.store is None else exact():
                values = self.source.encode(chunk + [chunk[-1]] * (batch - len(chunk)))[: len(chunk)]
            packed = np.asarray(values, np.float32) if self.store is None else self.store.packed(values)
            self._made.update(zip(wanted[start : start + batch].tolist(), packed, strict=True))

    def _absent(self, positions: np.ndarray) -> np.ndarray:
        places = np.unique(positions[self._rows[positions] < 0])
        return places[[int(place) not in self._made for place in places]]

    def _append(self) -> None:
        self._appended = time.monotonic()
        if self.store is None or not self._made:
            return
        places = np.fromiter(self._made, np.int64)
        self.store.append_absent(self._keys[places], np.stack(list(self._made.values())))
        self._made.clear()
        self._rows = self.store.find(self._keys)


@dataclass(frozen=True)
class TextRecords:
    """Texts as a denoiser takes them, one record each: states of `shape` (T, D) and, behind them, the pooled text."""

    records: Records
    shape: tuple[int, int]

    def __call__(self, positions: np.ndarray) -> TextStates:
        """Return the texts at `positions` (B,), in float32 on the host."""
        found = self.records.tensor(positions).flatten(1)
        states, pooled = found.split([math.prod(self.shape), found.shape[1] - math.prod(self.shape)], dim=1)
        return TextStates(states.unflatten(1, self.shape), pooled)


@dataclass(frozen=True)
class FaceRecords:
    """Embedding and face geometry of photos, one record each."""

    records: Records

    def embeddings(self, positions: np.ndarray) -> Tensor:
        """Return (B, 512) float32, unit norm."""
        return self.records.tensor(positions)[:, :EMBEDDING]

    def landmarks(self, positions: np.ndarray) -> np.ndarray:
        """Return (B, 68, 2) float32 in the unit crop frame."""
        return self.records[positions][:, EMBEDDING : EMBEDDING + 2 * POINTS].reshape(-1, POINTS, 2)

    def boxes(self, positions: np.ndarray) -> Tensor:
        """Return face boxes (B, 4): x0 y0 x1 y1 in 0 … 1 of the photo."""
        return self.records.tensor(positions)[:, EMBEDDING + 2 * POINTS :][:, :4]

    def alignments(self, positions: np.ndarray) -> Tensor:
        """Return the matrices (B, 2, 3) that map the aligned faces to the photos (see `alignment`)."""
        return self.records.tensor(positions)[:, EMBEDDING + 2 * POINTS + 4 :].reshape(-1, 2, 3)
