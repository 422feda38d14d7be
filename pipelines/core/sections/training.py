"""Sections of `params.yaml` for the base model and the two training stages."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipelines.core.sections.section import Count, Domain, Section, Share

# YAML reads a plain `no` as false.
Precision = Annotated[Literal["no", "fp16", "bf16"], BeforeValidator(lambda value: "no" if value is False else value)]


def _numbered(value: str | None) -> str | None:
    """Refuse a registered model without the number of its version, since an alias may move."""
    if value is not None and value.startswith("models:") and not re.fullmatch(r"models:/[^/@]+/[0-9]+", value):
        raise ValueError(f"{value}: expected models:/NAME/NUMBER or the folder of an adapter")
    return value or None


CacheFormat = Literal["none", "float32", "float16", "int8"]
StartFrom = Annotated[str | None, AfterValidator(_numbered)]


class BaseModels(Section):
    """The frozen networks that the adapter extends; folders are absolute or relative to the project root."""

    pipeline: str = Field(description="Folder of a Stable Diffusion or FLUX.1 model, in the layout of diffusers.")
    image_encoder: str = Field(description="Folder of a CLIP vision model, in the layout of transformers.")
    domain: Domain | None = Field(
        None, description="What the networks of this section know, if you vouch for it; null: as the manifest says."
    )
    resolution: int = Field(ge=32, multiple_of=8, description="Side of the model's pictures, in pixels.")
    dtype: Literal["float32", "float16", "bfloat16"] = Field("float32", description="Data type of the frozen weights.")
    hair: bool = Field(
        False, description="Crops of reference faces show the hair, not the face alone; recorded in the adapter."
    )
    allow_other: bool = Field(
        False, description="Also use an adapter that was trained on another base of the same architecture."
    )


class Caches(Section):
    """What trainings keep on the disk of the frozen networks' outputs; a changed format is computed anew.

    float32, float16, int8 (eight bits, with a scale for every 64 numbers) or none: computed whenever it is drawn.
    """

    latents: CacheFormat = Field("float16", description="Latents of photos.")
    clip: CacheFormat = Field("float16", description="CLIP states of face crops, by far the largest.")
    text: CacheFormat = Field("float16", description="Text states of prompts.")
    parts: CacheFormat = Field(
        "float16", description="CLIP states of facial parts, for consistentid: four times as large as `clip`."
    )
    identity_tokens: CacheFormat = Field("float32", description="Identity tokens of photos, for train_imr.")


class FaceEncoderSize(Section):
    """Sizes of the adapter's parts; those of the base model are read from its configuration."""

    tokens: int = Field(4, description="Identity tokens per face.")
    lora_rank: int = Field(128, description="Rank of the LoRA in attention.")
    reconfigurator_width: int = Field(1024, description="Width of the identity-motion reconfigurator (IMR).")
    reconfigurator_heads: int = Field(16, description="Attention heads of the IMR.")
    reconfigurator_depth: int = Field(1, description="Blocks of the IMR.")
    landmark_features: int = Field(768, description="Output features of the landmark encoder (68 points).")
    landmark_width: int = Field(16, description="Channels of the landmark encoder's first stage; last: 32 times.")


class Loop(Section):
    """Parameters of both training stages: AdamW, warm-up, averaged weights, checkpoints."""

    steps: Count = Field(description="Optimiser steps.")
    learning_rate: float = Field(1e-4, gt=0, description="Learning rate after the warm-up.")
    learning_rate_decay: Literal["none", "cosine"] = Field(
        "none", description="The learning rate after the warm-up: constant, or half a cosine to zero."
    )
    optimiser: Literal["adamw", "adamw_8bit"] = Field(
        "adamw",
        description="adamw_8bit holds its state in a quarter of the memory; it needs the extra `eight-bit`.",
    )
    weight_decay: float = Field(1e-2, ge=0, description="Weight decay of AdamW.")
    warmup_steps: int = Field(0, ge=0, description="Steps in which the learning rate rises from zero.")
    max_grad_norm: float = Field(1.0, gt=0, description="Norm to which gradients are clipped.")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="Share of the averaged weights that is kept at each step.")
    checkpoint_every: Count = Field(200, description="Steps between two checkpoints.")
    log_every: Count = Field(10, description="Steps between two rows of losses.csv.")
    samples_every: int = Field(
        0, ge=0, description="Steps between two grids of sample pictures of people of split val; 0: none."
    )
    keep: Literal["last", "best"] = Field(
        "last", description="Averaged weights of the adapter: the last, or those with the lowest probe on split val."
    )
    determinism: Literal["bitwise", "fast"] = Field(
        "bitwise", description="Same bytes from the same inputs, or the fastest algorithms and TF32 in the steps."
    )
    cache_batch: Count = Field(32, description="Photos or prompts that are encoded at once.")
    seed: int = Field(0, ge=0, description="Seed of weights, order and noise.")
    mixed_precision: Precision = Field("no", description="Data type of mixed precision; 'no' (in quotes): none.")
    gradient_checkpointing: bool = Field(
        False, description="Recompute the UNet's activations in the backward pass: a third more time, far less memory."
    )

    @property
    def can_be_continued(self) -> bool:
        """Whether a training with more steps begins with exactly these steps."""
        return self.learning_rate_decay == "none"


class IdentityTerm(Section):
    """The identity term of anchoring: 1 − cosine of decoded prediction and photo by preprocessing's recogniser."""

    weight: float = Field(0.0, ge=0, description="Weight relative to the noise loss; 0: the paper's loss.")
    faces: Count = Field(8, description="Photos per batch on which the term is computed.")


class FacialParts(Section):
    """Facial parts of consistentid: its encoder, and the loss by which attention finds the words that name them."""

    width: int = Field(1024, ge=64, multiple_of=64, description="Width of the facial encoder's resampler.")
    depth: Count = Field(8, description="Layers of the facial encoder's resampler.")
    localisation_weight: float = Field(0.01, ge=0, description="Weight of the localisation loss; 0: none.")
    localisation_form: Literal["ours", "published"] = Field(
        "ours",
        description="Attention to words, or, as in published code by mistake, to positions with the words' numbers.",
    )

    def sizes(self) -> dict[str, int]:
        """Return the sizes of the facial encoder, by the names of the adapter."""
        return {"parts_width": self.width, "parts_depth": self.depth}


class TrainAnchoring(Loop):
    """The anchoring stage (paper section 3.4): face encoder and SAA on single-person pictures."""

    method: Literal["dynamicid", "ip_adapter_faceid", "ip_adapter_faceid_plus", "consistentid"] = Field(
        "dynamicid",
        description="Method whose adapter is trained. All but dynamicid have no gate and no IMR: `train_imr` passes "
        "them on, and expression and pose are asked for in words.",
    )
    start_from: StartFrom = Field(
        None,
        description="models:/NAME/NUMBER or adapter folder to continue from, with the same sizes or a narrower LoRA; "
        "null: new weights.",
    )
    batch_size: Count = Field(description="Photos per step and process.")
    drop_text: Share = Field(0.05, description="Share of photos trained without their prompt.")
    drop_identity: Share = Field(0.05, description="Share of photos trained without their identity.")
    drop_both: Share = Field(0.05, description="Share of photos trained without either; the three sum to 1 at most.")
    noise_shift: float = Field(
        1.0, gt=0, description="Timestep shift at first: 1 is uniform, 3 puts ¾ in the noisier half; decays to 1."
    )
    projection_steps: int = Field(
        0, ge=0, description="Additional first steps that train the projection of the embedding, without the UNet."
    )
    gate_threshold: float = Field(0.3, ge=0, lt=1, description="τ: a position with a lower gate gets no identity.")
    face_loss_weight: float = Field(1.0, gt=0, description="Loss weight of latents in the face box, against 1 outside.")
    min_snr_gamma: float | None = Field(None, description="γ of min-SNR loss weights; null: equal weights.")
    probe_photos: Count = Field(32, description="Held-out photos with fixed noise for the curve `probe`.")
    identity: IdentityTerm = IdentityTerm()
    facial_parts: FacialParts = FacialParts()
    sizes: FaceEncoderSize = FaceEncoderSize()

    @property
    def can_be_continued(self) -> bool:
        """Whether a training with more steps begins with exactly these steps; a noise shift decays over all steps."""
        return super().can_be_continued and self.noise_shift == 1

    @model_validator(mode="after")
    def _shares(self) -> TrainAnchoring:
        total = self.drop_text + self.drop_identity + self.drop_both
        if total > 1:
            raise ValueError(f"drop_text + drop_identity + drop_both = {total:g}: expected at most 1")
        return self


class TrainImr(Loop):
    """The reconfiguration stage (paper section 3.4): the IMR on frozen identity tokens."""

    start_from: StartFrom = Field(
        None,
        description="models:/NAME/NUMBER or adapter folder whose IMR training continues from; null: new weights.",
    )
    helpers: Count = Field(32, description="Maximum number of target photos per source, of the same person.")
    batch_size: Count = Field(1, description="People per step and process.")
    ldc_weight: float = Field(1.0, ge=0, description="λ of the noise term.")
    ldc_every: Count = Field(1, description="Steps from one computation of the noise term to the next.")
    ldc_targets: Count = Field(32, description="Photos per step on which the noise term is computed.")
    residual: bool = Field(True, description="The IMR's output is added to its input.")
    template_share: Share = Field(
        0.5, description="Share of targets whose landmarks are a template's, fitted to the source's face shape."
    )
