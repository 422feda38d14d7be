"""Compare ConsistentID's modules with exact vectors of the published ones (absolute tolerance 1e-4, float32)."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers.models.attention_processor import Attention

from model.network.attention import IdentityState, SelfAttentionLoRA, SemanticActivatedAttention
from model.network.face_encoder import FaceEncoder
from model.network.facial_encoder import FacialEncoder
from tests.model.network.golden import Golden, golden_file

pytestmark = pytest.mark.realdata
FOLDER = "golden_consistentid"


def sizes(golden: Golden) -> dict[str, int]:
    return json.loads(golden.metadata["sizes"])


@golden_file("facial_encoder", FOLDER)
@torch.no_grad()
def test_facial_encoder(golden: Golden) -> None:
    """The text that is passed in stays as it is, where the published module overwrites it."""
    own = sizes(golden)
    encoder = FacialEncoder(own["prompt_dim"], own["clip_dim"], own["width"], own["depth"], own["head_dim"])
    golden.load_into(encoder)
    for case in json.loads(golden.metadata["cases"]):
        parts = golden[f"{case}.region_features"]
        vectors = encoder.visual_projection.encode(parts.flatten(0, 1)).unflatten(0, parts.shape[:2])
        golden.check(vectors, f"{case}.region_embeds")
        text, words, shown = (golden[f"{case}.{name}"] for name in ("prompt_embeds", "token_mask", "valid_mask"))
        before = text.clone()
        golden.check(encoder(text, parts, words, shown), f"{case}.out")
        assert torch.equal(text, before)


@golden_file("facial_encoder", FOLDER)
def test_numbers_of_words_and_parts_that_differ_are_refused(golden: Golden) -> None:
    own = sizes(golden)
    encoder = FacialEncoder(own["prompt_dim"], own["clip_dim"], own["width"], own["depth"], own["head_dim"])
    given = [golden[f"regions_3.{name}"] for name in ("prompt_embeds", "region_features", "token_mask", "valid_mask")]
    given[3] = ~given[3]
    with pytest.raises(ValueError, match=r"words of facial parts \[3\], pictures of parts \[2\]: not equal"):
        encoder(*given)


@pytest.mark.parametrize(
    "golden", [(FOLDER, "id_projection"), (FOLDER, "id_projection_two_heads")], indirect=True, ids=["one", "two heads"]
)
@torch.no_grad()
def test_id_projection_is_the_face_encoder(golden: Golden) -> None:
    own = sizes(golden)
    encoder = FaceEncoder(own["dim"], own["clip_dim"], own["tokens"], own["id_dim"], own["depth"])
    golden.load_into(encoder)
    states = golden["clip_features"]
    golden.check(encoder(golden["id_embeds"], states), "out")
    golden.check(encoder(golden["id_embeds"], states, 1.0), "out_shortcut_1")
    golden.check(encoder(golden["id_embeds"], states, 0.7), "out_shortcut_0.7")
    golden.check(encoder(torch.zeros_like(golden["id_embeds"]), states), "out_zero_id")
    embedding_only = FaceEncoder(own["dim"], own["clip_dim"], own["tokens"], own["id_dim"], depth=0)
    names = embedding_only.state_dict().keys()
    embedding_only.load_state_dict({name: golden[f"weights.{name}"].float() for name in names})
    golden.check(embedding_only(golden["id_embeds"], states), "id_tokens")


def attention(golden: Golden, *, crossing: bool) -> Attention:
    own = sizes(golden)
    layer = Attention(
        own["width"], own["encoder_dim"] if crossing else None, heads=own["heads"], dim_head=own["head_dim"]
    )
    golden.load_into(layer, "attn.")
    return layer


@golden_file("self_attention", FOLDER)
@torch.no_grad()
def test_self_attention(golden: Golden) -> None:
    layer, processor = attention(golden, crossing=False), SelfAttentionLoRA(sizes(golden)["width"], 4)
    golden.load_into(processor)
    for case in json.loads(golden.metadata["cases"]):
        state = IdentityState(torch.zeros(2, 4, 8), lora_scale=case["lora_scale"])
        golden.check(processor(layer, golden["hidden_states"], identity=state), case["key"])


@golden_file("cross_attention", FOLDER)
@torch.no_grad()
def test_cross_attention_without_a_gate(golden: Golden) -> None:
    """Whatever the state asks of a gate; α of a network is a factor of its LoRA."""
    own = sizes(golden)
    layer = attention(golden, crossing=True)
    processor = SemanticActivatedAttention(own["width"], own["encoder_dim"], own["rank"], own["id_tokens"], gated=False)
    golden.load_into(processor)
    text, tokens = golden["encoder_hidden_states"].split([own["text_tokens"], own["id_tokens"]], dim=1)
    for case in json.loads(golden.metadata["cases"]):
        lora = case["lora_scale"] * case.get("network_alpha", own["rank"]) / own["rank"]
        state = IdentityState(tokens, scale=case["scale"], lora_scale=lora)
        golden.check(processor(layer, golden["hidden_states"], text, identity=state), case["key"])
