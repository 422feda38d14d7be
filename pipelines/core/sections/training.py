"""Sections of `params.yaml` about the base model and the two training stages."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipelines.core.sections.section import Section

# YAML reads a plain `no` as false.
Precision = Annotated[Literal["no", "fp16", "bf16"], BeforeValidator(lambda value: "no" if value is False else value)]


class BaseModels(Section):
    """The frozen networks the adapter stands on; folders relative to the project root or absolute."""

    pipeline: str
    """Folder of a Stable Diffusion model, in the layout of diffusers."""
    image_encoder: str
    """Folder of a CLIP vision model, in the layout of transformers."""
    resolution: int = Field(ge=32, multiple_of=8)
    """Side of the pictures it makes, in pixels."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Number format of the frozen weights."""


class FaceEncoderSize(Section):
    """Sizes of the adapter's parts; those of the base model are read from its own configuration."""

    tokens: int = 4
    """Identity tokens per face."""
    lora_rank: int = 128
    """Rank of the LoRA in attention."""
    reconfigurator_width: int = 1024
    """Width of the identity-motion reconfigurator (IMR)."""
    reconfigurator_heads: int = 16
    """Attention heads of the IMR."""
    reconfigurator_depth: int = 1
    """Blocks of the IMR."""
    landmark_features: int = 768
    """Features that the landmark encoder makes of 68 points."""
    landmark_width: int = 16
    """Channels of the landmark encoder's first stage; the last has 32 times as many."""


class Loop(Section):
    """What both training stages share: AdamW, warm-up, averaged weights, checkpoints."""

    steps: int = Field(ge=1)
    """Optimiser steps."""
    learning_rate: float = Field(1e-4, gt=0)
    """Learning rate after the warm-up."""
    learning_rate_decay: Literal["none", "cosine"] = "none"
    """After the warm-up the rate stays, or follows half a cosine to zero."""
    weight_decay: float = Field(1e-2, ge=0)
    """Weight decay of AdamW."""
    warmup_steps: int = Field(0, ge=0)
    """Steps in which the rate rises from zero."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Norm that gradients are clipped to."""
    ema_decay: float = Field(0.999, ge=0, lt=1)
    """Share of the averaged weights that a step keeps."""
    checkpoint_every: int = Field(200, ge=1)
    """Steps between two checkpoints."""
    log_every: int = Field(10, ge=1)
    """Steps between two rows of losses.csv."""
    cache_batch: int = Field(32, ge=1)
    """Photos whose latents, crops or prompts are encoded at once."""
    seed: int = Field(0, ge=0)
    """Seed of weights, order and noise."""
    mixed_precision: Precision = "no"
    """Number format of the forward pass; written 'no' in quotes for none."""
    gradient_checkpointing: bool = False
    """Compute the UNet's activations again on the way back: a third more time, a fraction of the memory."""


class IdentityTerm(Section):
    """The identity term of anchoring: 1 − cosine of preprocessing's recogniser on decoded predictions."""

    weight: float = Field(0.0, ge=0)
    """Weight against the noise prediction's 1; 0 is the paper's loss."""
    faces: int = Field(8, ge=1)
    """Photos of a batch that it is computed on."""


class TrainAnchoring(Loop):
    """The anchoring stage (paper section 3.4): face encoder and SAA on single-person pictures."""

    # By number, since an alias moves.
    start_from: str | None = Field(None, pattern=r"^models:/[^/@]+/[0-9]+$")
    """Version to train on from, as models:/NAME/NUMBER, of the same sizes but for a narrower LoRA; null: none."""
    batch_size: int = Field(ge=1)
    """Photos per step and process."""
    drop_text: float = Field(0.05, ge=0, le=1)
    """Share of photos trained without their prompt."""
    drop_identity: float = Field(0.05, ge=0, le=1)
    """Share of photos trained without their identity."""
    drop_both: float = Field(0.05, ge=0, le=1)
    """Share of photos trained without either; the three shares are 1 at most together."""
    noise_shift: float = Field(1.0, gt=0)
    """Where noise steps lie at the start: 1 uniform, 3 three quarters in the noisier half. It fades to 1."""
    projection_steps: int = Field(0, ge=0)
    """Steps before all others that teach the embedding's projection what faces look like, without the UNet."""
    gate_threshold: float = Field(0.3, ge=0, lt=1)
    """τ: gate below which a place gets no identity."""
    face_loss_weight: float = Field(1.0, gt=0)
    """Weight of the latent cells inside the face box, against 1 outside."""
    min_snr_gamma: float | None = None
    """γ of min-SNR loss weights; null: all noise steps count alike."""
    probe_photos: int = Field(32, ge=1)
    """Held-out photos with fixed noise on which the curve's `probe` is measured."""
    identity: IdentityTerm = IdentityTerm()
    sizes: FaceEncoderSize = FaceEncoderSize()

    @model_validator(mode="after")
    def _shares(self) -> TrainAnchoring:
        total = self.drop_text + self.drop_identity + self.drop_both
        if total > 1:
            raise ValueError(f"drop_text + drop_identity + drop_both = {total:g}: expected at most 1")
        return self


class TrainImr(Loop):
    """The reconfiguration stage (paper section 3.4): the IMR on frozen identity tokens."""

    helpers: int = Field(32, ge=1)
    """Photos of the same person that one source is turned into, at most."""
    batch_size: int = Field(1, ge=1)
    """People per step and process."""
    ldc_weight: float = Field(1.0, ge=0)
    """λ of the noise term."""
    ldc_every: int = Field(1, ge=1)
    """The noise term is computed every so many steps."""
    ldc_targets: int = Field(32, ge=1)
    """Photos of a step that the noise term is computed on."""
    residual: bool = True
    """The IMR's output is added to its input."""
    template_share: float = Field(0.5, ge=0, le=1)
    """Share of targets with a template's landmarks, moved to the source's shape, instead of their own."""
