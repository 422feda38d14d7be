"""A damaged `config.json` or header of weights is named in one line, and asks for no memory."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from model.face.conventions import OURS, PUBLISHED
from model.foundation.random_models import RandomModels, save_random_models
from model.network.adapter import Adapter
from model.network.adapter_config import CONFIG, WEIGHTS, read_config
from model.network.base import Base, BaseReference, load_base

REFERENCE = BaseReference("base/sd", "base/clip", "0" * 64)
ODD: list[Any] = [None, 3, "x", [], {}, [[1]], {"a": {"b": 1}}, -1, 1e308, True, 10**12, float("nan")]


@pytest.fixture(scope="module")
def base(random_models: RandomModels) -> Base:
    return load_base(random_models.pipeline, random_models.image_encoder)


@pytest.fixture
def saved(base: Base, make_adapter: Callable[..., Adapter], tmp_path: Path) -> Path:
    make_adapter(base).save(tmp_path, REFERENCE)
    return tmp_path


def refused(saved: Path, base: Base) -> str:
    with pytest.raises(ValueError, match=r": ") as error:
        Adapter.load(saved, base.unet)
    assert str(error.value).startswith(str(saved))
    return str(error.value)


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"a":' * 100_000, b'{"a": "\xe9"}', b"", b"[1]", b'{"format": ' + b"9" * 5000 + b"}"]
)
def test_what_is_no_object_is_named(saved: Path, base: Base, content: bytes) -> None:
    (saved / CONFIG).write_bytes(content)
    assert "damaged, not a JSON object; copy the adapter again" in refused(saved, base)


def test_every_value_of_another_kind_is_named(saved: Path, base: Base) -> None:
    good = read_config(saved)
    loaded, reasons = set(), []
    for key in good:
        for value in ("ABSENT", *ODD):
            changed = {name: each for name, each in good.items() if name != key}
            if value != "ABSENT":
                changed[key] = value
            (saved / CONFIG).write_text(json.dumps(changed))
            try:
                Adapter.load(saved, base.unet)
                loaded.add(key)
            except ValueError as error:
                reasons.append(str(error))
    assert loaded <= {"format", "gate_threshold", "templates", "weights", "made_by"}
    assert all(reason.startswith(str(saved)) for reason in reasons)
    assert len(reasons) > 80


@pytest.mark.parametrize("name", ["reconfigurator_width", "lora_rank", "landmark_features", "reconfigurator_depth"])
def test_sizes_that_are_not_those_of_the_weights_ask_for_no_memory(saved: Path, base: Base, name: str) -> None:
    """65,536² weights would be 16 GB: they would be allocated here, were the weights not compared first."""
    config = read_config(saved)
    config["sizes"][name] = 256 if name == "reconfigurator_depth" else 65_536
    (saved / CONFIG).write_text(json.dumps(config))
    assert "does not fit" in refused(saved, base)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xff" * 8,
        struct.pack("<Q", 4) + b'{"\xff}',
        struct.pack("<Q", 20_000) + b"[" * 20_000,
        struct.pack("<Q", 2**62),
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{}",
    ],
)
def test_a_damaged_header_of_weights_is_named(saved: Path, base: Base, head: bytes) -> None:
    (saved / WEIGHTS).write_bytes(head)
    assert WEIGHTS in refused(saved, base)


@pytest.mark.parametrize(
    "change", [{"dtype": "F8_E8M0"}, {"dtype": "X"}, {"shape": [-1]}, {"shape": [2**62] * 2}, {"data_offsets": [5, 1]}]
)
def test_an_impossible_tensor_is_named(saved: Path, base: Base, change: dict[str, Any]) -> None:
    raw = (saved / WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    header["null_tokens"] |= change
    text = json.dumps(header).encode()
    (saved / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    assert WEIGHTS in refused(saved, base)


@pytest.mark.parametrize(
    ("place", "content"),
    [
        ("scheduler/scheduler_config.json", b"["),
        ("scheduler/scheduler_config.json", b'{"_class_name": "UNet2DConditionModel"}'),
        ("scheduler/scheduler_config.json", b'{"_class_name": ["x"]}'),
        ("model_index.json", b"[" * 100_000),
        ("model_index.json", b'{"unet": 3}'),
        ("model_index.json", b'{"unet": ["diffusers", {"a": 1}]}'),
        ("unet/config.json", b"[" * 100_000),
        ("unet/config.json", b"[]"),
    ],
)
def test_a_damaged_base_model_is_named(tmp_path: Path, place: str, content: bytes) -> None:
    models = save_random_models(tmp_path)
    (models.pipeline / place).write_bytes(content)
    with pytest.raises(ValueError, match=str(tmp_path)):
        load_base(models.pipeline, models.image_encoder)


@pytest.mark.parametrize("change", [{"size": -1}, {"crop_size": 10**9}, {"image_mean": [[1]]}, {"image_std": "abc"}])
def test_a_damaged_image_encoder_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    from model.network.crop_transform import CropTransform

    good = CropTransform(224, 224, (0.5,) * 3, (0.5,) * 3).config()
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**good, **change}))
    with pytest.raises(ValueError, match=r"preprocessor_config\.json"):
        CropTransform.from_folder(tmp_path)


def test_a_valid_adapter_still_loads(saved: Path, base: Base) -> None:
    assert torch.equal(Adapter.load(saved, base.unet).null_tokens, Adapter.load(saved, base.unet).null_tokens)


def test_conventions_of_a_later_format_are_complete(saved: Path, base: Base) -> None:
    config = read_config(saved)
    for conventions in (None, {}, {**PUBLISHED.model_dump(), "crop": 3}, {**PUBLISHED.model_dump(), "more": 1}):
        (saved / CONFIG).write_text(json.dumps({**config, "format": 2, "conventions": conventions}))
        assert "conventions" in refused(saved, base)
    (saved / CONFIG).write_text(json.dumps({**config, "format": 2, "conventions": PUBLISHED.model_dump()}))
    assert Adapter.load(saved, base.unet).conventions == PUBLISHED


def test_an_adapter_of_an_earlier_release_has_our_conventions(saved: Path, base: Base) -> None:
    config = read_config(saved)
    assert "conventions" not in config
    assert Adapter.load(saved, base.unet).conventions == OURS
    (saved / CONFIG).write_text(json.dumps({**config, "hair": True}))
    assert Adapter.load(saved, base.unet).conventions == OURS.with_values({"hair": True})


def test_a_training_refuses_what_prepares_other_inputs(saved: Path, base: Base) -> None:
    adapter = Adapter.load(saved, base.unet)
    adapter.check_trained_with(hair=False, origin="a")
    with pytest.raises(ValueError, match=r"^a: trained with base\.hair=false; set that"):
        adapter.check_trained_with(hair=True, origin="a")
    adapter.conventions = PUBLISHED
    with pytest.raises(ValueError, match=r"^a: its conventions are other ones \(crop, clip_pixels, "):
        adapter.check_trained_with(hair=True, origin="a")
