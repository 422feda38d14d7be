"""The JSON document that the scheduler passes to a training run: its form, and the results of earlier tasks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationError

from pipelines.core.errors import UserError
from pipelines.core.params import problems_of
from pipelines.core.sections.evaluation import Register
from pipelines.core.sections.operations import Retrain
from pipelines.core.sections.section import Section
from pipelines.core.sections.training import TrainAnchoring, TrainImr
from pipelines.registry.retraining import SCRATCH, Plan, Trigger


def _described(section: type[Section], key: str) -> str | None:
    """Return what the parameter reference says of a key."""
    return section.model_fields[key].description


class Form(Section):
    """A user's settings for a run; a scheduled run has no form, so every field has a default."""

    profile: str | None = Field(None, description="Profile to start from; empty: params.yaml.")
    dataset_version: str | None = Field(
        None,
        pattern=r"^(latest|faces-v[0-9]+)$",
        description="Dataset version, such as faces-v3; empty or latest: the newest. Without any, people are drawn.",
    )
    identities: int = Field(100, ge=4, le=100_000, description="Procedural people to draw where there is no version.")
    start_from: Literal["parameters", "scratch", "champion"] | None = Field(
        None, description=f"{_described(Retrain, 'start_from')} Empty: retrain.start_from."
    )
    anchoring_steps: int | None = Field(
        None, ge=1, description=f"train_anchoring.steps: {_described(TrainAnchoring, 'steps')} Empty: the profile's."
    )
    imr_steps: int | None = Field(
        None, ge=1, description=f"train_imr.steps: {_described(TrainImr, 'steps')} Empty: the profile's."
    )
    overrides: tuple[str, ...] = Field((), description="Other parameters, each section.key=value; they win.")
    accept_drift: bool = Field(False, description="Train although the data has drifted from the champion's.")
    promote: bool = Field(True, description=f"register.promote: {_described(Register, 'promote')}")
    human_decision: bool = Field(
        False, description="Ask a person to decide, showing the result of the gates; none of them promotes by itself."
    )


class Answer(Section):
    """A person's decision, or the default after the time limit, about the version `model` (a URI)."""

    model: str
    choice: Literal["promote", "override", "refuse"]
    by: str


class TrainingRun(Section):
    """A run's form, trigger, dataset versions of its events, plan, and a person's answer."""

    form: Form = Form()
    trigger: Trigger = "hand"
    versions: tuple[str, ...] = ()
    plan: Plan | None = None
    answer: Answer | None = None

    def dataset_versions(self) -> list[str]:
        """Return the dataset versions of form and events, sorted."""
        return sorted({*self.versions, *([self.form.dataset_version] if self.form.dataset_version else [])})

    def overrides(self) -> list[str]:
        """Return the changes `section.key=value` of form and plan; those typed by the user come last and win."""
        form, plan = self.form, self.plan
        seed = None if plan is None else plan.seed
        start = None if plan is None else plan.start_from
        start = "null" if start == SCRATCH else start
        asked = {
            "register.promote": "true" if form.promote and not form.human_decision else "false",
            "train_anchoring.steps": form.anchoring_steps,
            "train_imr.steps": form.imr_steps,
            "train_anchoring.seed": seed,
            "train_imr.seed": seed,
            "train_anchoring.start_from": start,
            "train_imr.start_from": start,
        }
        typed = [line.strip() for line in form.overrides if line.strip()]
        return [*(f"{key}={value}" for key, value in asked.items() if value is not None), *typed]


def read_run(text: str) -> TrainingRun:
    """Read the JSON document; raise UserError with every unknown key and invalid value."""
    if "\\u0000" in text:
        raise UserError("the form of the run: a text with the character NUL; type it again")
    try:
        return TrainingRun.model_validate_json(text)
    except ValidationError as error:
        raise UserError(f"the form of the run: {'; '.join(problems_of(error, TrainingRun))}") from None
