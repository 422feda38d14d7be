"""The methods whose adapters this project builds, trains and draws with, and what distinguishes them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """What the adapter of a method has; everything that depends on the method reads it here.

    - `gate`: the semantic gate limits the identity to the face. Without it, the identity acts everywhere (plain
      decoupled cross-attention).
    - `learned_null`: no identity is a learned set of tokens. Without, it is the face encoder's output for an embedding
      of zeros and a picture that is zero after normalisation, as published.
    - `image_states`: the face encoder also reads CLIP states of the reference, not the embedding alone.
    - `motion`: the stage train_imr adds an IMR, which follows face prompts.
    - `facial_parts`: pictures of facial parts are fused into the words of the text that name them.
    - `transformers`: it has layers for a transformer base (FLUX.1), not for UNets alone.
    """

    name: str
    source: str
    gate: bool = False
    learned_null: bool = False
    image_states: bool = True
    motion: bool = False
    facial_parts: bool = False
    transformers: bool = False


DYNAMICID = Method("dynamicid", "Hu et al., ICCV 2025", gate=True, learned_null=True, motion=True, transformers=True)
IP_ADAPTER_FACEID = Method("ip_adapter_faceid", "IP-Adapter-FaceID, h94 2023", image_states=False)
IP_ADAPTER_FACEID_PLUS = Method("ip_adapter_faceid_plus", "IP-Adapter-FaceID-Plus, h94 2023")
CONSISTENTID = Method("consistentid", "Huang et al., arXiv 2404.16771", facial_parts=True)
METHODS: dict[str, Method] = {
    method.name: method for method in (DYNAMICID, IP_ADAPTER_FACEID, IP_ADAPTER_FACEID_PLUS, CONSISTENTID)
}


def method_named(name: object, origin: object) -> Method:
    """Return the method `name`; raise ValueError, beginning with `origin`, for another name."""
    found = METHODS.get(name) if isinstance(name, str) else None
    if found is None:
        raise ValueError(f"{origin}: method {str(name)[:80]!r}; expected one of {', '.join(METHODS)}")
    return found
