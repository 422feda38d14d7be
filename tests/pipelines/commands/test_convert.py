"""`dynamicid convert`: conversions are exact in both directions; unsuitable files are refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from model.network.adapter import Adapter
from model.network.base import load_base
from pipelines.core.weights.licences import networks_of_adapter
from tests.pipelines.commands.conversions import (
    FILES,
    SIZES,
    Convert,
    load,
    printed,
    published,
    refused,
    same_bits,
    write_published,
)


def test_published_files_come_back_bit_for_bit(conversions: Path, convert: Convert, tmp_path: Path) -> None:
    result = convert(*published(conversions / "published"), "--out", tmp_path / "adapter")
    assert printed(result)["sizes"] == {"tokens": 4, "reconfigurator_depth": 1, **SIZES}
    assert "it draws by conventions of its own" in result.stderr
    result = convert("to-published", tmp_path / "adapter", "--out", tmp_path / "back")
    assert result.exit_code == 0, result.output
    assert "residual" not in result.stderr
    for name in FILES:
        assert same_bits(load(conversions / "published" / name), load(tmp_path / "back" / name)), name
    assert load(tmp_path / "back" / FILES[2])["blocks.0.0.conv_block.0.weight"].dtype == torch.float16


def test_a_converted_adapter_records_the_networks_that_it_came_from(
    conversions: Path, convert: Convert, tmp_path: Path
) -> None:
    assert convert(*published(conversions / "published"), "--out", tmp_path / "adapter").exit_code == 0
    found = networks_of_adapter(tmp_path / "adapter")
    assert found is not None
    given = {one["parameter"]: (one["path"], one["licence"]) for one in found}
    assert set(given) == {"base.pipeline", "base.image_encoder", "--saa", "--imr", "--landmark-encoder"}
    assert given["--saa"] == (str(conversions / "published" / FILES[0]), None)


@pytest.mark.parametrize("name", ["adapter", "anchored"])
def test_an_adapter_folder_comes_back_with_the_same_bytes(
    conversions: Path, convert: Convert, tmp_path: Path, name: str
) -> None:
    result = convert("to-published", conversions / name, "--out", tmp_path / "published")
    imr = name == "adapter"
    assert printed(result)["files"] == [*FILES[: 3 if imr else 1], "rest.safetensors"]
    assert ("adds to the source's tokens" in result.stderr) is imr
    given = published(tmp_path / "published")[: 7 if imr else 3]
    result = convert(*given, "--rest", tmp_path / "published" / "rest.safetensors", "--out", tmp_path / "again")
    assert result.exit_code == 0, result.output
    for file in ("adapter.safetensors", "config.json"):
        assert (tmp_path / "again" / file).read_bytes() == (conversions / name / file).read_bytes()


def test_the_converted_adapter_computes_what_the_original_computes(
    conversions: Path, convert: Convert, tmp_path: Path
) -> None:
    """Without a rest file, τ and base come from the parameters, and null tokens are those of the published code."""
    write_published(load_file(conversions / "adapter" / "adapter.safetensors"), tmp_path / "published")
    saa = load(tmp_path / "published" / "SAA.bin")
    saa["proj_module"]["norm.bias"][0] = 0.0
    torch.save(saa, tmp_path / "published" / "SAA.bin")
    options = ["--templates-of", conversions / "adapter", "--residual", "--out", tmp_path / "adapter"]
    result = convert(*published(tmp_path / "published"), *options)
    assert result.exit_code == 0, result.output
    assert "templates" not in result.stderr
    base = load_base(conversions / "base" / "sd", conversions / "base" / "image_encoder")
    original = Adapter.load(conversions / "adapter", base.unet)
    original.face_encoder.norm.bias.data[0] = 0.0
    adapter = Adapter.load(tmp_path / "adapter", base.unet)
    assert adapter.base_reference == original.base_reference
    assert adapter.gate_threshold == 0.3
    assert torch.equal(adapter.templates, original.templates)
    embeddings, states = torch.randn(2, 512), torch.randn(2, 17, 48)
    tokens = original.identity_tokens(embeddings, states)
    assert torch.equal(adapter.identity_tokens(embeddings, states), tokens)
    with torch.no_grad():
        empty = base.image_encoder(torch.zeros(1, 3, 64, 64), output_hidden_states=True).hidden_states[-2]
        null_tokens = original.identity_tokens(torch.zeros(1, 512), empty)
    assert torch.allclose(adapter.null_tokens, null_tokens, atol=1e-6)
    pictures, texts = torch.ones(2, 1, 96, 96), torch.randn(2, 64)
    moved = adapter.reconfigure(tokens, pictures, texts, -pictures, texts)
    assert torch.allclose(moved, original.reconfigure(tokens, pictures, texts, -pictures, texts), atol=1e-2)


def test_a_transformer_base_has_no_published_layout(conversions: Path, convert: Convert, tmp_path: Path) -> None:
    (tmp_path / "flux" / "transformer").mkdir(parents=True)
    out = ("--out", tmp_path / "out", "--set", f"base.pipeline={tmp_path / 'flux'}")
    write_published(load_file(conversions / "adapter" / "adapter.safetensors"), tmp_path / "files")
    message = refused(convert(*published(tmp_path / "files"), *out))
    assert "flux: a base with a transformer; published layouts are those of UNets" in message


def test_every_key_that_does_not_fit_is_listed(conversions: Path, convert: Convert, tmp_path: Path) -> None:
    """All files are checked before the error is raised, and nothing is written."""
    write_published(load_file(conversions / "adapter" / "adapter.safetensors"), tmp_path / "wrong")
    saa = load(tmp_path / "wrong" / "SAA.bin")
    saa["SAA_module"].pop("1.to_k_ip.weight")
    saa["SAA_module"]["99.to_k_ip.weight"] = torch.zeros(2, 3)
    saa["proj_module"]["norm.weight"] = torch.zeros(7)
    saa["epoch"] = 3
    torch.save(saa, tmp_path / "wrong" / "SAA.bin")
    imr = load(tmp_path / "wrong" / "IMR.bin")
    imr.pop("norm_in.bias")
    imr["proj_out.weight"] = imr["proj_out.weight"].to(torch.int64)
    torch.save(imr, tmp_path / "wrong" / "IMR.bin")
    message = refused(convert(*published(tmp_path / "wrong"), "--out", tmp_path / "adapter"))
    first, second = message.split(str(tmp_path / "wrong" / "IMR.bin"))
    assert first.startswith(f"{tmp_path / 'wrong' / 'SAA.bin'}: does not fit: 1 missing, 2 unexpected, 1 misshapen\n")
    assert "missing    SAA_module.1.to_k_ip.weight (16x64)" in first
    assert "unexpected SAA_module.99.to_k_ip.weight (2x3)" in first
    assert "unexpected epoch (int, not a tensor)" in first
    assert "misshapen  proj_module.norm.weight (7) instead of (64)" in first
    assert "1 missing, 0 unexpected, 1 misshapen" in second
    assert "missing    norm_in.bias (64)" in second
    assert "misshapen  proj_out.weight (64x64 int64) instead of (64x64)" in second
    assert not (tmp_path / "adapter").exists()


def test_files_in_the_wrong_place_are_recognised(conversions: Path, convert: Convert, tmp_path: Path) -> None:
    saa, imr, landmark_encoder = (conversions / "published" / name for name in FILES)
    swapped = ["from-published", "--saa", imr, "--imr", saa, "--landmark-encoder", landmark_encoder]
    assert "looks like IMR.bin; expected SAA.bin" in refused(convert(*swapped, "--out", tmp_path / "a"))
    half = ["from-published", "--saa", saa, "--imr", imr, "--out", tmp_path / "a"]
    assert "IMR without landmark encoder: give both" in refused(convert(*half))
    missing = ["from-published", "--saa", tmp_path / "none.bin", "--out", tmp_path / "a"]
    assert "none.bin: no such file" in refused(convert(*missing))


class Trap:
    """An object whose unpickling creates a file, as a hostile pickle might."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_a_pickle_is_never_executed(convert: Convert, tmp_path: Path) -> None:
    trap, sprung = tmp_path / "SAA.bin", tmp_path / "sprung"
    trap.write_bytes(pickle.dumps({"proj_module": Trap(sprung)}, protocol=2))
    message = refused(convert("from-published", "--saa", trap, "--out", tmp_path / "adapter"))
    assert "never executed" in message
    assert not sprung.exists()
    pickle.loads(trap.read_bytes())
    assert sprung.exists(), "the trap works if the pickle is trusted"


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", b"PK\x03\x04 and then nothing"])
def test_a_damaged_file_is_named(convert: Convert, tmp_path: Path, content: bytes) -> None:
    for name in ("SAA.bin", "SAA.safetensors"):
        (tmp_path / name).write_bytes(content)
        message = refused(convert("from-published", "--saa", tmp_path / name, "--out", tmp_path / "adapter"))
        assert f"{tmp_path / name}: not read" in message


def test_nothing_is_overwritten(conversions: Path, convert: Convert, tmp_path: Path) -> None:
    taken = tmp_path / "taken.safetensors"
    taken.write_text("mine", encoding="utf-8")
    for command in (
        [*published(conversions / "published"), "--out", taken],
        ["to-published", conversions / "adapter", "--out", taken],
        ["to-ip-adapter", conversions / "adapter", "--out", taken],
    ):
        assert "exists already" in refused(convert(*command))
    assert taken.read_text("utf-8") == "mine"
    assert [file.name for file in tmp_path.iterdir()] == ["taken.safetensors"]


def test_a_partial_adapter_is_not_exported(conversions: Path, convert: Convert, tmp_path: Path) -> None:
    tensors = load_file(conversions / "adapter" / "adapter.safetensors")
    tensors.pop("processors.0.to_q_lora.up.weight")
    (tmp_path / "adapter").mkdir()
    save_file(tensors, tmp_path / "adapter" / "adapter.safetensors")
    (tmp_path / "adapter" / "config.json").write_bytes((conversions / "adapter" / "config.json").read_bytes())
    for command, out in (("to-published", "out"), ("to-ip-adapter", "out.safetensors")):
        message = refused(convert(command, tmp_path / "adapter", "--out", tmp_path / out))
        assert "1 missing, 0 unexpected, 0 misshapen" in message
        assert "processors.0.to_q_lora.up.weight" in message
        assert not (tmp_path / out).exists()


def test_the_rest_file_is_checked_too(conversions: Path, convert: Convert, tmp_path: Path) -> None:
    assert convert("to-published", conversions / "adapter", "--out", tmp_path / "p").exit_code == 0
    rest = tmp_path / "p" / "rest.safetensors"
    alone = ["from-published", "--saa", tmp_path / "p" / "SAA.bin", "--rest", rest, "--out", tmp_path / "a"]
    assert "of an adapter with an IMR" in refused(convert(*alone))
    assert "give it alone" in refused(convert(*published(tmp_path / "p"), "--rest", rest, "--residual", "--out", "a"))
    with safe_open(rest, "pt") as opened:
        metadata = opened.metadata()
    save_file({"null_tokens": torch.zeros(1, 3, 64), "more": torch.zeros(1)}, rest, metadata)
    message = refused(convert(*published(tmp_path / "p"), "--rest", rest, "--out", tmp_path / "a"))
    assert "1 missing, 1 unexpected, 1 misshapen" in message
    save_file({"null_tokens": torch.zeros(1, 4, 64)}, rest)
    assert "metadata" in refused(convert(*published(tmp_path / "p"), "--rest", rest, "--out", tmp_path / "a"))


def test_the_ip_adapter_export_lists_what_is_lost(conversions: Path, convert: Convert, tmp_path: Path) -> None:
    result = convert("to-ip-adapter", conversions / "adapter", "--out", tmp_path / "ip.safetensors")
    lost = printed(result)["lost"]
    assert lost == ["gate", "imr", "lora", "null_tokens", "several_people"]
    with safe_open(tmp_path / "ip.safetensors", "pt") as opened:
        metadata = opened.metadata()
        keys = list(opened.keys())
    assert sorted(json.loads(metadata["lost"])) == lost
    for text in json.loads(metadata["lost"]).values():
        assert text in result.stderr
    numbers = sorted({int(key.split(".")[1]) for key in keys if key.startswith("ip_adapter.")})
    assert numbers == list(range(1, 2 * len(numbers), 2))
    assert all(key.startswith(("image_proj.", "ip_adapter.")) for key in keys)
    assert ".safetensors" in refused(convert("to-ip-adapter", conversions / "adapter", "--out", tmp_path / "ip.bin"))
    anchored = convert("to-ip-adapter", conversions / "anchored", "--out", tmp_path / "anchored.safetensors")
    assert "imr" not in printed(anchored)["lost"]
