"""The families of denoisers that an adapter extends, and what it needs to know of each.

A UNet (Stable Diffusion 1.x, 2.x, XL) has cross-attentions to the text; a Flux transformer has joint attentions of text
and picture. FLUX.2 is not among them: its single-stream blocks compute q, k, v and feed-forward in one layer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import FluxTransformer2DModel, UNet2DConditionModel

from model.network.attention import processor_for
from model.network.joint_attention import joint_processor_for
from model.network.lora import LoRAAttention
from model.network.methods import METHODS, Method

UNET, TRANSFORMER = UNet2DConditionModel.__name__, FluxTransformer2DModel.__name__
KINDS = (UNET, TRANSFORMER)


def kind_of(denoiser: Any) -> str:
    """Return the name of a denoiser's class, one of KINDS; raise ValueError for another one."""
    model = getattr(denoiser, "_orig_mod", denoiser)
    for kind in (UNet2DConditionModel, FluxTransformer2DModel):
        if isinstance(model, kind):
            return kind.__name__
    raise ValueError(
        f"base model {type(model).__name__}: expected a {UNET} (Stable Diffusion 1.x, 2.x or XL) or a {TRANSFORMER} "
        "(FLUX.1)"
    )


def origin_of(denoiser: Any) -> str:
    """Return the folder of the pipeline that a denoiser was loaded from, or its class where it was not."""
    folder = str(getattr(denoiser, "_orig_mod", denoiser).config.get("_name_or_path") or "")
    return str(Path(folder).parent) if folder else type(denoiser).__name__


def identity_width(denoiser: Any) -> int:
    """Return the width D of the identity tokens of a denoiser; raise ValueError where it is not one number.

    It is that of the pooled text, which the IMR reads: in a UNet, that of the text states of its cross-attentions, too.
    """
    if kind_of(denoiser) == TRANSFORMER:
        return int(denoiser.config.pooled_projection_dim)
    width = denoiser.config.cross_attention_dim
    if not isinstance(width, int):
        raise ValueError(f"cross-attention widths {width}: expected one for the whole UNet")
    return width


def attention_layers(denoiser: Any) -> dict[str, Any]:
    """Return the attention layers by name, in the order of `attn_processors`."""
    names = [name.removesuffix(".processor") for name in denoiser.attn_processors]
    return {name: denoiser.get_submodule(name) for name in names}


def new_processor(
    denoiser: Any, layer: Any, method: Method, *, rank: int, tokens: int, threshold: float
) -> LoRAAttention:
    """Return an untrained processor of a method for an attention layer of a denoiser."""
    if kind_of(denoiser) == TRANSFORMER:
        return joint_processor_for(layer, identity_width(denoiser), rank, tokens, threshold)
    return processor_for(layer, rank, tokens, threshold, gated=method.gate)


def plain_processor(layer: Any) -> Any:
    """Return a processor with which an attention layer behaves as diffusers builds it."""
    from diffusers.models.attention_processor import AttnProcessor2_0

    return (getattr(layer, "_default_processor_cls", None) or AttnProcessor2_0)()


def check_method(method: Method, kind: str) -> None:
    """Raise ValueError, naming both, for a method that has no layers for denoisers of a kind."""
    if kind == TRANSFORMER and not method.transformers:
        able = ", ".join(one.name for one in METHODS.values() if one.transformers)
        raise ValueError(
            f"the method {method.name} has no layers for a {kind}: give a base of Stable Diffusion, or one of the "
            f"methods that have them ({able})"
        )
