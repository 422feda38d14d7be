"""Data of the forgotten is detected anywhere in a file; padding is not searched for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.operations.forgetting import probe as module
from pipelines.operations.forgetting.probe import Probe

SECRET = np.random.default_rng(1).bytes(5000)


@pytest.mark.parametrize("before", [0, 1, 2, 3, 255, 1023, 1024 - 20, 4096])
def test_a_part_is_found_at_any_offset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int) -> None:
    monkeypatch.setattr(module, "_CHUNK", 1024)
    probe = Probe()
    probe.add(SECRET)
    noise = np.random.default_rng(2)
    (tmp_path / "has").write_bytes(noise.bytes(before) + SECRET[2400:2700] + noise.bytes(777))
    (tmp_path / "has_not").write_bytes(noise.bytes(200_000))
    (tmp_path / "start").write_bytes(SECRET[:1000])
    assert probe.files_with([tmp_path]) == [tmp_path / "has"]


def test_padding_is_not_searched_for(tmp_path: Path) -> None:
    probe = Probe()
    probe.add(bytes(5000))
    probe.add(b"short")
    assert probe.pieces == set()
    (tmp_path / "zeros").write_bytes(bytes(10_000))
    assert probe.files_with([tmp_path]) == []


def test_links_and_the_history_are_not_read(tmp_path: Path) -> None:
    probe = Probe()
    probe.add(SECRET)
    outside = tmp_path / "outside"
    outside.write_bytes(SECRET)
    inside = tmp_path / "inside"
    (inside / ".git").mkdir(parents=True)
    (inside / ".git" / "x").write_bytes(SECRET)
    (inside / "link").symlink_to(outside)
    assert probe.files_with([inside]) == []
    assert probe.files_with([inside, tmp_path]) == [outside]
