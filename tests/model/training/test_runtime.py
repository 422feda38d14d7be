"""How exactly torch computes: what is switched inside a block is as before after it."""

from __future__ import annotations

import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from model.training.cache import RecordStore, text_keys
from model.training.records import Records, Source
from model.training.runtime import deterministic, exact, fast

CPU = torch.device("cpu")


def switches() -> tuple[bool, ...]:
    """Return whether algorithms are deterministic and whether others only warn; cuDNN's search; TF32 of both kinds."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    exact = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    return *exact, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32


def test_switches_are_set_inside_and_restored_after_also_of_a_failed_block() -> None:
    before = switches()
    shown = warnings.showwarning
    with suppress(ZeroDivisionError), deterministic(CPU):
        assert switches() == (True, False, False, *before[3:])
        inside = switches()
        with suppress(KeyError), fast():
            assert switches() == (False, False, True, True, True)
            raise KeyError
        assert switches() == inside
        raise ZeroDivisionError
    assert switches() == before
    assert warnings.showwarning is shown


def test_what_is_kept_is_computed_exactly_also_by_a_fast_training(tmp_path: Path) -> None:
    seen: dict[str, tuple[bool, ...]] = {}

    def records(name: str, store: RecordStore | None) -> Records:
        def encode(items: list[float]) -> np.ndarray:
            seen[name] = switches()
            return np.array(items, np.float32)[:, None]

        source = Source(lambda places: (float(place) for place in places), encode, 2)
        return Records(name, text_keys(["a", "b", "c"]), source, (1,), store)

    before = switches()
    with fast():
        for name, store in (("kept", RecordStore(tmp_path, (1,))), ("not kept", None)):
            assert records(name, store)[np.array([2, 0])].tolist() == [[2], [0]]
        assert switches() == (False, False, True, True, True)
    assert seen == {"kept": (True, True, False, True, False), "not kept": (False, False, True, True, True)}
    with exact():
        assert switches() == before


def test_operations_without_a_deterministic_algorithm_are_named() -> None:
    with warnings.catch_warnings(record=True) as seen, deterministic(torch.device("cuda")) as inexact:
        assert switches()[:2] == (True, True), "on a GPU they only cause a warning"
        warnings.filterwarnings("always", "something")
        for name in ("first_backward_cuda", "second_cuda", "second_cuda", "second_cuda"):
            warnings.warn(f"{name} does not have a deterministic implementation, but you set …", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
        assert inexact == {"first_backward_cuda", "second_cuda"}
    assert len(seen) == 3, "each operation once"
