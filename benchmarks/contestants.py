"""The timed contestants: plain UNet, diffusers' IP-Adapter, a literal implementation, and ours as in the pipeline."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.full_size_models import TEXT_LENGTH, TOKENS
from benchmarks.literal_attention import literal_processors
from model.network.attention import processor_for
from model.network.folding import FoldedLoRA
from model.network.identity_state import IdentityState

NAMES = ("plain", "ip_adapter", "literal", "ours")
# Width of the image embedding that diffusers' plain IP-Adapter projects to tokens.
_IMAGE_EMBEDDING = 1024


@dataclass(frozen=True)
class Workload:
    """The inputs of one denoising step for a batch of pictures; with guidance, one picture is a batch of two."""

    latents: Tensor
    text: Tensor
    tokens: Tensor
    image_embedding: Tensor
    timestep: int = 601

    @classmethod
    def make(
        cls, resolution: int, batch: int, width: int, device: torch.device, dtype: torch.dtype, *, channels: int = 4
    ) -> Workload:
        """Return seeded inputs for a UNet of cross-attention width `width`; the latent's side is `resolution` / 8."""
        rng = torch.Generator().manual_seed(1)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=rng).to(device, dtype)

        side = resolution // 8
        return cls(
            normal(batch, channels, side, side),
            normal(batch, TEXT_LENGTH, width),
            normal(batch, TOKENS, width),
            normal(batch, _IMAGE_EMBEDDING),
        )


@dataclass(frozen=True)
class Contestant:
    """`step()` predicts the noise once with one UNet; `added_bytes` is the size of weights beyond the plain UNet's."""

    name: str
    step: Callable[[], Tensor]
    added_bytes: int


def build_adapter(unet: Any, *, rank: int = 128, seed: int = 0) -> nn.ModuleList:
    """Return frozen SAA and LoRA processors for `unet`, with LoRA weights that are not zero, as after training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        processors = nn.ModuleList(
            processor_for(unet.get_submodule(name.removesuffix(".processor")), rank, TOKENS, 0.3)
            for name in unet.attn_processors
        )
        for name, weight in processors.named_parameters():
            if ".up." in name:
                nn.init.normal_(weight, std=0.02)
    return processors.to(unet.device, unet.dtype).eval().requires_grad_(False)


def contestant(name: str, unet: Any, processors: nn.ModuleList, work: Workload) -> Contestant:
    """Return contestant `name` on `unet`, which it changes: give each contestant a copy (see `twin`)."""
    makers = {"plain": _plain, "ip_adapter": _ip_adapter, "literal": _literal, "ours": _ours}
    if name not in makers:
        raise ValueError(f"contestant {name!r}: expected one of {', '.join(NAMES)}")
    step, added = makers[name](unet, processors, work)
    return Contestant(name, step, added)


def twin(unet: Any, *, own_attention: bool = False) -> Any:
    """Return a copy of `unet` that shares its weights, so that four contestants need the memory of one.

    With `own_attention` the attention layers, into which LoRA is folded, have copied weights.
    """
    own = {
        id(weight)
        for name in (unet.attn_processors if own_attention else ())
        for weight in unet.get_submodule(name.removesuffix(".processor")).parameters()
    }
    tensors = (*unet.parameters(), *unet.buffers())
    return copy.deepcopy(unet, {id(tensor): tensor for tensor in tensors if id(tensor) not in own})


def _call(unet: Any, work: Workload, text: Tensor | None = None, **keywords: Any) -> Tensor:
    text = work.text if text is None else text
    return unet(work.latents, work.timestep, text, return_dict=False, **keywords)[0]


def _plain(unet: Any, processors: nn.ModuleList, work: Workload) -> tuple[Callable[[], Tensor], int]:
    return lambda: _call(unet, work), 0


def _literal(unet: Any, processors: nn.ModuleList, work: Workload) -> tuple[Callable[[], Tensor], int]:
    unet.set_attn_processor(dict(zip(unet.attn_processors, literal_processors(processors), strict=True)))
    return lambda: _call(unet, work, cross_attention_kwargs={"tokens": work.tokens}), _bytes(processors)


def _ip_adapter(unet: Any, processors: nn.ModuleList, work: Workload) -> tuple[Callable[[], Tensor], int]:
    width = work.tokens.shape[-1]
    rng = torch.Generator().manual_seed(2)
    image_proj = {
        "proj.weight": torch.randn(TOKENS * width, _IMAGE_EMBEDDING, generator=rng) * 0.02,
        "proj.bias": torch.zeros(TOKENS * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    ip_adapter = {
        f"{index}.{part}.weight": getattr(own, part).weight
        for index, own in enumerate(processors)
        for part in ("to_k_ip", "to_v_ip")
        if hasattr(own, part)
    }
    unet._load_ip_adapter_weights([{"image_proj": image_proj, "ip_adapter": ip_adapter}], low_cpu_mem_usage=False)
    unet.eval().requires_grad_(False)
    conditions = {"image_embeds": [work.image_embedding[:, None]]}
    return lambda: _call(unet, work, added_cond_kwargs=conditions), sum(
        tensor.numel() * tensor.element_size() for tensor in (*image_proj.values(), *ip_adapter.values())
    )


def _ours(unet: Any, processors: nn.ModuleList, work: Workload) -> tuple[Callable[[], Tensor], int]:
    layers = [unet.get_submodule(name.removesuffix(".processor")) for name in unet.attn_processors]
    unet.set_attn_processor(dict(zip(unet.attn_processors, processors, strict=True)))
    folded = FoldedLoRA(layers, processors)
    height, width = work.latents.shape[-2:]
    # As in the pipeline, one state serves all steps of a picture; the first step computes what they share.
    state = IdentityState(work.tokens, height=height, width=width, cache={})

    def step() -> Tensor:
        # Keep `folded` alive, as the adapter does, so that its weights for unfolding count as memory.
        assert folded.scale == 1
        return _call(unet, work, cross_attention_kwargs={"identity": state})

    return step, _bytes(processors)


def _bytes(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in module.parameters())
