"""The memory that anchoring takes on a GPU, on paper: counted from configurations, with no weights and no GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from model.network.adapter import Adapter
from model.network.identity_state import IdentityState
from model.network.methods import DYNAMICID, Method

# Tokens of a text.
_TEXT = 77
# Bytes of both moments of a weight: in float32, or in eight bits with a float32 scale for every 256.
STATE = {"adamw": 8.0, "adamw_8bit": 2 * (1 + 4 / 256)}


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of one step: those that do not depend on the number of pictures, and those of a picture.

    `base`: the frozen UNet; `weights`: parameters of the adapter that are trained. `kept` is what a picture keeps for
    the backward pass, `recomputed` the activations of the largest block, which gradient checkpointing computes again.
    """

    base: int
    weights: int
    copies: int
    kept: int
    recomputed: int

    def parts(self, batch: int, optimiser: str = "adamw") -> dict[str, int]:
        """Return the bytes of a step with `batch` pictures by what they are for."""
        return {
            "base": self.base,
            "adapter, its gradients and averages": 12 * self.weights,
            "optimiser": round(STATE[optimiser] * self.weights),
            "half-precision copies": self.copies,
            "activations": batch * (self.kept + self.recomputed),
        }


def training_memory(
    unet: Mapping[str, Any],
    image_width: int,
    sizes: Any,
    *,
    dtype: torch.dtype = torch.bfloat16,
    checkpointing: bool = True,
    method: Method = DYNAMICID,
) -> TrainingMemory:
    """Return the memory of anchoring on the UNet of a configuration (unet/config.json of a base).

    `image_width`: hidden size of the image encoder; `sizes` as in Adapter.create; `dtype`: that of the base, with mixed
    precision where it is half. Not counted: the networks that fill the caches, and what the GPU's libraries take.
    """
    from diffusers import UNet2DConditionModel
    from torch._subclasses.fake_tensor import FakeTensorMode

    config = {name: value for name, value in unet.items() if not name.startswith("_")}
    before = torch.get_default_dtype()
    with FakeTensorMode(allow_non_fake_inputs=True):
        try:
            torch.set_default_dtype(dtype)
            network = UNet2DConditionModel(**config).requires_grad_(False).train()
        finally:
            torch.set_default_dtype(before)
        base = sum(value.nbytes for value in network.parameters())
        adapter = Adapter(network, image_width, sizes, 0.3, method).train()
        adapter.attach(network)
        half = dtype != torch.float32
        one, two = (_kept(network, batch, checkpointing=checkpointing, half=half) for batch in (1, 2))
    processors = sum(value.numel() for value in adapter.processors.parameters())
    return TrainingMemory(
        base=base,
        weights=sum(value.numel() for value in adapter.parameters()),
        copies=2 * processors if half else 0,
        kept=two[0] - one[0],
        recomputed=two[1] - one[1],
    )


def _kept(unet: Any, batch: int, *, checkpointing: bool, half: bool) -> tuple[int, int]:
    """Return the bytes that a forward pass keeps, and those inside its largest checkpointed block."""
    outside, largest = _Kept(), 0

    def block(module: Any, *given: Any) -> Any:
        nonlocal largest
        inside = _Kept()
        for value in given:
            if isinstance(value, Tensor):
                outside.pack(value)
        with inside.hooks():
            found = module(*given)
        largest = max(largest, inside.bytes)
        return found

    if checkpointing:
        unet.enable_gradient_checkpointing(block)
    else:
        unet.disable_gradient_checkpointing()
    config, width = unet.config, unet.config.cross_attention_dim
    side, added = int(config.sample_size), None
    if config.addition_embed_type is not None:
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        added = {"text_embeds": torch.zeros(batch, pooled), "time_ids": torch.zeros(batch, 6)}
    tokens = torch.zeros(batch, 4, width, requires_grad=True)
    with outside.hooks(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=half), _NormsInFloat32(half):
        unet(
            torch.zeros(batch, int(config.in_channels), side, side, dtype=unet.dtype),
            torch.zeros(batch, dtype=torch.int64),
            torch.zeros(batch, _TEXT, width, dtype=unet.dtype),
            added_cond_kwargs=None if added is None else {name: one.to(unet.dtype) for name, one in added.items()},
            cross_attention_kwargs={"identity": IdentityState(tokens, height=side, width=side)},
        )
    return outside.bytes, largest


class _NormsInFloat32(TorchFunctionMode):
    """Normalise in float32, as autocast does on a GPU but not on a CPU: what is kept is larger there."""

    def __init__(self, wanted: bool) -> None:
        super().__init__()
        self._wanted = wanted

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        if self._wanted and function in (F.group_norm, F.layer_norm):
            arguments = [value.float() if isinstance(value, Tensor) else value for value in arguments]
        return function(*arguments, **(keywords or {}))


class _Kept:
    """Count the memory of tensors that are kept for a backward pass, each storage once and no weights."""

    def __init__(self) -> None:
        self._storages: dict[int, tuple[int, Tensor]] = {}

    @property
    def bytes(self) -> int:
        return sum(size for size, _ in self._storages.values())

    def pack(self, value: Tensor) -> Tensor:
        if not isinstance(value, nn.Parameter):
            storage = value.untyped_storage()
            # The tensor is held, so that no other one gets its address.
            self._storages[storage._cdata] = storage.nbytes(), value
        return value

    def hooks(self) -> Any:
        return torch.autograd.graph.saved_tensors_hooks(self.pack, lambda value: value)
