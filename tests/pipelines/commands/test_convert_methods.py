"""`dynamicid convert` with the files of other methods: exact in both directions, and refused where they do not fit."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model.face.face import Face
from model.inference.pipeline import DynamicIDPipeline
from model.network.adapter import Adapter
from model.network.base import load_base
from model.network.methods import METHODS
from tests.pipelines.commands.conversions import (
    SIZES,
    Convert,
    load,
    printed,
    refused,
    same_bits,
)

PARTS = {"parts_width": 64, "parts_depth": 2}
LAYOUTS = {
    "ip_adapter_faceid": ("--ip-adapter", {"image_proj": "face_encoder.", "ip_adapter": "processors."}),
    "ip_adapter_faceid_plus": ("--ip-adapter", {"image_proj": "face_encoder.", "ip_adapter": "processors."}),
    "consistentid": (
        "--consistentid",
        {"image_proj": "face_encoder.", "adapter_modules": "processors.", "FacialEncoder": "facial_encoder."},
    ),
}


@pytest.fixture(scope="module")
def others(conversions: Path) -> Path:
    """A published file of each other method, named as the method, written without the code under test."""
    base = load_base(conversions / "base" / "sd", conversions / "base" / "image_encoder")
    for name, (_, parts) in LAYOUTS.items():
        torch.manual_seed(1)
        state = Adapter.create(base.unet, base.image_encoder, SIZES | PARTS, method=METHODS[name]).state_dict()
        content = {
            theirs: {key.removeprefix(ours): x.clone() for key, x in state.items() if key.startswith(ours)}
            for theirs, ours in parts.items()
        }
        torch.save(content, conversions / f"{name}.bin")
    return conversions


@pytest.mark.parametrize("name", LAYOUTS)
def test_files_of_other_methods_come_back_bit_for_bit(
    others: Path, convert: Convert, tmp_path: Path, name: str
) -> None:
    """The sizes of the parameters are others than those of the files."""
    option, parts = LAYOUTS[name]
    found = printed(convert("from-published", option, others / f"{name}.bin", "--out", tmp_path / "adapter"))
    assert found["method"] == name
    assert found["sizes"]["lora_rank"] == 4
    assert {key: found["sizes"].get(key) for key in PARTS} == (
        PARTS if name == "consistentid" else dict.fromkeys(PARTS)
    )
    assert found["conventions"]["crop"] == ("photo" if name == "consistentid" else "aligned")
    config = json.loads((tmp_path / "adapter/config.json").read_text("utf-8"))
    assert (config["format"], config["method"]) == (3, name)
    assert config.get("plain_steps") == (1 if name == "consistentid" else None)
    result = convert("to-published", tmp_path / "adapter", "--out", tmp_path / "back")
    file, rest = printed(result)["files"]
    written = load(tmp_path / "back" / file)
    assert written.keys() == parts.keys()
    assert same_bits(load(others / f"{name}.bin"), written)
    again = ["from-published", option, tmp_path / "back" / file, "--rest", tmp_path / "back" / rest]
    assert convert(*again, "--out", tmp_path / "again").exit_code == 0
    for one in ("adapter.safetensors", "config.json"):
        assert (tmp_path / "again" / one).read_bytes() == (tmp_path / "adapter" / one).read_bytes()


def test_null_tokens_of_other_methods_are_those_of_no_face(others: Path, convert: Convert, tmp_path: Path) -> None:
    """With the shortcut of FaceID-Plus V2, which no tensor shows and the configuration keeps."""
    plus = ["from-published", "--ip-adapter", others / "ip_adapter_faceid_plus.bin"]
    assert printed(convert(*plus, "--shortcut", "1", "--out", tmp_path / "v2"))["method"] == "ip_adapter_faceid_plus"
    assert convert(*plus, "--out", tmp_path / "v1").exit_code == 0
    base = load_base(others / "base" / "sd", others / "base" / "image_encoder")
    empty = base.image_encoder(torch.zeros(1, 3, 64, 64), output_hidden_states=True).hidden_states[-2]
    embeddings, states, tokens = torch.randn(2, 512), torch.randn(2, 17, 48), []
    for folder, shortcut in (("v1", None), ("v2", 1.0)):
        adapter = Adapter.load(tmp_path / folder, base.unet)
        assert not any(getattr(processor, "gated", False) for processor in adapter.processors)
        expected = adapter.face_encoder(torch.zeros(1, 512), empty, shortcut)
        torch.testing.assert_close(adapter.null_tokens, expected, atol=1e-6, rtol=0)
        tokens.append(adapter.identity_tokens(embeddings, states))
        assert torch.equal(tokens[-1], adapter.face_encoder(embeddings, states, shortcut))
    assert not torch.allclose(*tokens)
    result = convert("to-published", tmp_path / "v2", "--out", tmp_path / "back")
    assert "needs the shortcut 1 of the face encoder" in result.stderr


def test_what_was_consistentids_draws_in_its_way(others: Path, convert: Convert, tmp_path: Path) -> None:
    """Facial parts of the whole photo, after a first step without them or as many as the option says."""
    own = ["from-published", "--consistentid", others / "consistentid.bin"]
    drawn = {}
    for name, more in {
        "default": (),
        "demo": ("--plain-steps", "2"),
        "ours": ("--set", "conventions.like=ours"),
    }.items():
        assert convert(*own, *more, "--out", tmp_path / name).exit_code == 0
        pipe = DynamicIDPipeline.from_folders(
            others / "base" / "sd", others / "base" / "image_encoder", tmp_path / name, allow_other_base=True
        )
        pipe.set_progress_bar_config(disable=True)
        assert pipe.adapter.plain_steps == {"default": 1, "demo": 2, "ours": None}[name]
        shape = np.random.default_rng(1).uniform(0.2, 0.8, (68, 2)).astype(np.float32)
        photo = np.random.default_rng(2).integers(0, 255, (64, 64, 3), np.uint8)
        face = Face(np.eye(1, 512, dtype=np.float32)[0], photo, shape)
        arguments = {"num_inference_steps": 3, "guidance_scale": 5.0, "output_type": "latent"}
        latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
        drawn[name] = pipe("a photo", faces=[face], latents=latents, **arguments).images
    assert all(torch.isfinite(one).all() for one in drawn.values())
    assert not any(torch.allclose(one, other) for one, other in combinations(drawn.values(), 2))
    assert convert("to-published", tmp_path / "demo", "--out", tmp_path / "back").exit_code == 0
    assert same_bits(load(others / "consistentid.bin"), load(tmp_path / "back/ConsistentID-v1.bin"))


def test_consistentids_other_name_of_the_projection_is_read(others: Path, convert: Convert, tmp_path: Path) -> None:
    content = load(others / "consistentid.bin")
    content["image_proj_model"] = content.pop("image_proj")
    torch.save(content, tmp_path / "other.bin")
    for file, out in ((others / "consistentid.bin", "one"), (tmp_path / "other.bin", "other")):
        assert convert("from-published", "--consistentid", file, "--out", tmp_path / out).exit_code == 0
    one, other = (load_file(tmp_path / out / "adapter.safetensors") for out in ("one", "other"))
    assert same_bits(one, other)


def test_files_and_options_of_two_methods_are_refused(others: Path, convert: Convert, tmp_path: Path) -> None:
    saa, plus, parts = (
        others / name for name in ("published/SAA.bin", "ip_adapter_faceid_plus.bin", "consistentid.bin")
    )
    out = ["--out", tmp_path / "adapter"]
    assert "the files of one method" in refused(convert("from-published", "--saa", saa, "--ip-adapter", plus, *out))
    assert "the files of one method" in refused(convert("from-published", *out))
    assert "looks like ConsistentID-v1.bin; expected ip-adapter" in refused(
        convert("from-published", "--ip-adapter", parts, *out)
    )
    assert "--residual: not a value of consistentid" in refused(
        convert("from-published", "--consistentid", parts, "--residual", *out)
    )
    assert "--plain-steps: not a value of ip_adapter_faceid_plus" in refused(
        convert("from-published", "--ip-adapter", plus, "--plain-steps", "1", *out)
    )
    assert "--shortcut: not a value of dynamicid" in refused(
        convert("from-published", "--saa", saa, "--shortcut", "1", *out)
    )
    assert not (tmp_path / "adapter").exists()


def test_a_method_that_is_not_known_is_refused(others: Path, convert: Convert, tmp_path: Path) -> None:
    plus = ["from-published", "--ip-adapter", others / "ip_adapter_faceid_plus.bin"]
    assert convert(*plus, "--out", tmp_path / "adapter").exit_code == 0
    file = tmp_path / "adapter/config.json"
    file.write_text(file.read_text("utf-8").replace("ip_adapter_faceid_plus", "photomaker"), encoding="utf-8")
    message = refused(convert("to-published", tmp_path / "adapter", "--out", tmp_path / "back"))
    assert "method 'photomaker'; expected one of dynamicid, ip_adapter_faceid" in message
