"""The manifest lists every file by hash and detects changes; the shipped weights match theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.face.ledger import hash_of_person, ledger
from model.foundation.manifest import MAX_BYTES, WEIGHTS, check, read, write


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "a.onnx").write_bytes(b"aaa")
    (tmp_path / "b.json").write_text("{}")
    write(tmp_path, {"part": {"steps": 3}}, {"part": {"accuracy": 0.5}})
    return tmp_path


def test_an_untouched_folder_has_no_problem(weights: Path) -> None:
    assert check(weights) == []
    assert read(weights)["files"]["part/a.onnx"]["bytes"] == 3
    assert read(weights)["figures"]["part"]["accuracy"] == 0.5


def test_changed_missing_and_unknown_files_are_found(weights: Path) -> None:
    (weights / "part" / "a.onnx").write_bytes(b"aab")
    (weights / "b.json").unlink()
    (weights / "new.bin").write_bytes(b"x")
    assert {(problem.file, problem.reason.split()[0]) for problem in check(weights)} == {
        ("part/a.onnx", "its"),
        ("b.json", "missing"),
        ("new.bin", "not"),
    }


def test_too_many_bytes_and_a_missing_manifest_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="foundation train"):
        read(tmp_path)
    with (tmp_path / "big").open("wb") as handle:
        handle.truncate(MAX_BYTES + 1)
    with pytest.raises(ValueError, match="expected at most"):
        write(tmp_path, {}, {})


def test_the_ledger_of_an_adapter_stays_while_there_is_one(weights: Path) -> None:
    people = {"people": {"people": 30}}
    assert "seen" not in read(weights)
    write(weights, {**people, "adapter": {}}, {}, seen=ledger(train=["anna"], val=["ben"]))
    seen = read(weights)["seen"]
    assert seen["adapter"] == {"train": hash_of_person("anna"), "val": hash_of_person("ben")}
    # Of thirty drawn people, the last two are held out.
    assert [len(seen["foundation"][role].split()) for role in ("train", "val")] == [28, 2]
    assert hash_of_person("foundation-00029") in seen["foundation"]["val"]
    write(weights, {**people, "adapter": {}}, {"part": {}})
    assert read(weights)["seen"] == seen
    write(weights, people, {})
    assert set(read(weights)["seen"]) == {"foundation"}


def test_the_shipped_weights_match_their_manifest() -> None:
    assert check() == []
    names = set(read()["files"])
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl", ".ckpt"))]
    for needed in ("sd/model_index.json", "image_encoder/config.json", "clip/config.json", "landmarks68.onnx"):
        assert needed in names


def test_all_editions_together_are_small_enough() -> None:
    folders = (WEIGHTS, WEIGHTS.parent / "editions")
    sizes = [file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file()]
    assert sum(sizes) <= MAX_BYTES == 60_000_000
