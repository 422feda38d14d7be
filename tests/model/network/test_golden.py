"""Compare the modules with exact vectors of the published ones (absolute tolerance 1e-4, float32).

`pytest tests/model/network/test_golden.py --golden DIR` uses the vectors of another folder of the same format. Sizes
are read from the shapes of the tensors; the number of attention heads, which no shape has, is read from the metadata
(`heads`) and is four without it. The largest error of every file is printed at the end.
"""

from __future__ import annotations

import json

import pytest
import torch
from diffusers.models.attention_processor import Attention

from model.network.attention import IdentityState, SelfAttentionLoRA, SemanticActivatedAttention
from model.network.face_encoder import FaceEncoder
from model.network.folding import FoldedLoRA
from model.network.landmark_encoder import LandmarkEncoder
from model.network.lora import LoRAAttention
from model.network.reconfigurator import Reconfigurator
from tests.model.network.golden import TOLERANCE, Golden, golden_file

pytestmark = pytest.mark.realdata
TOKENS = 4


@golden_file("face_encoder")
@torch.no_grad()
def test_face_encoder(golden: Golden) -> None:
    width = golden.size("weights.norm.weight")
    encoder = FaceEncoder(
        width,
        golden.size("clip_embeds", -1),
        tokens=golden.size("tokens", 1),
        embedding=golden.size("id_embeds", -1),
        depth=golden.count("weights.perceiver_resampler.layers."),
    )
    golden.load_into(encoder)
    golden.check(encoder(golden["id_embeds"], golden["clip_embeds"]), "tokens")
    golden.check(encoder(golden["id_embeds"], golden["clip_embeds"], shortcut=0.7), "tokens_shortcut")


@golden_file("landmark_encoder")
@torch.no_grad()
def test_landmark_encoder(golden: Golden) -> None:
    encoder = LandmarkEncoder(golden.size("feature", -1), golden.size("weights.blocks.0.0.conv_block.0.weight"))
    golden.load_into(encoder)
    assert set(golden["landmark_image"].unique().tolist()) == {-1.0, 1.0}
    golden.check(encoder(golden["landmark_image"]), "feature")


@golden_file("reconfigurator")
@torch.no_grad()
def test_reconfigurator(golden: Golden) -> None:
    """Published checkpoints have no residual."""
    width = golden.size("weights.proj_in.weight")
    depth = golden.count("weights.disentangleNet.")
    assert depth == golden.count("weights.entangleNet.")
    imr = Reconfigurator(
        golden.size("source_tokens", -1),
        golden.size("source_landmark", -1) + golden.size("source_text", -1),
        width=width,
        heads=golden.heads,
        depth=depth,
        latents=golden.size("weights.feature_fusion.4.weight") // width,
        residual=False,
    )
    golden.load_into(imr)
    names = ("source_tokens", "source_landmark", "source_text", "target_landmark", "target_text")
    inputs = [golden[name] for name in names]
    golden.check(imr(*inputs), "predicted_tokens")
    for number, expected in enumerate(golden["predicted_tokens"]):
        alone = imr(*inputs[:3], *(targets[number : number + 1] for targets in inputs[3:]))
        assert float((alone[0] - expected).abs().max()) <= TOLERANCE, "a target alone gives the same as in a batch"


def attention_of(golden: Golden, processor: LoRAAttention) -> Attention:
    """Return the base layer and `processor` with their weights of the file."""
    hidden, context = golden["attn.to_k.weight"].shape
    crossing = isinstance(processor, SemanticActivatedAttention)
    attention = Attention(
        hidden, cross_attention_dim=context if crossing else None, heads=golden.heads, dim_head=hidden // golden.heads
    )
    golden.load_into(attention, "attn.")
    golden.load_into(processor, "processor.")
    attention.set_processor(processor)
    return attention


MODES = pytest.mark.parametrize("mode", ["plain", "cached", "folded"])


@MODES
@golden_file("self_attention_lora")
@torch.no_grad()
def test_self_attention(golden: Golden, mode: str) -> None:
    hidden = golden.size("attn.to_q.weight")
    processor = SelfAttentionLoRA(hidden, golden.size("processor.to_q_lora.down.weight"))
    attention = attention_of(golden, processor)
    if mode == "folded":
        FoldedLoRA([attention], [processor])
    state = IdentityState(torch.zeros(len(golden["hidden_states"]), TOKENS, 24), cache=None if mode == "plain" else {})
    golden.check(attention(golden["hidden_states"], identity=state), "out", mode)


@MODES
@golden_file("semantic_activated_attention")
@torch.no_grad()
def test_semantic_activated_attention(golden: Golden, mode: str) -> None:
    """Check every case twice with one state, since a second denoising step uses cached keys and values."""
    hidden, context = golden["processor.to_k_ip.weight"].shape
    processor = SemanticActivatedAttention(
        hidden, context, golden.size("processor.to_q_lora.down.weight"), tokens=TOKENS
    )
    attention = attention_of(golden, processor)
    if mode == "folded":
        FoldedLoRA([attention], [processor])
    cases = json.loads(golden.metadata["cases"])
    assert {f"out.{name}" for name in cases} == {name for name in golden.tensors if name.startswith("out.")}
    for name, case in cases.items():
        wide = case["width_height"] is not None
        width, height = case["width_height"] or (None, None)
        (tokens,) = (
            value
            for key, value in golden.tensors.items()
            if key.startswith("id_") and value.shape[1] == TOKENS * case["ids"]
        )
        state = IdentityState(
            tokens,
            boxes=case["bbox"],
            gate=case["gate"],
            scale=case["id_scale"],
            boost=case["boost"],
            boost_steps=case["boost_steps"],
            step=case["step"],
            height=height,
            width=width,
            cache=None if mode == "plain" else {},
        )
        states = golden["hidden_states_wide" if wide else "hidden_states"]
        for _ in range(2):
            found = attention(states, encoder_hidden_states=golden["text"], identity=state)
            golden.check(found, f"out.{name}", mode)
