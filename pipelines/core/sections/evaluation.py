"""Sections of `params.yaml` for the evaluation protocol, its judges and the gates of the registry."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipelines.core.sections.face_networks import FaceClassifier, FaceNetwork, FaceRegressor
from pipelines.core.sections.section import Count, Domain, Sampler, Section, Share


class JudgeBounds(Section):
    """What the judges must reach on held-out real photos; the metrics of one that does not are not measurable."""

    photos: Count = Field(12, description="Minimum number of photos, or pairs of them, on which a judge is measured.")
    faces_found: Share = Field(0.9, description="Minimum share of photos in which the detector finds the face.")
    recogniser_auc: Share = Field(
        0.9, description="Minimum probability that photos of one person are more similar than those of two."
    )
    expression_kappa: float = Field(
        0.4, ge=-1, le=1, description="Minimum agreement with the labels beyond chance (Cohen's kappa)."
    )
    yaw_error: float = Field(15.0, ge=0, description="Maximum mean error of yaw, in degrees: half of a step of poses.")
    yaw_correlation: float = Field(0.85, ge=-1, le=1, description="Minimum correlation of yaw read and measured.")
    own_prompt: Share = Field(
        0.7, description="Minimum probability that a photo is nearer to its own prompt than to another photo's."
    )


class DetectorJudge(Section):
    """YuNet, to find faces independently of the face pack."""

    path: str = Field(description="ONNX file of YuNet.")
    size: int = Field(640, ge=32, multiple_of=32, description="Side of the square input, in pixels.")
    threshold: float = Field(0.6, gt=0, lt=1, description="Minimum score of a face.")


class Judges(Section):
    """Networks that judge pictures; none of them conditions the generation.

    Where none is named, the metrics of that judge are not measurable.
    """

    recogniser: FaceNetwork = Field(description="Face recogniser, for identity.")
    expression: tuple[FaceClassifier, ...] = Field((), description="Networks for the expression; their mean is read.")
    yaw: tuple[FaceRegressor, ...] = Field((), description="Networks for the yaw; their mean is read.")
    pose: FaceClassifier | None = Field(None, description="Network for the five poses; null: those of the yaw.")
    detector: DetectorJudge | None = Field(None, description="Face detector; null: that of the face pack.")
    clip: str | None = Field(
        None, description="Folder of a CLIPModel, with tokenizer and preprocessor_config.json, for texts and pictures."
    )
    domain: Domain | None = Field(
        None, description="What the networks of this section know, if you vouch for it; null: as the manifest says."
    )
    photos: Count = Field(200, description="Maximum number of real photos on which the judges are measured.")
    bounds: JudgeBounds = Field(JudgeBounds(), description="What they must reach there.")

    @model_validator(mode="after")
    def _measures_yaw(self) -> Judges:
        if any("yaw" not in {angle.lstrip("-") for angle in network.angles} for network in self.yaw):
            raise ValueError("yaw: a network whose angles do not name yaw; expected yaw or -yaw among them")
        if self.pose is not None and not self.yaw:
            raise ValueError("pose needs a network for yaw, too: a pose without it cannot be measured on real photos")
        return self


class SeveralPeople(Section):
    """Pictures of several people; in each, everybody is asked an expression and a pose of their own.

    A base that draws fewer people (as its manifest says) makes the metrics of more not measurable.
    """

    two: int = Field(4, ge=0, description="Number of pictures of two people; 0: none.")
    three: int = Field(0, ge=0, description="Number of pictures of three people.")
    four: int = Field(0, ge=0, description="Number of pictures of four people.")

    @property
    def pictures(self) -> dict[int, int]:
        """The number of pictures by the number of people in them."""
        return {2: self.two, 3: self.three, 4: self.four}


class Evaluate(Section):
    """The evaluation protocol and its sampling, which other pictures share but for the number of steps."""

    protocol: Literal["ours", "paper"] = Field(
        "ours", description="What is asked: this project's questions, or also those of the paper, by its metrics."
    )
    people: int = Field(ge=2, description="Maximum number of held-out people.")
    split: Literal["val", "test"] = Field(
        "test", description="Whose photos: val to choose settings on; test to judge once, at the end."
    )
    seen_people: Literal["refuse", "leave_out"] = Field(
        "refuse", description="Held-out people whom networks that ship were trained on: an error, or take no part."
    )
    prompts: Count = Field(2, description="Prompts per person.")
    scenes: Literal["clothes", "plain"] = Field(
        "clothes",
        description="What prompts name: clothes and background, or nothing, for a base that knows no such words.",
    )
    seeds: Count = Field(1, description="Rounds over all cells (expression and pose), each with its own noise.")
    diversity_seeds: int = Field(3, ge=2, description="Pictures of one cell per person, for the metric `diversity`.")
    variant_cells: int = Field(5, ge=2, le=11, description="Cells per person and round for variants except `model`.")
    several_people: SeveralPeople = Field(SeveralPeople(), description="How many pictures of several people.")
    steps: Count = Field(20, description="Sampling steps.")
    guidance: float = Field(3.0, description="Scale of classifier-free guidance.")
    guidance_rescale: Share = Field(
        0.0, description="How far guided predictions are rescaled to the unguided contrast (Lin et al., WACV 2024)."
    )
    sampler: Sampler = Field(
        "ddim",
        description="Sampler: DDIM, DPM-Solver++, Euler's method (FLUX.1 has only this), or LCM's, for few steps.",
    )
    batch_size: int = Field(16, description="Pictures generated at once.")
    processes: Count = Field(
        1, description="Processes that draw and judge, each with its own networks; of several GPUs each takes the next."
    )
    bootstrap: int = Field(1000, description="Number of resamples of the people for the 95 % intervals.")
    layout: Literal["regions", "windows"] = Field(
        "regions",
        description="Several people: regions of one picture (as the paper), or a window of a wide picture for each.",
    )
    layout_steps: int = Field(0, ge=0, description="Number of first steps without LoRA, with several people.")
    boost_steps: int = Field(0, description="Number of first steps with `boost`, with several people.")
    boost: float = Field(0.0, description="Added to the gate inside boxes; outside, the gate is divided by 1 + boost.")
    sweeps: bool = Field(False, description="Also vary identity scale, gate threshold and guidance, for curves.")
    seed: int = Field(0, description="Seed of people, cells and noise.")
    shipped_adapter: str | None = Field(None, description="Adapter on the same base to compare with; null: none.")
    judges: Judges


class Gate(Section):
    """One bound on one metric of `reports/metrics.json`."""

    metric: str = Field(description="Name of the metric; `s`: id_similarity from floor (0) to ceiling (1).")
    variant: str = Field("model", description="Variant to which the metric belongs.")
    minimum: float | None = Field(None, description="Lowest value that passes.")
    maximum: float | None = Field(None, description="Highest value that passes.")
    max_regression: float | None = Field(
        None, ge=0, description="Maximum loss against the champion on the same evaluation set."
    )
    doubt: Literal["ignore", "passes", "refuses"] = Field(
        "ignore", description="Where the 95 % interval contains the bound: ignore the interval, pass, or refuse."
    )

    @model_validator(mode="after")
    def _bounded(self) -> Gate:
        if self.minimum is None and self.maximum is None and self.max_regression is None:
            raise ValueError(f"gate {self.metric} bounds nothing: give it minimum, maximum or max_regression")
        return self


class Licences(Section):
    """Which licences the networks that form an adapter may have.

    Shell patterns; case does not count. A network without a known licence passes only where both are empty.
    """

    allow: tuple[str, ...] = Field((), description="A licence must match one of these; empty: all.")
    deny: tuple[str, ...] = Field(
        (),
        description="Licences that are refused; `no-commercial-use`, `no-redistribution`: those that forbid it.",
    )


class Register(Section):
    """The name under which an adapter is registered, and what promotes it."""

    model_name: str = Field("dynamicid", description="Name of the registered model.")
    promote: bool = Field(True, description="Make an adapter that passes all gates champion; off: only register it.")
    licences: Licences = Field(
        Licences(), description="Checked before training, too; `dynamicid weights list` shows those of all networks."
    )
    gates: tuple[Gate, ...] = Field((), description="Bounds; each has a minimum, a maximum or a max_regression.")
