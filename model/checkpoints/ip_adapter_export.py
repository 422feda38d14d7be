"""Export an adapter's identity branch in diffusers' IP-Adapter layout, for use without this project.

The keys are those of IP-Adapter-FaceID-Plus: `image_proj.` is the face encoder, `ip_adapter.<odd number>.` are k' and
v' of one cross-attention each. `LOST` lists the parts of an adapter that this layout does not have.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from model.checkpoints.published_files import CheckpointError
from model.network.methods import DYNAMICID

# diffusers always builds this projection with four tokens and four layers.
_TOKENS = 4
_ENCODER = "face_encoder."
LOST: dict[str, str] = {
    "gate": "the semantic gate: the identity is added everywhere in the picture, as with the gate off",
    "lora": "LoRA of q, k, v, out: the base model attends as it did before training",
    "null_tokens": "the learned tokens of no identity: use zeros or another choice for the unconditional half",
    "several_people": "boxes, masks, boost and λ per person: several people share one softmax",
    "imr": "IMR, landmark encoder and templates: no face prompts, a reference keeps its expression and pose",
}


def ip_adapter_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return an adapter's face encoder and k', v' under IP-Adapter keys; cross-attentions are numbered 1, 3, 5, …

    `state` is complete, as returned by `published.read_adapter`. Raise CheckpointError if the face encoder has another
    number of tokens or layers than diffusers builds.
    """
    width = len(state[f"{_ENCODER}norm.weight"])
    tokens = len(state[f"{_ENCODER}proj.2.weight"]) // width
    layers = {key.split(".")[3] for key in state if key.startswith(f"{_ENCODER}perceiver_resampler.layers.")}
    if tokens != _TOKENS or len(layers) != _TOKENS:
        raise CheckpointError(
            f"a face encoder of {tokens} tokens and {len(layers)} layers: diffusers' IP-Adapter has {_TOKENS} of each"
        )
    exported = {
        f"image_proj.{key.removeprefix(_ENCODER)}": x.contiguous()
        for key, x in state.items()
        if key.startswith(_ENCODER)
    }
    crossing = sorted(int(key.split(".")[1]) for key in state if key.endswith(".to_k_ip.weight"))
    for count, number in enumerate(crossing):
        for name in ("to_k_ip", "to_v_ip"):
            key = f"{name}.weight"
            exported[f"ip_adapter.{2 * count + 1}.{key}"] = state[f"processors.{number}.{key}"].contiguous()
    return exported


def write_ip_adapter(config: Mapping[str, Any], state: Mapping[str, Tensor], file: Path) -> dict[str, str]:
    """Write the export to `file` (.safetensors) with the lost parts in its metadata; return the lost parts."""
    from safetensors.torch import save_file

    if (method := config.get("method", DYNAMICID.name)) != DYNAMICID.name:
        raise CheckpointError(f"an adapter of {method}: `to-published` writes the layout of its own published files")
    lost = {name: text for name, text in LOST.items() if name != "imr" or config["reconfigurator"] is not None}
    metadata = {
        "format": "pt",
        "layout": "IP-Adapter-FaceID-Plus (diffusers load_ip_adapter)",
        "converted_from": "dynamicid adapter",
        "lost": json.dumps(lost, ensure_ascii=False),
        "base_fingerprint": str(config["base"]["fingerprint"]),
    }
    save_file(ip_adapter_state(state), file, metadata)
    return lost
