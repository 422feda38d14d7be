"""Compute the bucket and the split of a row by stable hashes of its identity."""

from __future__ import annotations

import hashlib

import numpy as np

_BITS = 63


def partition_hash(identity: str | None, image_id: str) -> int:
    """Return the hash in [0, 2^63) of a row's identity, or of its photo where the identity is unknown."""
    return _hash(f"photo:{image_id}" if identity is None else f"person:{identity}")


def bucket_bounds(bucket: int, buckets: int) -> tuple[int, int]:
    """Return the least and greatest partition hash of a bucket; all buckets have equal ranges."""
    low = -(-(bucket << _BITS) // buckets)
    high = -(-((bucket + 1) << _BITS) // buckets) - 1
    return low, high


def buckets_of(hashes: np.ndarray, buckets: int) -> np.ndarray:
    """Return (buckets,) bool: which of the buckets have one of the partition `hashes` (N,) int64."""
    lows = np.array([bucket_bounds(bucket, buckets)[0] for bucket in range(buckets)], np.int64)
    found = np.zeros(buckets, bool)
    found[np.searchsorted(lows, hashes, "right") - 1] = True
    return found


def split_of(identity: str | None, test_share: float, val_share: float) -> str:
    """Return `train`, `val` or `test` for a person; photos without an identity go to `train`."""
    if identity is None:
        return "train"
    share = _hash(f"split:{identity}") / 2**_BITS
    if share < test_share:
        return "test"
    return "val" if share < test_share + val_share else "train"


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
