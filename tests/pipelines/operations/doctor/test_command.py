"""The command `doctor`, and its estimates against what the stages then take."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from pipelines.core.params import load_params
from pipelines.operations.doctor.data import read_photos
from pipelines.operations.doctor.estimate import estimate
from tests.processes import dynamicid


def test_the_page_and_its_json(tmp_path: Path) -> None:
    dynamicid("configure", "--profile", "tiny", cwd=tmp_path)
    done = dynamicid("doctor", "--fast", "--json", cwd=tmp_path, code=1)
    answer = json.loads(done.stdout)
    assert [one["subject"] for one in answer["findings"] if one["level"] == "stop"] == ["data"]
    assert answer["expected"] == []
    assert "there is no dataset yet" in done.stderr
    assert "cannot reach its end: data" in done.stderr


def test_wrong_use_is_named(tmp_path: Path) -> None:
    dynamicid("configure", "--profile", "tiny", cwd=tmp_path)
    assert "no such folder" in dynamicid("doctor", "--data", "nowhere", cwd=tmp_path, code=2).stderr
    assert "no file sd16.yaml" in dynamicid("doctor", "--profile", "sd16", cwd=tmp_path, code=2).stderr


@pytest.mark.nightly
@pytest.mark.timeout(3000)
def test_what_is_expected_is_near_what_it_takes(tmp_path: Path) -> None:
    few = (
        "train_anchoring.steps=60",
        "train_imr.steps=60",
        "train_imr.helpers=8",
        "evaluate.people=4",
        "evaluate.several_people.two=2",
    )
    changes = [word for change in few for word in ("--set", change)]
    dynamicid("configure", "--profile", "tiny", *changes, cwd=tmp_path)
    dynamicid("synthesize", "--identities", "40", "--photos", "7", "--out", "photos", cwd=tmp_path)
    dynamicid("ingest", "photos", "--out", "data/faces", cwd=tmp_path)
    params, faces = load_params(tmp_path / "params.yaml"), tmp_path / "data" / "faces"
    expected = {one.stage: one.hours * 3600 for one in estimate(params, faces, read_photos(faces, params, fast=True))}
    took = {}
    preprocess = ("preprocess", "data/faces", "--out", "data/processed")
    for command in (preprocess, ("train-anchoring",), ("train-imr",), ("evaluate",)):
        begun = time.monotonic()
        dynamicid(*command, cwd=tmp_path)
        took[command[0].replace("-", "_")] = time.monotonic() - begun
    print({stage: (round(expected[stage]), round(seconds)) for stage, seconds in took.items()})
    for stage, seconds in took.items():
        # The start of Python and its libraries is not counted.
        assert seconds / 2 - 20 < expected[stage] < 2 * seconds, (stage, expected[stage], seconds)


def test_the_networks_that_sdxl_lacks_are_named(tmp_path: Path) -> None:
    done = dynamicid("doctor", "--profile", "sdxl", "--fast", "--json", cwd=tmp_path, code=1)
    findings = [one for one in json.loads(done.stdout)["findings"] if one["level"] == "stop"]
    lines = [f"{one['subject']}: {one['text']}; {one['mend']}" for one in findings]
    assert any("stable-diffusion-xl-base-1.0" in line and "weights fetch" in line for line in lines), lines
    assert any("clip-vit-h-14" in line for line in lines), lines
