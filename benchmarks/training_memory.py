"""The GPU memory of anchoring on paper, at the sizes of Stable Diffusion 1.5 and XL: no GPU and no weights are needed.

    python benchmarks/training_memory.py
    python benchmarks/training_memory.py --rank 32
    python benchmarks/training_memory.py --measure    # a small UNet of XL's kind on this CPU, against its paper

Parts of a step in GiB, in bfloat16, and the number of pictures that fit a step on cards of 24, 40 and 80 GiB, by
optimiser and gradient checkpointing. Counted are weights, gradients, averages, the optimiser's state, half-precision
copies and kept activations (model/training/memory.py), the networks that fill the caches, and 1 GiB for the libraries.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.full_size_models import TEXT, UNET, VAE, VISION, XL_TEXT, XL_UNET

GIB, CARDS = 2**30, (24, 40, 80)
BASES: dict[str, tuple[dict[str, Any], tuple[dict[str, Any], ...], bool]] = {
    "sd15": (UNET, (TEXT,), False),
    "sdxl": (XL_UNET, (TEXT, XL_TEXT), True),
}


def others(texts: tuple[dict[str, Any], ...], *, upcast: bool) -> int:
    """Return the bytes of autoencoder, text encoders and image encoder in half precision; `upcast`: the first not."""
    import torch
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    with torch.device("meta"):
        vae = AutoencoderKL(**VAE)
        networks = [*(CLIPTextModel(CLIPTextConfig(**one)) for one in texts)]
        networks.append(CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION)))
    counts = [sum(value.numel() for value in network.parameters()) for network in (vae, *networks)]
    return counts[0] * (4 if upcast else 2) + 2 * sum(counts[1:])


def report(rank: int) -> dict[str, Any]:
    from model.training.memory import STATE, training_memory

    found: dict[str, Any] = {}
    for name, (unet, texts, upcast) in BASES.items():
        beside = others(texts, upcast=upcast) + GIB
        rows: list[dict[str, Any]] = []
        for checkpointing in (True, False):
            memory = training_memory(unet, VISION["hidden_size"], {"lora_rank": rank}, checkpointing=checkpointing)
            for optimiser in STATE:
                parts = memory.parts(1, optimiser)
                each = parts["activations"]
                fixed = sum(parts.values()) - each + beside
                fits = {card: max(0, (card * GIB - fixed) // each) for card in CARDS}
                rows.append({"checkpointing": checkpointing, "optimiser": optimiser, "fits": fits})
                rows[-1]["gib"] = {part: round(size / GIB, 2) for part, size in parts.items()}
        found[name] = {"rank": rank, "weights": memory.weights, "other_gib": round(beside / GIB, 2), "rows": rows}
    return found


# XL's kind, at a fifth of its width.
SMALL_UNET = {**XL_UNET, "sample_size": 32, "block_out_channels": (64, 128, 256), "attention_head_dim": (1, 2, 4)}
SMALL_UNET |= {"cross_attention_dim": 256, "transformer_layers_per_block": (1, 2, 4)}
SMALL_UNET |= {"addition_time_embed_dim": 32, "projection_class_embeddings_input_dim": 256 + 6 * 32}


def measured(rank: int) -> dict[str, Any]:
    """Train the adapter of a small UNet for one step; return peak bytes by checkpointing, and of the optimiser."""
    import torch
    from bitsandbytes.optim import AdamW8bit

    from benchmarks.full_size_models import random_unet
    from model.network.adapter import Adapter
    from model.network.identity_state import IdentityState
    from model.training.memory import training_memory

    found: dict[str, Any] = {}
    for checkpointing in (False, True):
        unet = random_unet(SMALL_UNET).train()
        adapter = Adapter(unet, VISION["hidden_size"], {"lora_rank": rank}, 0.3).train()
        adapter.attach(unet)
        (unet.enable_gradient_checkpointing if checkpointing else unet.disable_gradient_checkpointing)()
        added = {"text_embeds": torch.randn(4, 256), "time_ids": torch.zeros(4, 6)}
        state = IdentityState(torch.randn(4, 4, 256, requires_grad=True), height=32, width=32)
        with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            out = unet(
                torch.randn(4, 4, 32, 32),
                torch.zeros(4, dtype=torch.int64),
                torch.randn(4, 77, 256),
                added_cond_kwargs=added,
                cross_attention_kwargs={"identity": state},
                return_dict=False,
            )[0]
            out.square().mean().backward()
        live = peak = 0
        for event in profile.profiler.kineto_results.events():
            if event.name() == "[memory]":
                live += event.nbytes()
                peak = max(peak, live)
        paper = training_memory(
            SMALL_UNET, 1280, {"lora_rank": rank}, dtype=torch.float32, checkpointing=checkpointing
        ).parts(4)
        # Gradients are made in the backward pass, too.
        gradients = sum(value.grad.nbytes for value in adapter.parameters() if value.grad is not None)
        found[f"checkpointing {checkpointing}"] = {
            "peak_mb": round(peak / 1e6, 1),
            "of_it_gradients_mb": round(gradients / 1e6, 1),
            "on_paper_activations_mb": round(paper["activations"] / 1e6, 1),
        }
    trained = [value for value in adapter.parameters() if value.grad is not None]
    for kind in (torch.optim.AdamW, AdamW8bit):
        optimiser = kind(trained, lr=1e-4)
        optimiser.step()
        tensors = [one for state in optimiser.state.values() for one in state.values() if isinstance(one, torch.Tensor)]
        bytes_ = sum({one.data_ptr(): one.nbytes for one in tensors}.values())
        found[kind.__name__] = round(bytes_ / sum(value.numel() for value in trained), 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rank", type=int, default=128, help="rank of the LoRA")
    parser.add_argument("--measure", action="store_true", help="measure a small UNet on this CPU")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(options.rank), indent=1))
        return
    found = report(options.rank)
    for name, one in found.items():
        print(f"{name}: {one['weights'] / 1e6:.0f} million trained weights, {one['other_gib']} GiB beside the step")
        for row in one["rows"]:
            fits = ", ".join(f"{card} GiB: {count}" for card, count in row["fits"].items())
            print(f"  checkpointing {row['checkpointing']}, {row['optimiser']}: {row['gib']}; pictures by card: {fits}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
