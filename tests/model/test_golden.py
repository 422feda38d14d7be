"""The method's modules against exact vectors of the published ones (tolerance 1e-4 absolute, float32)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers.models.attention_processor import Attention
from safetensors import safe_open

from model.attention import IdentityState, SelfAttentionLoRA, SemanticActivatedAttention
from model.face_encoder import FaceEncoder
from model.landmark_encoder import LandmarkEncoder
from model.reconfigurator import Reconfigurator

pytestmark = pytest.mark.realdata
TOLERANCE = 1e-4


class Golden:
    def __init__(self, file: Path) -> None:
        with safe_open(file, "pt") as opened:
            self.metadata = opened.metadata() or {}
            self.tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.tensors[name]

    def load(self, module: torch.nn.Module, prefix: str = "weights.") -> None:
        state = {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}
        module.load_state_dict({name: x.float() if x.is_floating_point() else x for name, x in state.items()})
        module.eval()


@pytest.fixture
def golden(shared: Path, request: pytest.FixtureRequest) -> Golden:
    return Golden(shared / "golden" / f"{request.param}.safetensors")


def check(found: torch.Tensor, expected: torch.Tensor, name: str) -> None:
    error = float((found - expected).abs().max())
    print(f"{name}: largest error {error:.1e}")
    assert error <= TOLERANCE


@pytest.mark.parametrize("golden", ["face_encoder"], indirect=True)
@torch.no_grad()
def test_face_encoder(golden: Golden) -> None:
    encoder = FaceEncoder(128, 48, tokens=4, embedding=32, depth=4)
    golden.load(encoder)
    check(encoder(golden["id_embeds"], golden["clip_embeds"]), golden["tokens"], "face_encoder")
    shortcut = encoder(golden["id_embeds"], golden["clip_embeds"], shortcut=0.7)
    check(shortcut, golden["tokens_shortcut"], "face_encoder, shortcut")


@pytest.mark.parametrize("golden", ["landmark_encoder"], indirect=True)
@torch.no_grad()
def test_landmark_encoder(golden: Golden) -> None:
    encoder = LandmarkEncoder(48)
    golden.load(encoder)
    check(encoder(golden["landmark_image"]), golden["feature"], "landmark_encoder")


@pytest.mark.parametrize("golden", ["reconfigurator"], indirect=True)
@torch.no_grad()
def test_reconfigurator(golden: Golden) -> None:
    imr = Reconfigurator(48, 72, width=64, heads=4, depth=2, latents=4, residual=False)
    golden.load(imr)
    names = ("source_tokens", "source_landmark", "source_text", "target_landmark", "target_text")
    check(imr(*(golden[name] for name in names)), golden["predicted_tokens"], "reconfigurator")


@pytest.mark.parametrize("golden", ["self_attention_lora"], indirect=True)
@torch.no_grad()
def test_self_attention(golden: Golden) -> None:
    attention = Attention(32, heads=4, dim_head=8)
    golden.load(attention, "attn.")
    processor = SelfAttentionLoRA(32, 4)
    golden.load(processor, "processor.")
    attention.set_processor(processor)
    state = IdentityState(torch.zeros(2, 4, 24))
    check(attention(golden["hidden_states"], identity=state), golden["out"], "self_attention_lora")


@pytest.mark.parametrize("golden", ["semantic_activated_attention"], indirect=True)
@pytest.mark.parametrize("cached", [False, True])
@torch.no_grad()
def test_semantic_activated_attention(golden: Golden, cached: bool) -> None:
    attention = Attention(32, cross_attention_dim=24, heads=4, dim_head=8)
    golden.load(attention, "attn.")
    processor = SemanticActivatedAttention(32, 24, 4, tokens=4)
    golden.load(processor, "processor.")
    attention.set_processor(processor)
    cases = json.loads(golden.metadata["cases"])
    assert cases
    for name, case in cases.items():
        wide = case["width_height"] is not None
        width, height = case["width_height"] or (None, None)
        state = IdentityState(
            golden["id_one" if case["ids"] == 1 else "id_two"],
            boxes=case["bbox"],
            gate=case["gate"],
            threshold=0.3,
            scale=case["id_scale"],
            boost=case["boost"],
            boost_steps=case["boost_steps"],
            step=case["step"],
            height=height,
            width=width,
            cache={} if cached else None,
        )
        hidden = golden["hidden_states_wide" if wide else "hidden_states"]
        for _ in range(2):
            found = attention(hidden, encoder_hidden_states=golden["text"], identity=state)
            check(found, golden[f"out.{name}"], f"semantic_activated_attention, {name}")
