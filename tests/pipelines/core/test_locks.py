"""A lock is held by one process alone or by several together, never both."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.core import locks
from pipelines.core.locks import hold, is_held, share

TAKEN = RuntimeError("taken")


def test_several_share_a_lock_and_keep_others_from_holding_it_alone(tmp_path: Path) -> None:
    lock, first = tmp_path / "state" / ".lock", []
    with share(lock, TAKEN, alone=lambda: first.append("one")):
        with share(lock, TAKEN, alone=lambda: first.append("other")):
            assert is_held(lock)
            with pytest.raises(RuntimeError, match="taken"), hold(lock, TAKEN):
                pass
        assert is_held(lock)
    assert first == ["one"], "only who finds nobody there may remove what killed writers left"
    assert not is_held(lock)
    with hold(lock, TAKEN):
        pass


def test_who_holds_it_alone_is_waited_for_a_moment_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_MOMENT", 0.05)
    lock = tmp_path / ".lock"
    with hold(lock, TAKEN), pytest.raises(RuntimeError, match="taken"), share(lock, TAKEN):
        pass
    with share(lock, TAKEN):
        pass
