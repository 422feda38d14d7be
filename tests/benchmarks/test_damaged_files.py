"""Damaged files at three doors: a share of what `benchmarks/damaged_files.py` does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.damage import BODIES, LABELS, MODEL, PICTURES, SHARDS, damaged, good
from benchmarks.damage_doors import FAULTS, FORMATS, Measured
from benchmarks.damaged_files import KEPT, faults, opened, run, still_well, table


def test_every_format_has_a_good_file_and_damage_that_repeats() -> None:
    for kind in {**PICTURES, **LABELS, **SHARDS, **MODEL, **dict.fromkeys(BODIES)}:
        assert good(kind)
    first = [damaged(0, number, FORMATS["ingest"]) for number in range(100)]
    assert first == [damaged(0, number, FORMATS["ingest"]) for number in range(100)]
    assert sum(case.data != good(case.format) for case in first) > 90
    assert damaged(1, 7, FORMATS["ingest"]) != first[7]


@pytest.mark.parametrize("door", ["ingest"])
def test_a_share_of_the_files(door: str, tmp_path: Path) -> None:
    with opened(door, tmp_path) as send:
        entries = run(door, send, 0, [*range(44), *KEPT[door]])
        assert still_well(door, send)
    assert faults(entries) == []
    assert {entry["answer"] for entry in entries} >= {"rows", "named in the summary"}


def test_a_share_of_the_model_files(tmp_path: Path) -> None:
    """Parameters, configurations, weights and published checkpoints, without a server."""
    door = "served model"
    of_models = [number for number in range(150) if damaged(0, number, FORMATS[door]).format in MODEL]
    with opened(door, tmp_path, model="http://127.0.0.1:9") as send:
        entries = run(door, send, 0, of_models[:32])
    assert faults(entries) == []
    assert "refused by name" in {entry["answer"] for entry in entries}


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("door", list(FORMATS))
def test_a_hundred_files_a_door(door: str, tmp_path: Path) -> None:
    with opened(door, tmp_path) as send:
        still_well(door, send)
        entries = run(door, send, 1, list(range(100)))
        assert still_well(door, send)
    print(table(entries))
    assert faults(entries) == []


def test_a_second_run_goes_on_and_faults_are_named(tmp_path: Path) -> None:
    asked = []

    def send(case: object) -> Measured:
        asked.append(case)
        return Measured("TRACEBACK" if len(asked) == 2 else "rows", 1.0, 11.0 if len(asked) == 3 else 0.1, 2.0, "why")

    log = tmp_path / "log.jsonl"
    run("ingest", send, 0, [0, 1], log)
    entries = run("ingest", send, 0, [0, 1, 2], log)
    assert len(asked) == 3
    assert [json.loads(line)["number"] for line in log.read_text().splitlines()] == [0, 1, 2]
    assert [reason.rpartition(": ")[2] for reason in faults(entries)] == ["why", "11.0 s of the processor"]
    assert entries[1]["answer"] in FAULTS
    assert "| ingest | rows | 2 | 1.0 | 11.0 | 2 |" in table(entries)
