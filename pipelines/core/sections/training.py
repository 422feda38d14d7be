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
    image_encoder: str
    resolution: int = Field(ge=32, multiple_of=8)
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"


class FaceEncoderSize(Section):
    """Sizes of the adapter's parts; those of the base model are read from its own configuration."""

    tokens: int = 4
    lora_rank: int = 128
    reconfigurator_width: int = 1024
    reconfigurator_heads: int = 16
    reconfigurator_depth: int = 1
    landmark_features: int = 768
    landmark_width: int = 16


class Loop(Section):
    """What both training stages share: AdamW, warm-up, averaged weights, checkpoints."""

    steps: int = Field(ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    # After the warm-up the rate stays, or follows half a cosine to zero.
    learning_rate_decay: Literal["none", "cosine"] = "none"
    weight_decay: float = Field(1e-2, ge=0)
    warmup_steps: int = Field(0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    checkpoint_every: int = Field(200, ge=1)
    # Steps between two rows of losses.csv.
    log_every: int = Field(10, ge=1)
    # Photos whose latents, crops or prompts are encoded at once.
    cache_batch: int = Field(32, ge=1)
    seed: int = Field(0, ge=0)
    mixed_precision: Precision = "no"
    # The UNet's activations are computed again on the way back: a third more time, a fraction of the memory.
    gradient_checkpointing: bool = False


class IdentityTerm(Section):
    """The identity term of anchoring: 1 − cosine of preprocessing's recogniser on decoded predictions."""

    # Against the noise prediction's 1; 0 is the paper's loss.
    weight: float = Field(0.0, ge=0)
    # How many photos of a batch it is computed on.
    faces: int = Field(8, ge=1)


class TrainAnchoring(Loop):
    """The anchoring stage (paper section 3.4): face encoder and SAA on single-person pictures."""

    # A registered version whose face encoder and SAA training goes on from; by number, since an alias moves. Its LoRA
    # may be narrower than `sizes.lora_rank`, all other sizes are the same.
    start_from: str | None = Field(None, pattern=r"^models:/[^/@]+/[0-9]+$")
    # Photos a step and process.
    batch_size: int = Field(ge=1)
    drop_text: float = Field(0.05, ge=0, le=1)
    drop_identity: float = Field(0.05, ge=0, le=1)
    drop_both: float = Field(0.05, ge=0, le=1)
    # Where noise steps lie at the start: 1 uniform, 3 three quarters of them in the noisier half. It fades to 1.
    noise_shift: float = Field(1.0, gt=0)
    # Steps in which the embedding's projection learns what faces look like, without the UNet, before all others.
    projection_steps: int = Field(0, ge=0)
    gate_threshold: float = Field(0.3, ge=0, lt=1)
    # Weight of the latent cells inside the face box, against 1 outside.
    face_loss_weight: float = Field(1.0, gt=0)
    min_snr_gamma: float | None = None
    # Held-out photos with fixed noise on which the curve's `probe` is measured.
    probe_photos: int = Field(32, ge=1)
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

    # Photos of the same person that one source is turned into, at most.
    helpers: int = Field(32, ge=1)
    # People a step and process.
    batch_size: int = Field(1, ge=1)
    # λ of the noise term, every how many steps it is computed, and on how many of a step's photos.
    ldc_weight: float = Field(1.0, ge=0)
    ldc_every: int = Field(1, ge=1)
    ldc_targets: int = Field(32, ge=1)
    residual: bool = True
    # Share of targets whose landmarks are a template's, moved to the source's shape, instead of their own.
    template_share: float = Field(0.5, ge=0, le=1)
