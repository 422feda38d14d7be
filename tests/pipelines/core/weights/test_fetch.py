"""Networks are fetched whole and checked, whatever the server does, and continued where an earlier fetch ended."""

from __future__ import annotations

import hashlib
import io
import json
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.locks import hold
from pipelines.core.weights.check import network_faults, state_of
from pipelines.core.weights.fetch import Fetched, NotFetched, fetch
from pipelines.core.weights.lock import LOCK, read_lock
from pipelines.core.weights.manifest import OWN, read_manifest
from tests.weights_server import COMMIT, WeightsServer, weights_server

BIG = random.Random(0).randbytes(3_500_000)
CONFIG = b'{"small": true}'
HUB = {"config.json": CONFIG, "model/big.safetensors": BIG}
FILE = "/team/small/model/big.safetensors"


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WeightsServer]:
    """A Hub with one repository; waiting between tries takes no time, a stall is noticed at once."""
    from huggingface_hub import constants

    with weights_server() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", constants.DOWNLOAD_CHUNK_SIZE)
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
        for module in (
            "huggingface_hub.file_download",
            "huggingface_hub.utils._http",
            "pipelines.core.weights.download",
        ):
            monkeypatch.setattr(f"{module}.time", SimpleNamespace(sleep=lambda _: None))
        running.files.update({f"/team/small/{name}": content for name, content in HUB.items()})
        yield running


def write(root: Path, server: WeightsServer, **networks: dict[str, Any]) -> Path:
    """Write `weights.yaml` with the network `small` of the Hub, changed and extended by `networks`."""
    small = {
        "purpose": "a test",
        "path": "weights/small",
        "source": {"hub": "team/small"},
        "licence": "MIT",
        "domain": "any",
        "mb": 3,
        "files": {"config.json": {}, "model/big.safetensors": {}},
    }
    entries = {"small": small, **{name: {**small, **entry} for name, entry in networks.items()}}
    (root / OWN).write_text(json.dumps({"format": 1, "networks": entries}))
    return root


def small(root: Path) -> dict[str, bytes]:
    folder = root / "weights" / "small"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def nothing_written(root: Path, path: str = "weights/small") -> bool:
    return not (root / path).exists() and not (root / LOCK).exists()


def test_a_repository_of_the_hub_and_what_the_lock_records(server: WeightsServer, tmp_path: Path) -> None:
    write(tmp_path, server)
    (done,) = fetch(tmp_path, ["small"])
    assert done == Fetched("small", "weights/small", len(BIG) + len(CONFIG), True, ())
    assert small(tmp_path) == HUB
    locked = read_lock(tmp_path).networks["small"]
    assert (locked.revision, locked.licence, locked.source) == (COMMIT, "MIT", "https://huggingface.co/team/small")
    assert {file: (known.sha256, known.trust) for file, known in locked.files.items()} == {
        name: (sha(content), "source") for name, content in HUB.items()
    }
    assert not list(tmp_path.rglob(".*.part"))
    before, asked = (tmp_path / LOCK).read_bytes(), len(server.requests)
    assert not fetch(tmp_path, ["small"])[0].new
    assert len(server.requests) == asked, "what is there and right is not asked for"
    assert (tmp_path / LOCK).read_bytes() == before


@pytest.mark.parametrize(
    "faults",
    [
        ["cut 1500000"],
        ["reset 1500000"],
        ["stall 2200000"],
        ["429", "429"],
        ["short 1500000"],
        ["cut 1500000", "whole"],
        ["cut 1200000", "429", "reset 1200000"],
    ],
    ids=str,
)
def test_a_server_that_fails_for_a_while(server: WeightsServer, tmp_path: Path, faults: list[str]) -> None:
    write(tmp_path, server)
    server.faults[FILE].extend(faults)
    fetch(tmp_path, ["small"])
    assert small(tmp_path) == HUB
    assert not server.faults[FILE]
    starts = server.starts(FILE)
    assert starts[0] == 0
    # Of what came before a reset the system may drop all.
    assert starts[-1] > 0 or not faults[0].startswith(("cut", "stall", "short")), "it continued"


def test_a_server_that_fails_for_long_and_then_not(server: WeightsServer, tmp_path: Path) -> None:
    write(tmp_path, server)
    server.faults[FILE].extend(["cut 2200000", *["cut 0"] * 20])
    with pytest.raises(StageFailed, match=r"big\.safetensors: cannot be fetched .* run the command again to continue"):
        fetch(tmp_path, ["small"])
    assert nothing_written(tmp_path)
    assert state_of(tmp_path, "small", read_manifest(tmp_path).networks["small"], read_lock(tmp_path)) == "absent"
    server.faults[FILE].clear()
    fetch(tmp_path, ["small"])
    assert small(tmp_path) == HUB
    assert server.starts(FILE)[-1] >= 2 * 2**20


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (["429"] * 9, r"answers 429; it asks to wait"),
        (["403"], r"answers 403; it needs an account: accept its terms on its page and set HF_TOKEN"),
        (["404"], r"answers 404; there is no such file or revision"),
        (["500"], r"answers 500; what has arrived is kept"),
        (["other"] * 2, r"has the sha256 [0-9a-f]{64}, expected [0-9a-f]{64}: it is another file or damaged"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_what_a_server_refuses_is_named(server: WeightsServer, tmp_path: Path, fault: list[str], message: str) -> None:
    write(tmp_path, server)
    server.faults[FILE].extend(fault)
    with pytest.raises(StageFailed, match=message):
        fetch(tmp_path, ["small"])
    assert nothing_written(tmp_path)


def test_a_size_that_is_a_lie(server: WeightsServer, tmp_path: Path) -> None:
    write(tmp_path, server)
    for stated in (len(BIG) - 5, len(BIG) + 5):
        server.stated[FILE] = stated
        with pytest.raises(StageFailed, match=rf"has {len(BIG):,} bytes, expected {stated:,}"):
            fetch(tmp_path, ["small"])
        assert nothing_written(tmp_path)
    files = {"model/big.safetensors": {"bytes": len(BIG)}, "config.json": {}}
    write(tmp_path, server, small={"files": files})
    with pytest.raises(StageFailed, match=r"its server states 3,500,005 bytes, the manifest 3,500,000"):
        fetch(tmp_path, ["small"])
    assert nothing_written(tmp_path)


def test_another_hash_than_the_manifest_has(server: WeightsServer, tmp_path: Path) -> None:
    files = {"model/big.safetensors": {"sha256": sha(b"another")}, "config.json": {}}
    write(tmp_path, server, small={"files": files})
    with pytest.raises(
        StageFailed, match=rf"the sha256 {sha(BIG)}, the manifest {sha(b'another')}: it is another file"
    ):
        fetch(tmp_path, ["small"])
    server.without_hashes = True
    with pytest.raises(StageFailed, match=r"has the sha256 .* expected"):
        fetch(tmp_path, ["small"])
    assert nothing_written(tmp_path)


def test_a_damaged_beginning_is_fetched_again(server: WeightsServer, tmp_path: Path) -> None:
    write(tmp_path, server)
    server.faults[FILE].extend(["cut 2200000", *["cut 0"] * 20])
    with pytest.raises(StageFailed):
        fetch(tmp_path, ["small"])
    server.faults[FILE].clear()
    (part,) = tmp_path.rglob(".big.safetensors.*.part")
    part.write_bytes(bytes(part.stat().st_size))
    fetch(tmp_path, ["small"])
    assert small(tmp_path) == HUB


def test_without_published_hashes_the_first_file_is_trusted(server: WeightsServer, tmp_path: Path) -> None:
    server.without_hashes = True
    write(tmp_path, server)
    (done,) = fetch(tmp_path, ["small"])
    assert set(done.unpublished) == set(HUB)
    # Another file under the same name, on this or another machine with the same lock file.
    (tmp_path / "weights" / "small" / "config.json").unlink()
    server.files["/team/small/config.json"] = CONFIG.replace(b"true", b"null")
    with pytest.raises(
        StageFailed, match=r"config\.json has the sha256 .*expected .* by weights\.lock \(to take another"
    ):
        fetch(tmp_path, ["small"])
    server.without_hashes = False
    (tmp_path / "weights" / "small" / "model" / "big.safetensors").unlink()
    server.files[FILE] = BIG[::-1]
    with pytest.raises(
        StageFailed, match=r"big\.safetensors has the sha256 .*expected .* by weights\.lock \(to take an"
    ):
        fetch(tmp_path, ["small"])


def test_single_files_and_an_archive_of_any_server(server: WeightsServer, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("inner/det.onnx", b"detector")
        archive.writestr("inner/rec.onnx", BIG)
        archive.writestr("../evil.onnx", b"evil")
    server.files |= {"/packs/pack.zip": packed.getvalue(), "/one/two/net-" + sha(BIG)[:10] + ".onnx": BIG}
    pack = {
        "path": "weights/packs/pack",
        "source": {"archive": f"{server.address}/packs/pack.zip"},
        "files": {"det.onnx": {"sha256": sha(b"detector")}, "rec.onnx": {}},
    }
    named = f"net-{sha(BIG)[:10]}.onnx"
    one = {
        "path": "weights/one",
        "source": {"files": f"{server.address}/one/two"},
        "files": {named: {"sha256": sha(BIG)[:10]}},
    }
    write(tmp_path, server, pack=pack, one=one)
    server.faults["/packs/pack.zip"].extend(["cut 1500000"])
    done = {network.name: network for network in fetch(tmp_path, ["pack", "one"])}
    assert done["pack"].unpublished == ("rec.onnx",)
    assert done["one"].unpublished == ()
    assert (tmp_path / "weights/packs/pack/rec.onnx").read_bytes() == BIG
    assert sorted(path.name for path in (tmp_path / "weights").rglob("*") if path.is_file()) == [
        "det.onnx",
        named,
        "rec.onnx",
    ]
    # The archive vouches for its files where its own hash is in the manifest.
    pack["source"]["sha256"] = sha(packed.getvalue())
    other = tmp_path / "other"
    other.mkdir()
    write(other, server, pack=pack)
    assert fetch(other, ["pack"])[0].unpublished == ()
    pack["files"] = {"missing.onnx": {}}
    third = tmp_path / "third"
    third.mkdir()
    write(third, server, pack=pack)
    with pytest.raises(StageFailed, match=r"no missing\.onnx in the archive"):
        fetch(third, ["pack"])
    assert nothing_written(third, "weights/packs/pack")


def test_one_network_that_fails_keeps_no_other_back(server: WeightsServer, tmp_path: Path) -> None:
    write(tmp_path, server, gone={"path": "weights/gone", "source": {"hub": "team/gone"}})
    with pytest.raises(NotFetched, match=r"^gone: .*no file config\.json") as failed:
        fetch(tmp_path, ["gone", "small"])
    assert [network.name for network in failed.value.fetched] == ["small"]
    assert small(tmp_path) == HUB
    assert list(read_lock(tmp_path).networks) == ["small"]


def test_from_a_folder(server: WeightsServer, tmp_path: Path) -> None:
    mirror, root = tmp_path / "mirror", tmp_path / "here"
    root.mkdir()
    write(root, server, small={"files": {"*.json": {}, "model/big.safetensors": {"sha256": sha(BIG)}}})
    with pytest.raises(StageFailed, match=r"small: \*\.json, model/big\.safetensors missing; expected in"):
        fetch(root, ["small"], folder=tmp_path)
    (mirror / "small").mkdir(parents=True)
    (mirror / "small" / "config.json").write_bytes(CONFIG)
    (mirror / "elsewhere").mkdir()
    (mirror / "elsewhere" / "big.safetensors").write_bytes(b"not it")
    with pytest.raises(StageFailed, match=r"has the sha256 .*, expected"):
        fetch(root, ["small"], folder=mirror)
    assert nothing_written(root)
    (mirror / "elsewhere" / "big.safetensors").write_bytes(BIG)
    (done,) = fetch(root, ["small"], folder=mirror)
    assert done.unpublished == ("config.json",)
    assert small(root) == HUB
    assert not server.requests, "nothing was asked of a server"


def test_a_manifest_that_changed_is_compared_with_the_lock(server: WeightsServer, tmp_path: Path) -> None:
    write(tmp_path, server, small={"files": {"config.json": {}}})
    fetch(tmp_path, ["small"])
    write(tmp_path, server)
    fetch(tmp_path, ["small"])
    assert small(tmp_path) == HUB
    server.files["/team/small/config.json"] = b"[]"
    files = {"config.json": {"sha256": sha(b"[]")}, "model/big.safetensors": {}}
    write(tmp_path, server, small={"files": files})
    with pytest.raises(StageFailed, match=r"by weights\.lock \(to take another file, delete small there"):
        fetch(tmp_path, ["small"])
    (tmp_path / LOCK).unlink()
    fetch(tmp_path, ["small"])
    assert small(tmp_path) == {**HUB, "config.json": b"[]"}


def test_an_archive_in_a_folder_and_a_fetch_that_is_running(server: WeightsServer, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    with zipfile.ZipFile(mirror / "pack.zip", "w") as archive:
        archive.writestr("det.onnx", b"detector")
    pack = {
        "path": "weights/packs/pack",
        "source": {"archive": "https://example.org/pack.zip"},
        "files": {"det.onnx": {"sha256": sha(b"detector")}},
    }
    write(tmp_path, server, pack=pack)
    busy = StageFailed("no")
    with (
        hold(tmp_path / ".dynamicid" / "weights.busy", busy),
        pytest.raises(StageFailed, match=r"another `dynamicid weights fetch` is running here"),
    ):
        fetch(tmp_path, ["pack"], folder=mirror)
    fetch(tmp_path, ["pack"], folder=mirror)
    assert (tmp_path / "weights/packs/pack/det.onnx").read_bytes() == b"detector"
    (mirror / "pack.zip").write_bytes(b"no archive")
    (tmp_path / "weights/packs/pack/det.onnx").unlink()
    with pytest.raises(StageFailed, match=r"pack: .*: not a zip archive"):
        fetch(tmp_path, ["pack"], folder=mirror)
    assert [path.name for path in (tmp_path / "weights" / "packs" / "pack").iterdir()] == []


def test_a_licence_is_accepted_once(server: WeightsServer, tmp_path: Path) -> None:
    write(tmp_path, server, small={"licence": "InsightFace-non-commercial"})
    with pytest.raises(UserError, match=r"licences to accept first: InsightFace-non-commercial of small .*--accept In"):
        fetch(tmp_path, ["small"])
    with pytest.raises(UserError, match=r"--accept MTI: no such licence"):
        fetch(tmp_path, ["small"], accepted=["MTI"])
    assert not server.requests
    assert nothing_written(tmp_path)
    fetch(tmp_path, ["small"], accepted=["InsightFace-non-commercial"])
    (tmp_path / "weights" / "small" / "config.json").unlink()
    fetch(tmp_path, ["small"])
    assert small(tmp_path) == HUB


def test_what_changed_or_is_missing_is_named_and_fetched_alone(server: WeightsServer, tmp_path: Path) -> None:
    write(tmp_path, server)
    fetch(tmp_path, ["small"])
    (tmp_path / "weights" / "small" / "config.json").write_bytes(CONFIG[::-1])
    (tmp_path / "weights" / "small" / "own.txt").write_text("mine")
    network, lock = read_manifest(tmp_path).networks["small"], read_lock(tmp_path)
    (fault,) = network_faults(tmp_path, "small", network, lock)
    assert "config.json: sha256" in fault
    assert state_of(tmp_path, "small", network, lock) == "fetched"
    asked = len(server.starts(FILE))
    fetch(tmp_path, ["small"])
    assert small(tmp_path) == {**HUB, "own.txt": b"mine"}
    assert len(server.starts(FILE)) == asked
    (tmp_path / "weights" / "small" / "config.json").unlink()
    assert state_of(tmp_path, "small", network, lock) == "incomplete"


def test_a_network_that_is_made_here_is_not_fetched(server: WeightsServer, tmp_path: Path) -> None:
    made_by = "dynamicid foundation train --from data/processed"
    write(tmp_path, server, ours={"source": None, "path": "weights/ours", "files": {}, "made_by": made_by})
    assert [one.name for one in fetch(tmp_path, ["ours", "small"])] == ["small"]


def test_a_network_of_which_nobody_publishes_anything(server: WeightsServer, tmp_path: Path) -> None:
    write(tmp_path, server, ours={"source": None, "path": "weights/ours.onnx", "files": {}, "licence": None})
    network, lock = read_manifest(tmp_path).networks["ours"], read_lock(tmp_path)
    assert network_faults(tmp_path, "ours", network, lock) == [f"{tmp_path / 'weights/ours.onnx'}: missing"]
    with pytest.raises(StageFailed, match=r"lists no files of it; put your own network at weights/ours\.onnx"):
        fetch(tmp_path, ["ours"])
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "ours.onnx").write_bytes(b"ours")
    assert not fetch(tmp_path, ["ours"])[0].new
    assert network_faults(tmp_path, "ours", network, lock) == []


def test_wrong_use_is_named_before_anything_is_fetched(server: WeightsServer, tmp_path: Path) -> None:
    write(tmp_path, server, alone={"source": None, "page": "https://example.org", "path": "weights/alone"})
    with pytest.raises(UserError, match=r"smal: no such network in the manifest; did you mean small"):
        fetch(tmp_path, ["smal"])
    with pytest.raises(
        StageFailed, match=r"alone: no address .* \(https://example.org\); .* weights fetch alone --from"
    ):
        fetch(tmp_path, ["alone"])
    assert not server.requests
    (tmp_path / LOCK).write_text("networks: [1]\n")
    with pytest.raises(UserError, match=r"weights\.lock: networks = .*; restore it with git, or delete it"):
        fetch(tmp_path, ["small"])
