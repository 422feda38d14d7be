"""Sections of `params.yaml` about what runs every week: drift, retention, the inbox, retraining, serving."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipelines.core.sections.section import Section

Feature = Literal["embedding", "yaw", "pitch", "brightness", "size", "expression", "outcome"]


class DriftLimit(Section):
    """Bounds on the distance of one feature."""

    warn: float = Field(ge=0)
    """Distance above which there is a warning."""
    stop: float = Field(ge=0)
    """Distance above which the run stops; not below warn."""

    @model_validator(mode="after")
    def _ordered(self) -> DriftLimit:
        if self.stop < self.warn:
            raise ValueError(f"stop {self.stop:g} is below warn {self.warn:g}")
        return self


class Drift(Section):
    """How a dataset version is compared with the one that the champion was trained on."""

    sample: int = Field(2000, ge=20)
    """Photos of each version that are compared, at most."""
    resamples: int = Field(100, ge=10)
    """Comparisons of the champion's own people with each other, which say what chance gives."""
    limits: dict[Feature, DriftLimit] = Field(default_factory=dict)
    """Bounds on embedding, yaw, pitch, brightness, size, expression and outcome; what has none is not judged."""


class Keeping(Section):
    """For how many days what can be made again is kept after its last use."""

    workspaces_days: float = Field(14, ge=0)
    """Workspaces of runs, in days."""
    checkpoints_days: float = Field(14, ge=0)
    """Checkpoints to resume from, in days."""
    caches_days: float = Field(30, ge=0)
    """Caches, in days."""


class Inbox(Section):
    """When photos dropped into the inbox are taken."""

    quiet_seconds: float = Field(60.0, ge=0)
    """For so many seconds nothing in a batch has changed, where no file _READY says that it is complete."""


class Retrain(Section):
    """What a scheduled run does."""

    without_new_data: Literal["skip", "new_seed"] = "skip"
    """Where no dataset version is newer than those trained on: do nothing, or train with another seed."""
    start_from: Literal["scratch", "champion"] = "scratch"
    """Where training begins."""


class Serve(Section):
    """What a stranger may ask of the served model."""

    max_request_mb: int = Field(64, ge=1)
    """Size of a request, in MB."""
    max_upload_mb: int = Field(16, ge=1)
    """Size of one reference photo as it is sent, in MB."""
    max_pixels: int = Field(40_000_000, ge=1)
    """Pixels of one reference photo."""
    max_people: int = Field(4, ge=1)
    """People in one picture."""
    max_rows: int = Field(4, ge=1)
    """Pictures in one request."""
