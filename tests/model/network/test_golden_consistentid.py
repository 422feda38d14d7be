"""Compare ConsistentID's modules with exact vectors of the published ones (absolute tolerance 1e-4, float32)."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers.models.attention_processor import Attention

from model.inference.part_fusion import PartFusion
from model.network.attention import IdentityState, SelfAttentionLoRA, SemanticActivatedAttention
from model.network.face_encoder import FaceEncoder
from model.network.facial_encoder import FacialEncoder
from model.training.localisation import localisation_loss
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
        parts, text = golden[f"{case}.region_features"], golden[f"{case}.prompt_embeds"]
        golden.check(encoder.encode(parts), f"{case}.region_embeds")
        before = text.clone()
        places = places_of(golden[f"{case}.token_mask"], golden[f"{case}.valid_mask"])
        golden.check(encoder(text, parts, places), f"{case}.out")
        assert torch.equal(text, before)


def places_of(words: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """Return the token of each region, as published code pairs them: the first marked one with the first region."""
    places = torch.full(shown.shape, -1)
    places[shown] = words.nonzero()[:, 1]
    return places


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


@pytest.mark.parametrize(
    "golden", [(FOLDER, "localisation_loss"), (FOLDER, "training_objective")], indirect=True, ids=["loss", "objective"]
)
def test_localisation_loss(golden: Golden) -> None:
    """Maps of the published form, with positions as keys, and of ours; in the objective with its weight."""
    cases = json.loads(golden.metadata.get("cases", "[]")) or [
        {"key": "unmasked.facial_loss", "maps": "maps", "layers": ["down", "mid"], "masks": "masks", "valid": "valid"}
    ]
    for case in cases:
        places = golden["token_index"][:, None, None]
        maps = [
            (whole := golden[f"{case['maps']}.{layer}"].unflatten(0, (-1, sizes(golden)["heads"])))
            .gather(-1, places.expand(-1, *whole.shape[1:3], -1))
            .requires_grad_()
            for layer in case["layers"]
        ]
        masks, shown = golden[case["masks"]].float(), golden[case["valid"]]
        loss = localisation_loss(maps, masks, shown, normalised=case.get("normalise", True))
        golden.check(loss.detach() * float(golden.metadata.get("facial_weight", 1)), case["key"])
        name = f"gradient.{case['key'].removeprefix('loss.').replace('cross.', 'cross.down.', 1)}"
        if name in golden.tensors:
            localisation_loss(maps[:1], masks, shown).backward()
            whole = golden[name].unflatten(0, (-1, sizes(golden)["heads"]))
            expected = whole.gather(-1, places.expand(-1, *whole.shape[1:3], -1))
            assert maps[0].grad is not None
            torch.testing.assert_close(maps[0].grad, expected, atol=1e-6, rtol=1e-4)


def test_a_region_that_is_everything_has_no_outside() -> None:
    maps = [torch.rand(1, 2, 16, 2)]
    found = localisation_loss(maps, torch.ones(1, 2, 32, 32), torch.ones(1, 2, dtype=torch.bool))
    highest = maps[0] / (maps[0].amax(dim=2, keepdim=True) + 1e-5)
    torch.testing.assert_close(found, -highest.mean(), atol=1e-5, rtol=0)


@golden_file("inference_states", FOLDER)
def test_the_text_of_every_denoising_step(golden: Golden) -> None:
    """Published: plain text up to the merge step, and the empty picture in the negative text of all steps."""
    words = golden["text_plain"].shape[1]

    def fuse(text: torch.Tensor, parts: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        return golden["fused_positive" if parts.any() else "fused_negative"]

    torch.testing.assert_close(golden["text_plain"], golden["text_with_positions"], atol=1e-5, rtol=0)
    for run in json.loads(golden.metadata["runs"]):
        parts = torch.ones(1, 5, 64)
        plain = run["start_merge_step"] + 1
        fusion = PartFusion(fuse, parts, torch.zeros(1, 5), plain_steps=plain, empty=torch.zeros_like(parts))
        prompted, negative = fusion.texts(golden["text_plain"], golden["text_negative"])
        assert negative is not None
        states = torch.cat([negative, prompted])
        for done, phase in enumerate(run["states"], 1):
            expected = golden[f"states_{phase}_merge"][:, :words]
            torch.testing.assert_close(states, expected, atol=1e-5, rtol=0, msg=f"{run}, step {done}")
            states = fusion.after(done, states)
