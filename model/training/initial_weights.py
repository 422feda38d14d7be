"""Begin anchoring with the weights of another adapter of the same method."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from model.network.adapter import Adapter


def initialise_from(adapter: Adapter, other: Adapter, origin: Path) -> None:
    """Set all that this stage trains to the weights of `other`; raise ValueError, naming `origin`, if sizes differ.

    If this LoRA has the higher rank, it keeps the other's directions, and the added ones have no effect at first.
    """
    rank = adapter.sizes["lora_rank"]
    found, wanted = (
        {"method": one.method.name, **one.sizes, "image_width": one.image_width, "width": one.width}
        for one in (other, adapter)
    )
    if other.sizes["lora_rank"] <= rank:
        found["lora_rank"] = rank
    differing = [
        f"{name} {found.get(name)}, here {value}" for name, value in wanted.items() if found.get(name) != value
    ]
    if differing:
        raise ValueError(
            f"{origin}: this adapter has another method or sizes ({'; '.join(differing)}); "
            "start from scratch, or use the same"
        )
    adapter.face_encoder.load_state_dict(other.face_encoder.state_dict())
    adapter.processors.load_state_dict(
        {name: _widened(name, weight, rank) for name, weight in other.processors.state_dict().items()}
    )
    if adapter.facial_encoder is not None and other.facial_encoder is not None:
        adapter.facial_encoder.load_state_dict(other.facial_encoder.state_dict())
    adapter.null_tokens.data.copy_(other.null_tokens.data)


def _widened(name: str, weight: Tensor, rank: int) -> Tensor:
    """Return `weight`, widened to `rank` if it belongs to a LoRA.

    Rows added to `down` (rank, inputs) are random, on the scale of a new LoRA of the old rank, so that new directions
    learn as fast as the old ones did; columns added to `up` (outputs, rank) are zeros.
    """
    down = "_lora.down." in name
    if not down and "_lora.up." not in name:
        return weight
    present = weight.shape[0 if down else 1]
    if down:
        return torch.cat([weight, torch.randn(max(rank - present, 0), weight.shape[1]) / present])
    return torch.cat([weight, weight.new_zeros(weight.shape[0], max(rank - present, 0))], dim=1)
