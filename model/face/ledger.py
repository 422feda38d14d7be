"""The list of the people whom a network has seen, by hashes of their names: part of its manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def hash_of_person(name: str) -> str:
    """Return 16 hexadecimal digits of the sha256 of a person's name, by which ledgers list people."""
    return hashlib.sha256(f"person:{name}".encode()).hexdigest()[:16]


def ledger(**people: Iterable[str]) -> dict[str, str]:
    """Return the ledger of the people whom a network saw: for `train` and `val` the hashes of their names."""
    return {role: " ".join(sorted(map(hash_of_person, names))) for role, names in people.items()}
