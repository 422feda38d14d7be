"""Keys and sizes of published files, and the rule that pickles are never executed."""

from __future__ import annotations

import ast
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from model.checkpoints.published import AdapterShapes, Published, PublishedFiles, read_adapter, sizes_of
from model.checkpoints.published_files import CheckpointError, compare, read_tensors, to_adapter_keys, to_published_keys
from model.foundation.random_models import RandomModels
from model.network.adapter import Adapter
from model.network.base import Base, BaseReference
from model.network.methods import METHODS
from tests.random_bases import save_xl


def golden_keys(folder: Path, name: str, prefix: str) -> set[str]:
    with safe_open(folder / "golden" / f"{name}.safetensors", "pt") as opened:
        return {key.removeprefix(prefix) for key in opened.keys() if key.startswith(prefix)}  # noqa: SIM118


@pytest.mark.realdata
def test_the_key_names_are_the_published_ones(base: Base, make_adapter: Callable[..., Adapter], shared: Path) -> None:
    adapter = make_adapter(base)
    state = adapter.state_dict()
    saa = to_published_keys("saa", state)
    encoder = {key.removeprefix("proj_module.") for key in saa if key.startswith("proj_module.")}
    assert encoder == golden_keys(shared, "face_encoder", "weights.")
    kinds = {True: "semantic_activated_attention", False: "self_attention_lora"}
    for number, processor in enumerate(adapter.processors):
        prefix = f"SAA_module.{number}."
        own = {key.removeprefix(prefix) for key in saa if key.startswith(prefix)}
        assert own == golden_keys(shared, kinds[hasattr(processor, "to_k_ip")], "processor.")
    assert to_published_keys("landmark_encoder", state).keys() == golden_keys(shared, "landmark_encoder", "weights.")
    deep = {key for key in golden_keys(shared, "reconfigurator", "weights.") if "Net.1." not in key}
    assert to_published_keys("imr", state).keys() == deep
    back = {}
    for kind in ("saa", "imr", "landmark_encoder"):
        back |= to_adapter_keys(kind, to_published_keys(kind, state))
    assert state.keys() - back.keys() == {"null_tokens", "templates"}


def test_sizes_are_read_from_the_tensors(base: Base, random_models: RandomModels) -> None:
    given = Adapter(base.unet, 48, {}, 0.3).sizes
    sizes = {**given, "lora_rank": 6, "tokens": 2, "reconfigurator_width": 96, "reconfigurator_depth": 3}
    sizes |= {"landmark_features": 40, "landmark_width": 3}
    state = AdapterShapes(random_models.pipeline / "unet", 48, sizes, imr=True).build().state_dict()
    tensors = {kind: to_published_keys(kind, state) for kind in ("saa", "imr", "landmark_encoder")}
    published = Published(PublishedFiles(Path("SAA.bin"), Path("IMR.bin"), Path("landmarks.bin")), tensors)
    assert sizes_of(published, 64, given) == sizes
    tensors["saa"]["SAA_module.0.to_q_lora.down.weight"] = torch.zeros(5, 16)
    assert sizes_of(published, 64, given) == sizes, "one wrong tensor must not make all the others wrong"
    with pytest.raises(CheckpointError, match="width 96 with 7 heads"):
        sizes_of(published, 64, {**given, "reconfigurator_heads": 7})


def test_an_adapter_of_another_base_is_refused_key_by_key(
    base: Base, random_models: RandomModels, make_adapter: Callable[..., Adapter]
) -> None:
    narrow = AdapterShapes(random_models.pipeline / "unet", 32, make_adapter(base).sizes).build().state_dict()
    misfit = compare(make_adapter(base, imr=False).state_dict(), narrow)
    assert misfit.misshapen == ("face_encoder.perceiver_resampler.proj_in.weight (64x48) instead of (64x32)",)
    assert not misfit.missing
    assert not misfit.unexpected


def test_precision_may_differ_but_not_the_kind() -> None:
    expected = {"weight": torch.zeros(2), "count": torch.zeros((), dtype=torch.int64)}
    half = {"weight": torch.zeros(2, dtype=torch.bfloat16), "count": torch.tensor(7)}
    assert not compare(half, expected)
    swapped = {"weight": torch.zeros(2, dtype=torch.int8), "count": torch.tensor(7.0)}
    assert len(compare(swapped, expected).misshapen) == 2
    sparse = {"weight": torch.zeros(2).to_sparse(), "count": torch.tensor(7)}
    assert len(compare(sparse, expected).misshapen) == 1


def test_no_pickle_is_executed(project: Path) -> None:
    """Every torch.load has weights_only=True, and the pickle module is not used to load."""
    calls: Counter[str] = Counter()
    files = [
        file for folder in ("model", "pipelines", "dags", "benchmarks") for file in (project / folder).rglob("*.py")
    ]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            if name == "torch.load":
                calls[name] += 1
                options = {option.arg: ast.unparse(option.value) for option in node.keywords}
                assert options.get("weights_only") == "True", f"{file}:{node.lineno}"
            assert name not in ("pickle.load", "pickle.loads", "joblib.load"), f"{file}:{node.lineno}"
    assert calls["torch.load"]


def test_a_landmark_encoder_without_imr_is_refused() -> None:
    with pytest.raises(CheckpointError, match="landmark encoder without IMR"):
        PublishedFiles(Path("SAA.bin"), landmark_encoder=Path("landmarks.bin"))


def test_an_adapter_is_read_with_its_base_reference(
    base: Base, make_adapter: Callable[..., Adapter], tmp_path: Path
) -> None:
    adapter = make_adapter(base)
    adapter.save(tmp_path, BaseReference("sd", "clip", "1" * 64))
    unet = tmp_path / "unet"
    base.unet.save_config(unet)
    config, state = read_adapter(tmp_path, unet)
    assert config["base"] == {"pipeline": "sd", "image_encoder": "clip", "fingerprint": "1" * 64}
    assert list(state) == list(adapter.state_dict())


def test_compressed_tensors_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    """A few megabytes of zeros unpack to gigabytes; torch.save compresses nothing."""
    torch.save({"SAA_module": {"a": torch.zeros(1000)}}, tmp_path / "SAA.bin")
    assert read_tensors(tmp_path / "SAA.bin")
    with (
        zipfile.ZipFile(tmp_path / "SAA.bin") as plain,
        zipfile.ZipFile(tmp_path / "bomb.bin", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for member in plain.infolist():
            packed.writestr(member.filename, plain.read(member))
    with pytest.raises(CheckpointError, match=r"bomb\.bin: not read: its tensors are compressed"):
        read_tensors(tmp_path / "bomb.bin")


@pytest.mark.parametrize(
    ("kind", "method", "first"),
    [("saa", "dynamicid", "SAA_module.{}."), ("ip_adapter", "ip_adapter_faceid_plus", "ip_adapter.{}.")],
)
def test_layers_of_xl_are_numbered_as_its_processors_are(
    random_models: RandomModels, tmp_path: Path, kind: str, method: str, first: str
) -> None:
    folder = save_xl(tmp_path / "xl", random_models.pipeline) / "unet"
    adapter = AdapterShapes(folder, 48, {"lora_rank": 2}, method=METHODS[method]).build()
    state = adapter.state_dict()
    published = to_published_keys(kind, state)
    for number, processor in enumerate(adapter.processors):
        gated = first.format(number) + "to_k_ip.weight" in published
        assert gated == hasattr(processor, "to_k_ip"), number
    assert to_adapter_keys(kind, published).keys() == state.keys() - {"null_tokens"}
