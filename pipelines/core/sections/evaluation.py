"""Sections of `params.yaml` about the evaluation protocol, its judges and the gates of the registry."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipelines.core.sections.section import Section


class Judges(Section):
    """Networks that judge and never condition."""

    recogniser: str
    """ONNX face recogniser: whose face a picture shows."""
    recogniser_size: int = 112
    """Side of the aligned face that it sees, in pixels."""
    recogniser_mean: float = 127.5
    """It sees (pixel - recogniser_mean) / recogniser_scale."""
    recogniser_scale: float = 127.5
    """See recogniser_mean."""
    expression_pose: str
    """ONNX network that reads expression and pose."""
    clip: str
    """CLIPModel folder with tokenizer and preprocessor_config.json: reads whether a picture follows its prompt."""


class Evaluate(Section):
    """The evaluation protocol: who, what is asked, how it is sampled. `generate` and the page sample alike."""

    people: int = Field(ge=2)
    """Held-out people who take part, at most."""
    prompts: int = Field(2, ge=1)
    """Prompts per person."""
    seeds: int = Field(1, ge=1)
    """Rounds over all looks, each from noise of its own."""
    diversity_seeds: int = Field(3, ge=2)
    """Pictures per person of one look and prompt from different noise: `diversity` is their spread."""
    variant_cells: int = Field(5, ge=2, le=11)
    """Looks per person and round, of eleven, that the variants beside the model draw."""
    pairs: int = Field(4, ge=1)
    """Pictures of two people."""
    steps: int = Field(20, ge=1)
    """Sampling steps."""
    guidance: float = 3.0
    """Scale of classifier-free guidance."""
    guidance_rescale: float = Field(0.0, ge=0, le=1)
    """How far guided predictions get the contrast of unguided ones back (Lin et al., WACV 2024); 0: not at all."""
    sampler: Literal["ddim", "dpm"] = "ddim"
    """Sampler: DDIM or DPM-Solver++."""
    batch_size: int = 16
    """Pictures drawn at once."""
    bootstrap: int = 1000
    """Resamplings of the people behind each 95 % interval."""
    layout_steps: int = Field(0, ge=0)
    """Steps of a picture of several people that the base model lays out without the LoRA."""
    boost_steps: int = 0
    """Steps of a picture of several people in which people are drawn into their boxes."""
    boost: float = 0.0
    """Added to the gate in those steps inside of boxes; outside it is divided by 1 + boost."""
    sweeps: bool = False
    """Also draw pictures at other identity scales, gate thresholds and guidances, for curves."""
    seed: int = 0
    """Seed of people, cells and noise."""
    shipped_adapter: str | None = None
    """Adapter on the same base that is drawn beside the one just trained, for comparison; null: none."""
    judges: Judges


class Gate(Section):
    """One bound on one metric of `reports/metrics.json`."""

    metric: str
    """Name of the metric."""
    variant: str = "model"
    """Variant whose metric it is."""
    minimum: float | None = None
    """What it must reach."""
    maximum: float | None = None
    """What it must not exceed."""
    max_regression: float | None = Field(None, ge=0)
    """How much worse than the champion on the same evaluation set it may be."""
    doubt: Literal["ignore", "passes", "refuses"] = "ignore"
    """What a 95 % interval that reaches over the bound means: nothing, gate passed, gate failed."""

    @model_validator(mode="after")
    def _bounded(self) -> Gate:
        if self.minimum is None and self.maximum is None and self.max_regression is None:
            raise ValueError(f"gate {self.metric} bounds nothing: give it minimum, maximum or max_regression")
        return self


class Register(Section):
    """Under what name the adapter is registered and what promotes it."""

    model_name: str = "dynamicid"
    """Name of the registered model."""
    promote: bool = True
    """An adapter that passes all gates becomes champion; off: it is registered only."""
    gates: tuple[Gate, ...] = ()
    """Bounds that metrics must satisfy; each has a minimum, a maximum or a max_regression."""
