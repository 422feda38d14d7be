"""All trained networks of a method as one module and one folder, with a reference to the base model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.face.conventions import OURS, Conventions
from model.face.face_parts import PARTS
from model.face.face_prompts import EXPRESSIONS, POSES
from model.formats import KEY
from model.network.adapter_config import (
    CONFIG,
    WEIGHTS,
    check_config,
    check_weights,
    conventions_in,
    denoiser_in,
    method_in,
    read_config,
    sizes_for,
    stated_conventions,
    stated_denoiser,
    stated_method,
    write_config,
)
from model.network.base import BaseReference
from model.network.denoisers import (
    attention_layers,
    check_method,
    identity_width,
    kind_of,
    new_processor,
    origin_of,
    plain_processor,
)
from model.network.face_encoder import FaceEncoder
from model.network.facial_encoder import FacialEncoder
from model.network.folding import FoldedLoRA
from model.network.landmark_encoder import LandmarkEncoder
from model.network.methods import DYNAMICID, Method
from model.network.quantisation import dequantise
from model.network.reconfigurator import Reconfigurator

EMBEDDING = 512


class Adapter(nn.Module):
    """Face encoder, attention processors and, once they are trained, IMR, landmark encoder and landmark templates.

    `face_encoder`; `null_tokens` (1, tokens, D), tokens that stand for no identity; `processors` in the order of
    `unet.attn_processors`; `facial_encoder`, None in methods without facial parts; `reconfigurator`, `landmark_encoder`
    and `templates` (7, 5, 68, 2), which are None before the reconfiguration stage. Parameters are in float32 unless
    moved; everything in `state_dict()` is saved. `made_by` (JSON) is what the training that made the adapter recorded
    about itself, None where nothing did; `conventions` say how its inputs are prepared. `shortcut`: as in FaceEncoder.
    `plain_steps`: None where texts carry the facial parts in every denoising step, as in training here; else the number
    of first steps without them, after which published code also fuses empty pictures into the negative text.
    """

    templates: Tensor | None

    def __init__(
        self, unet: Any, image_width: int, sizes: Any, gate_threshold: float, method: Method = DYNAMICID
    ) -> None:
        super().__init__()
        self.denoiser = kind_of(unet)
        check_method(method, self.denoiser)
        self.method = method
        self.shortcut: float | None = None
        self.plain_steps: int | None = None
        self.sizes = sizes_for(method, sizes)
        self.gate_threshold = float(gate_threshold)
        self.image_width = int(image_width)
        self.width = identity_width(unet)
        self.base_reference: BaseReference | None = None
        self.made_by: Mapping[str, Any] | None = None
        self.conventions: Conventions = OURS
        self._replaced: dict[str, Any] = {}
        self._folded: FoldedLoRA | None = None
        tokens = self.sizes["tokens"]
        depth = 4 if method.image_states else 0
        self.face_encoder = FaceEncoder(self.width, self.image_width, tokens, EMBEDDING, depth)
        # Not zero: with zero tokens the gate would be 0 everywhere and have no gradient.
        self.null_tokens = nn.Parameter(torch.randn(1, tokens, self.width) * 0.02)
        self.processors = nn.ModuleList(
            new_processor(
                unet, layer, method, rank=self.sizes["lora_rank"], tokens=tokens, threshold=self.gate_threshold
            )
            for layer in attention_layers(unet).values()
        )
        self.facial_encoder: FacialEncoder | None = None
        if method.facial_parts:
            parts = self.sizes["parts_width"], self.sizes["parts_depth"]
            self.facial_encoder = FacialEncoder(self.width, self.image_width, *parts)
        self.reconfigurator: Reconfigurator | None = None
        self.landmark_encoder: LandmarkEncoder | None = None
        self.register_buffer("templates", None)

    @classmethod
    def create(
        cls, unet: Any, image_encoder: Any, sizes: Any, gate_threshold: float = 0.3, method: Method = DYNAMICID
    ) -> Adapter:
        """Return an untrained adapter of a method for `unet`.

        LoRA is zero, and `k'`, `v'` are copies of the text's k, v in `unet`. `image_encoder` is the CLIP vision model,
        of which only the width is read. `sizes` is an object or mapping with any of the names in `SIZES`; a missing
        size has the value given there.
        """
        return cls(unet, image_encoder.config.hidden_size, sizes, gate_threshold, method)

    def add_reconfigurator(self, *, residual: bool = True) -> None:
        """Add an untrained IMR and landmark encoder; with `residual` the IMR predicts a change, initially zero.

        Raise ValueError for a method that has none.
        """
        if not self.method.motion:
            raise ValueError(f"an adapter of {self.method.name} has no IMR: a reference keeps its expression and pose")
        sizes, device = self.sizes, self.null_tokens.device
        self.reconfigurator = Reconfigurator(
            self.width,
            sizes["landmark_features"] + self.width,
            width=sizes["reconfigurator_width"],
            heads=sizes["reconfigurator_heads"],
            depth=sizes["reconfigurator_depth"],
            residual=residual,
        ).to(device)
        self.landmark_encoder = LandmarkEncoder(sizes["landmark_features"], sizes["landmark_width"]).to(device)

    def check_trained_with(self, *, hair: bool, origin: object) -> None:
        """Raise ValueError unless a training here can go on with this adapter: it prepares inputs as OURS says."""
        expected = OURS.with_values({"hair": hair})
        differing = self.conventions.other_than(expected)
        if set(differing) == {"hair"}:
            raise ValueError(f"{origin}: trained with base.hair={str(not hair).lower()}; set that, or train it anew")
        if differing:
            raise ValueError(
                f"{origin}: its conventions are other ones ({', '.join(differing)}): crops and landmarks of the "
                "training would not be those that it knows; expected an adapter with this project's conventions"
            )

    def attach(self, unet: Any) -> None:
        """Set the processors of `unet`; without an identity state it still behaves like the base model.

        The processors become modules of `unet`. Freeze `unet` before: freezing it later also freezes the adapter.
        """
        layers = attention_layers(unet)
        if (kind := kind_of(unet)) != self.denoiser:
            raise ValueError(f"an adapter for a {self.denoiser}, and a {kind}: give a base of the same family")
        if len(layers) != len(self.processors):
            raise ValueError(
                f"adapter with {len(self.processors)} processors for a {kind} with {len(layers)} attentions"
            )
        current = unet.attn_processors
        ours = {id(processor) for processor in self.processors}
        if not any(id(processor) in ours for processor in current.values()):
            self._replaced = current
        for layer, processor in zip(layers.values(), self.processors, strict=True):
            layer.set_processor(processor)

    def check_attached(self, unet: Any) -> None:
        """Raise ValueError where attentions of `unet` have other processors than these, which know no identity."""
        layers = attention_layers(getattr(unet, "_orig_mod", unet))
        pairs = zip(layers.values(), self.processors, strict=True)
        others = [type(layer.processor).__name__ for layer, own in pairs if layer.processor is not own]
        if others:
            raise ValueError(
                f"{len(others)} of {len(layers)} attentions have a {others[0]} in place of the adapter's processor, "
                "and would draw nobody; attention slicing, xFormers, fused projections, IP-Adapters of diffusers put "
                "it there: leave them out (no attention here holds a matrix of all cells), and load the adapter again"
            )

    def detach(self, unet: Any) -> None:
        """Restore the processors that `unet` had before `attach`, and the weights of `unet` if LoRA was folded."""
        self.unfold()
        for name, layer in attention_layers(unet).items():
            layer.set_processor(self._replaced.get(f"{name}.processor") or plain_processor(layer))
        self._replaced = {}

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.null_tokens.device

    @property
    def takes_face_prompts(self) -> bool:
        """Whether it can change expression and pose: it has an IMR, and the templates that its conventions ask for."""
        source = self.conventions.target_landmarks == "source"
        return self.reconfigurator is not None and (source or self.templates is not None)

    @property
    def tokens_per_person(self) -> int:
        """Identity tokens of a person and, behind them, one vector for each facial part where the method has these."""
        return self.sizes["tokens"] + (len(PARTS) if self.method.facial_parts else 0)

    @property
    def folded(self) -> float:
        """The scale at which LoRA is folded into the weights of the UNet; 0 if LoRA is not folded."""
        return 0.0 if self._folded is None else self._folded.scale

    def encoders_to(self, device: torch.device) -> None:
        """Move the networks that compute identity tokens to `device`; the processors stay with the UNet."""
        for part in (self.face_encoder, self.facial_encoder, self.reconfigurator, self.landmark_encoder):
            if part is not None:
                part.to(device)
        self.null_tokens.data = self.null_tokens.data.to(device)

    def _apply(self, fn: Any, recurse: bool = True) -> Adapter:
        templates = self.templates
        super()._apply(fn, recurse)
        if templates is not None:
            # Landmarks are data: half precision would move points by 0.2 pixels.
            self.templates = templates.to(self.null_tokens.device)
        return self

    def fold(self, unet: Any, scale: float = 1.0) -> None:
        """Add LoRA to the weights of `unet`, so that LoRA costs no time at inference.

        Calls with another LoRA scale, or without LoRA, still work (see folding.FoldedLoRA). Raise ValueError if the
        adapter is not attached to `unet`, or is in training mode.
        """
        layers = attention_layers(unet)
        if [layer.processor for layer in layers.values()] != list(self.processors):
            raise ValueError("LoRA can be folded only into the UNet to which the adapter is attached: attach it first")
        if self.training:
            raise ValueError("an adapter in training mode cannot be folded: its LoRA would be fixed; call eval()")
        self.unfold()
        self._folded = FoldedLoRA(layers.values(), self.processors, scale) if scale else None

    def unfold(self) -> None:
        """Restore the weights of the UNet, bit for bit."""
        if self._folded is not None:
            self._folded.undo()
        self._folded = None

    def train(self, mode: bool = True) -> Adapter:
        """Set training or eval mode; raise ValueError for training while LoRA is folded."""
        if mode and getattr(self, "_folded", None) is not None:
            raise ValueError("LoRA is folded into the UNet: unfold() before training")
        return super().train(mode)

    def identity_tokens(self, embeddings: Tensor, clip_states: Tensor) -> Tensor:
        """Return identity tokens (B, tokens, D) from unit embeddings (B, 512) and CLIP states of crops (B, T, W)."""
        like = self.null_tokens
        return self.face_encoder(embeddings.to(like), clip_states.to(like), self.shortcut)

    def part_vectors(self, states: Tensor) -> Tensor:
        """Return a vector for each facial part (B, R, D) from CLIP states (B, R, T, W) of their pictures."""
        assert self.facial_encoder is not None
        return self.facial_encoder.encode(states.to(self.null_tokens))

    @torch.no_grad()
    def encode_null_tokens(self, empty: Tensor | None) -> None:
        """Set the null tokens to those of no face; `empty` (1, T, W): CLIP states of no picture, if they are read.

        A method that learns its null tokens keeps them.
        """
        if not self.method.learned_null:
            nobody = self.null_tokens.new_zeros(1, EMBEDDING)
            self.null_tokens.copy_(self.identity_tokens(nobody, nobody if empty is None else empty))

    def reconfigure(
        self,
        tokens: Tensor,
        source_landmarks: Tensor,
        source_text: Tensor,
        target_landmarks: Tensor,
        target_text: Tensor,
    ) -> Tensor:
        """Return the tokens of the same people with other expressions and poses, (T, tokens, D).

        `tokens` (B, tokens, D); landmark pictures (B, 1, 96, 96) and (T, 1, 96, 96) in {-1, 1}; pooled text of the face
        prompts (B, D) and (T, D). T is a multiple of B: the first T / B targets belong to the first source, and so on.
        """
        if self.reconfigurator is None or self.landmark_encoder is None:
            raise ValueError("this adapter has no IMR yet: the stage train_imr adds it")
        like = self.null_tokens
        # Sources and targets in one batch: batch normalisation cannot train on a single source.
        features = self.landmark_encoder(torch.cat([source_landmarks, target_landmarks]).to(like))
        source, target = features.split([len(source_landmarks), len(target_landmarks)])
        return self.reconfigurator(tokens.to(like), source, source_text.to(like), target, target_text.to(like))

    def config(self, base_reference: BaseReference) -> dict[str, Any]:
        """Return the content of `config.json`."""
        own = {"shortcut": self.shortcut, "plain_steps": self.plain_steps}
        stated = stated_method(self.method, own, self.conventions) or stated_conventions(self.conventions)
        stated |= stated_denoiser(self.denoiser, self.conventions)
        return {
            KEY: stated.pop(KEY),
            "sizes": self.sizes,
            "gate_threshold": self.gate_threshold,
            "cross_attention_width": self.width,
            "image_width": self.image_width,
            "reconfigurator": None if self.reconfigurator is None else {"residual": self.reconfigurator.residual},
            "templates": self.templates is not None,
            "base": asdict(base_reference),
            **stated,
            **({} if self.made_by is None else {"made_by": self.made_by}),
        }

    def save(self, folder: Path, base_reference: BaseReference) -> None:
        """Write `adapter.safetensors` and `config.json` into `folder`; the same adapter gives the same bytes."""
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        save_file(tensors, folder / WEIGHTS, {"format": "pt"})
        write_config(folder, self.config(base_reference))

    @classmethod
    def load(cls, folder: Path, unet: Any) -> Adapter:
        """Read an adapter for `unet`, and return it in eval mode, not attached yet.

        Raise ValueError if a file is missing or damaged, if the sizes do not fit `unet`, or if tensors are missing,
        unknown or of another shape; the message lists all of them.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(folder)
        config = read_config(folder)
        check_config(config, folder / CONFIG)
        kind, width = kind_of(unet), identity_width(unet)
        if (made_for := denoiser_in(config, folder / CONFIG)) != kind:
            raise ValueError(f"{folder}: made for a {made_for}, the base has a {kind}; give a base of the same family")
        made_on, here = f"made for {config['base']['pipeline']}", f"the base {origin_of(unet)}"
        if (its := config["cross_attention_width"]) != width:
            raise ValueError(
                f"{folder}: {made_on}, with identity tokens of width {its}; {here} has {width}: give a base of its "
                "kind, or train an adapter on this one"
            )
        if not (folder / WEIGHTS).is_file():
            raise ValueError(f"{folder / WEIGHTS}: no such file; expected the weights of an adapter")
        try:
            tensors = dequantise(load_file(folder / WEIGHTS))
        except SafetensorError as error:
            problem = f"damaged, not a safetensors file ({error}); copy the adapter again"
            raise ValueError(f"{folder / WEIGHTS}: {problem}") from None
        its = len({name.split(".")[1] for name in tensors if name.startswith("processors.")})
        # Without any, the file is damaged, which the names of what is missing say.
        if its and its != (own := len(attention_layers(unet))):
            raise ValueError(
                f"{folder}: {made_on}, with {its} attention layers; {here} has {own}: give a base of the same kind, or "
                "train an adapter on this one"
            )
        # Sizes that are not those of the weights could ask for any amount of memory.
        with torch.device("meta"):
            _check_shapes(cls._empty(unet, config), tensors, str(folder / WEIGHTS))
        adapter = cls._empty(unet, config)
        adapter.load_state_dict(tensors)
        check_weights(folder, config)
        adapter.base_reference = BaseReference(**config["base"])
        adapter.made_by = config.get("made_by")
        adapter.conventions = conventions_in(config, folder / CONFIG)
        adapter.shortcut, adapter.plain_steps = config.get("shortcut"), config.get("plain_steps")
        return adapter.eval()

    @classmethod
    def _empty(cls, unet: Any, config: Mapping[str, Any]) -> Adapter:
        """Return an adapter with the networks that `config` names, whose weights are still to be read."""
        method = method_in(config, CONFIG)
        adapter = cls(unet, config["image_width"], config["sizes"], config["gate_threshold"], method)
        if config["reconfigurator"] is not None:
            adapter.add_reconfigurator(residual=config["reconfigurator"]["residual"])
        if config["templates"]:
            adapter.templates = torch.zeros(len(EXPRESSIONS), len(POSES), 68, 2)
        return adapter


def _check_shapes(module: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    expected = module.state_dict()
    problems = [f"missing {name}" for name in expected if name not in tensors]
    problems += [f"unknown {name}" for name in tensors if name not in expected]
    problems += [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(value.shape)}"
        for name, value in expected.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    if problems:
        raise ValueError(f"{origin}: does not fit: {', '.join(problems)}")
