"""Sections of `params.yaml` about the evaluation protocol, its judges and the gates of the registry."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipelines.core.sections.section import Section


class Judges(Section):
    """Networks that judge and never condition."""

    recogniser: str
    recogniser_size: int = 112
    recogniser_mean: float = 127.5
    recogniser_scale: float = 127.5
    expression_pose: str
    # A CLIPModel folder with tokenizer and preprocessor_config.json: reads whether a picture follows its prompt.
    clip: str


class Evaluate(Section):
    """The evaluation protocol: who, what is asked, how it is sampled."""

    people: int = Field(ge=2)
    prompts: int = Field(2, ge=1)
    seeds: int = Field(1, ge=1)
    # Pictures of one look and prompt per person, from different noise: `diversity` is their spread.
    diversity_seeds: int = Field(3, ge=2)
    # Looks per person and seed, of eleven, that the variants beside the model draw.
    variant_cells: int = Field(5, ge=2, le=11)
    pairs: int = Field(4, ge=1)
    steps: int = Field(20, ge=1)
    guidance: float = 3.0
    # How far guided predictions get back the contrast of unguided ones (Lin et al., WACV 2024); 0: not at all.
    guidance_rescale: float = Field(0.0, ge=0, le=1)
    sampler: Literal["ddim", "dpm"] = "ddim"
    batch_size: int = 16
    bootstrap: int = 1000
    # Pictures of several people: steps that the base model lays out without the LoRA, and steps that are boosted.
    layout_steps: int = Field(0, ge=0)
    boost_steps: int = 0
    boost: float = 0.0
    sweeps: bool = False
    seed: int = 0
    # An adapter on the same base that is drawn beside the one just trained, for comparison.
    shipped_adapter: str | None = None
    judges: Judges


class Gate(Section):
    """One bound on one metric of `reports/metrics.json`."""

    metric: str
    variant: str = "model"
    minimum: float | None = None
    maximum: float | None = None
    # How much worse than the champion on the same evaluation set it may be.
    max_regression: float | None = Field(None, ge=0)
    # What a 95 % interval that reaches over the bound means: nothing, that the gate is passed, that it is failed.
    doubt: Literal["ignore", "passes", "refuses"] = "ignore"

    @model_validator(mode="after")
    def _bounded(self) -> Gate:
        if self.minimum is None and self.maximum is None and self.max_regression is None:
            raise ValueError(f"gate {self.metric} bounds nothing: give it minimum, maximum or max_regression")
        return self


class Register(Section):
    """Under what name the adapter is registered and what promotes it."""

    model_name: str = "dynamicid"
    promote: bool = True
    gates: tuple[Gate, ...] = ()
