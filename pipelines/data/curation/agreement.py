"""How well found identities agree with known ones: pairs of photos that both call the same person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Agreement:
    """Shares in [0, 1]: of found pairs that are true, of true pairs that are found, and their harmonic mean."""

    precision: float
    recall: float
    f1: float


def pairwise(found: Sequence[str | None], known: Sequence[str]) -> Agreement:
    """Compare identities found with those known, item by item; an item found to be nobody (None) pairs with none."""
    both = _pairs(Counter((one, other) for one, other in zip(found, known, strict=True) if one is not None))
    said = _pairs(Counter(one for one in found if one is not None))
    true = _pairs(Counter(known))
    return Agreement(both / said if said else 1.0, both / true if true else 1.0, 2 * both / max(said + true, 1))


def _pairs(counts: Counter) -> int:
    return sum(count * (count - 1) // 2 for count in counts.values())
