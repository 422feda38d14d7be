"""An adapter is shipped in compact form with its manifest entry, or refused without any change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model.foundation import manifest
from model.foundation.face_networks import FILES
from model.foundation.random_models import save_random_models
from model.foundation.shipped_adapter import matches_base, ship
from model.network.adapter import Adapter
from model.network.base import load_base


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    models = save_random_models(tmp_path / "models")
    folder = tmp_path / "weights"
    folder.mkdir()
    models.pipeline.rename(folder / "sd")
    models.image_encoder.rename(folder / "image_encoder")
    (folder / FILES["recogniser"]).parent.mkdir(parents=True)
    (folder / FILES["recogniser"]).write_bytes(b"recogniser")
    manifest.write(folder, {"unet": {"steps": 1}}, {"unet": {"expression": 0.5}})
    return folder


def test_a_third_of_the_bytes_and_the_same_tokens(
    weights: Path, tmp_path: Path, make_adapter: Callable[..., Adapter]
) -> None:
    whole = make_adapter(weights, tmp_path / "adapter")
    folder = ship(tmp_path / "adapter", weights, {"profile": "showcase"}, {"s": 0.7})
    size = {
        name: (place / "adapter.safetensors").stat().st_size
        for name, place in (("whole", tmp_path / "adapter"), ("shipped", folder))
    }
    assert size["shipped"] < 0.4 * size["whole"]
    assert manifest.check(weights) == []
    known = manifest.read(weights)
    recogniser = hashlib.sha256(b"recogniser").hexdigest()
    assert known["recipe"] == {"unet": {"steps": 1}, "adapter": {"profile": "showcase", "recogniser": recogniser}}
    assert known["figures"]["adapter"] == {"s": 0.7}
    assert "adapter/adapter.safetensors" in known["files"]

    base = load_base(weights / "sd", weights / "image_encoder")
    shipped = Adapter.load(folder, base.unet)
    assert torch.equal(shipped.templates, whole.templates)
    generator = torch.Generator().manual_seed(1)
    embedding = torch.nn.functional.normalize(torch.randn(2, 512, generator=generator), dim=-1)
    states = torch.randn(2, 5, shipped.image_width, generator=generator)
    with torch.no_grad():
        found, wanted = (one.identity_tokens(embedding, states) for one in (shipped, whole))
    assert found.dtype == torch.float32
    assert float((found - wanted).abs().max()) < 0.02 * float(wanted.abs().max())


def test_another_adapter_replaces_it_and_a_refused_one_changes_nothing(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_adapter: Callable[..., Adapter]
) -> None:
    make_adapter(weights, tmp_path / "first")
    make_adapter(weights, tmp_path / "second", seed=1)
    make_adapter(weights, tmp_path / "half_done", complete=False)
    ship(tmp_path / "first", weights, {}, {})
    ship(tmp_path / "second", weights, {}, {})
    before = manifest.read(weights)
    with pytest.raises(ValueError, match="has no IMR; run train_imr"):
        ship(tmp_path / "half_done", weights, {}, {})
    config = json.loads((tmp_path / "first" / "config.json").read_text())
    config["base"]["fingerprint"] = "0" * 64
    (tmp_path / "first" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="trained on a base with fingerprint 000000000000"):
        ship(tmp_path / "first", weights, {}, {})
    monkeypatch.setattr(manifest, "MAX_BYTES", before["bytes"] - 1)
    with pytest.raises(ValueError, match="expected at most"):
        ship(tmp_path / "second", weights, {}, {})
    assert manifest.read(weights) == before
    assert manifest.check(weights) == []


def test_it_matches_its_own_base_and_recogniser_alone(
    weights: Path, tmp_path: Path, make_adapter: Callable[..., Adapter]
) -> None:
    assert not matches_base(weights)
    make_adapter(weights, tmp_path / "adapter")
    ship(tmp_path / "adapter", weights, {}, {})
    assert matches_base(weights)
    (weights / FILES["recogniser"]).write_bytes(b"another")
    assert not matches_base(weights)
