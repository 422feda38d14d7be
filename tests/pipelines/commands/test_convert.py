"""`dynamicid convert`: conversions are exact in both directions; unsuitable files are refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from model.foundation.random_models import save_random_models
from model.network.adapter import Adapter
from model.network.base import load_base
from model.network.methods import METHODS
from model.network.templates import build_bank
from pipelines.cli import app
from pipelines.core.errors import UserError
from pipelines.core.weights.licences import networks_of_adapter

SIZES = {
    "lora_rank": 4,
    "reconfigurator_width": 64,
    "reconfigurator_heads": 4,
    "landmark_features": 32,
    "landmark_width": 2,
}
FILES = ("SAA.bin", "IMR.bin", "key_point_encoder.bin")
Convert = Callable[..., Result]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, project: Path) -> Path:
    """Random base models, an adapter with and one without IMR, and published files of the first.

    The sizes in the parameters differ from those of the files: sizes must be read from the shapes of the tensors.
    """
    home = tmp_path_factory.mktemp("home")
    models = save_random_models(home / "base")
    base = load_base(models.pipeline, models.image_encoder)
    torch.manual_seed(0)
    adapter = Adapter.create(base.unet, base.image_encoder, SIZES, 0.25)
    reference = base.reference(str(models.pipeline), str(models.image_encoder))
    adapter.save(home / "anchored", reference)
    adapter.add_reconfigurator(residual=True)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    shapes = np.random.default_rng(0).uniform(0.2, 0.8, (2, 68, 2))
    adapter.templates = torch.from_numpy(build_bank(shapes, ["neutral", "happy"], ["front", "front"]))
    adapter.save(home / "adapter", reference)
    write_published(adapter.state_dict(), home / "published")
    tree = yaml.safe_load((project / "profiles" / "tiny.yaml").read_text("utf-8"))
    tree["base"] |= {"pipeline": str(models.pipeline), "image_encoder": str(models.image_encoder)}
    tree["train_anchoring"]["sizes"] |= {"lora_rank": 64, "reconfigurator_heads": 4, "landmark_width": 8}
    (home / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return home


def write_published(state: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write published files without the code under test: one weight is NaN, the landmark encoder in half precision."""
    folder.mkdir()

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {key.removeprefix(prefix): x.clone() for key, x in state.items() if key.startswith(prefix)}

    encoder = part("face_encoder.")
    encoder["norm.bias"][0] = float("nan")
    torch.save({"proj_module": encoder, "SAA_module": part("processors.")}, folder / "SAA.bin")
    torch.save(part("reconfigurator."), folder / "IMR.bin")
    half = {key: x.half() if x.is_floating_point() else x for key, x in part("landmark_encoder.").items()}
    torch.save(half, folder / "key_point_encoder.bin")


@pytest.fixture
def convert(home: Path) -> Convert:
    def run(*arguments: str | Path) -> Result:
        command = ["convert", *map(str, arguments), "--params", str(home / "params.yaml")]
        return CliRunner().invoke(app, command)

    return run


def published(folder: Path) -> list[str | Path]:
    saa, imr, landmark_encoder = (folder / name for name in FILES)
    return ["from-published", "--saa", saa, "--imr", imr, "--landmark-encoder", landmark_encoder]


def printed(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(result: Result) -> str:
    assert isinstance(result.exception, UserError), result.output
    return str(result.exception)


def same_bits(one: Any, other: Any) -> bool:
    """Return whether two nested dicts hold the same keys and bitwise equal tensors of the same dtype (also NaN)."""
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same_bits(one[key], other[key]) for key in one)
    same_kind = one.dtype == other.dtype and one.shape == other.shape
    return same_kind and one.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes()


def load(file: Path) -> Any:
    return torch.load(file, weights_only=True)


def test_published_files_come_back_bit_for_bit(home: Path, convert: Convert, tmp_path: Path) -> None:
    result = convert(*published(home / "published"), "--out", tmp_path / "adapter")
    assert printed(result)["sizes"] == {"tokens": 4, "reconfigurator_depth": 1, **SIZES}
    assert "it draws by conventions of its own" in result.stderr
    result = convert("to-published", tmp_path / "adapter", "--out", tmp_path / "back")
    assert result.exit_code == 0, result.output
    assert "residual" not in result.stderr
    for name in FILES:
        assert same_bits(load(home / "published" / name), load(tmp_path / "back" / name)), name
    assert load(tmp_path / "back" / FILES[2])["blocks.0.0.conv_block.0.weight"].dtype == torch.float16


def test_a_converted_adapter_records_the_networks_that_it_came_from(
    home: Path, convert: Convert, tmp_path: Path
) -> None:
    assert convert(*published(home / "published"), "--out", tmp_path / "adapter").exit_code == 0
    found = networks_of_adapter(tmp_path / "adapter")
    assert found is not None
    given = {one["parameter"]: (one["path"], one["licence"]) for one in found}
    assert set(given) == {"base.pipeline", "base.image_encoder", "--saa", "--imr", "--landmark-encoder"}
    assert given["--saa"] == (str(home / "published" / FILES[0]), None)


@pytest.mark.parametrize("name", ["adapter", "anchored"])
def test_an_adapter_folder_comes_back_with_the_same_bytes(
    home: Path, convert: Convert, tmp_path: Path, name: str
) -> None:
    result = convert("to-published", home / name, "--out", tmp_path / "published")
    imr = name == "adapter"
    assert printed(result)["files"] == [*FILES[: 3 if imr else 1], "rest.safetensors"]
    assert ("adds to the source's tokens" in result.stderr) is imr
    given = published(tmp_path / "published")[: 7 if imr else 3]
    result = convert(*given, "--rest", tmp_path / "published" / "rest.safetensors", "--out", tmp_path / "again")
    assert result.exit_code == 0, result.output
    for file in ("adapter.safetensors", "config.json"):
        assert (tmp_path / "again" / file).read_bytes() == (home / name / file).read_bytes()


def test_the_converted_adapter_computes_what_the_original_computes(
    home: Path, convert: Convert, tmp_path: Path
) -> None:
    """Without a rest file, τ and base come from the parameters, and null tokens are those of the published code."""
    write_published(load_file(home / "adapter" / "adapter.safetensors"), tmp_path / "published")
    saa = load(tmp_path / "published" / "SAA.bin")
    saa["proj_module"]["norm.bias"][0] = 0.0
    torch.save(saa, tmp_path / "published" / "SAA.bin")
    options = ["--templates-of", home / "adapter", "--residual", "--out", tmp_path / "adapter"]
    result = convert(*published(tmp_path / "published"), *options)
    assert result.exit_code == 0, result.output
    assert "templates" not in result.stderr
    base = load_base(home / "base" / "sd", home / "base" / "image_encoder")
    original = Adapter.load(home / "adapter", base.unet)
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


def test_every_key_that_does_not_fit_is_listed(home: Path, convert: Convert, tmp_path: Path) -> None:
    """All files are checked before the error is raised, and nothing is written."""
    write_published(load_file(home / "adapter" / "adapter.safetensors"), tmp_path / "wrong")
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


def test_files_in_the_wrong_place_are_recognised(home: Path, convert: Convert, tmp_path: Path) -> None:
    saa, imr, landmark_encoder = (home / "published" / name for name in FILES)
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


def test_nothing_is_overwritten(home: Path, convert: Convert, tmp_path: Path) -> None:
    taken = tmp_path / "taken.safetensors"
    taken.write_text("mine", encoding="utf-8")
    for command in (
        [*published(home / "published"), "--out", taken],
        ["to-published", home / "adapter", "--out", taken],
        ["to-ip-adapter", home / "adapter", "--out", taken],
    ):
        assert "exists already" in refused(convert(*command))
    assert taken.read_text("utf-8") == "mine"
    assert [file.name for file in tmp_path.iterdir()] == ["taken.safetensors"]


def test_a_partial_adapter_is_not_exported(home: Path, convert: Convert, tmp_path: Path) -> None:
    tensors = load_file(home / "adapter" / "adapter.safetensors")
    tensors.pop("processors.0.to_q_lora.up.weight")
    (tmp_path / "adapter").mkdir()
    save_file(tensors, tmp_path / "adapter" / "adapter.safetensors")
    (tmp_path / "adapter" / "config.json").write_bytes((home / "adapter" / "config.json").read_bytes())
    for command, out in (("to-published", "out"), ("to-ip-adapter", "out.safetensors")):
        message = refused(convert(command, tmp_path / "adapter", "--out", tmp_path / out))
        assert "1 missing, 0 unexpected, 0 misshapen" in message
        assert "processors.0.to_q_lora.up.weight" in message
        assert not (tmp_path / out).exists()


def test_the_rest_file_is_checked_too(home: Path, convert: Convert, tmp_path: Path) -> None:
    assert convert("to-published", home / "adapter", "--out", tmp_path / "p").exit_code == 0
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


def test_the_ip_adapter_export_lists_what_is_lost(home: Path, convert: Convert, tmp_path: Path) -> None:
    result = convert("to-ip-adapter", home / "adapter", "--out", tmp_path / "ip.safetensors")
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
    assert ".safetensors" in refused(convert("to-ip-adapter", home / "adapter", "--out", tmp_path / "ip.bin"))
    anchored = convert("to-ip-adapter", home / "anchored", "--out", tmp_path / "anchored.safetensors")
    assert "imr" not in printed(anchored)["lost"]


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
def others(home: Path) -> Path:
    """A published file of each other method, named as the method, written without the code under test."""
    base = load_base(home / "base" / "sd", home / "base" / "image_encoder")
    for name, (_, parts) in LAYOUTS.items():
        torch.manual_seed(1)
        state = Adapter.create(base.unet, base.image_encoder, SIZES | PARTS, method=METHODS[name]).state_dict()
        content = {
            theirs: {key.removeprefix(ours): x.clone() for key, x in state.items() if key.startswith(ours)}
            for theirs, ours in parts.items()
        }
        torch.save(content, home / f"{name}.bin")
    return home


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
