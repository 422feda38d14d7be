"""What happens after every denoising step of a call with people in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from model.inference.gate_maps import GateMaps
from model.inference.part_fusion import PartFusion
from model.network.identity_state import IdentityState


def advancing(
    state: IdentityState, maps: GateMaps | None, callback: Callable[..., Any] | None, fusion: PartFusion | None
) -> Callable[..., Any]:
    """Return a step callback that calls the caller's, counts the steps, folds gate maps and fuses facial parts."""

    def advance(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        guided = pipe.do_classifier_free_guidance
        out = tensors if callback is None else callback(pipe, step, timestep, tensors)
        # Schedulers of higher order evaluate the UNet several times in one step.
        state.step = (step + 1) // getattr(pipe.scheduler, "order", 1)
        if fusion is not None and fusion.waits:
            out["prompt_embeds"] = fusion.after(state.step, out.get("prompt_embeds", tensors["prompt_embeds"]))
        if maps is not None:
            maps.fold()
        if guided and not pipe.do_classifier_free_guidance:
            state.conditional_half()
            if maps is not None:
                maps.guided = False
        return out

    return advance
