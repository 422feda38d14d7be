"""Sections of `params.yaml` for drift, retention, the inbox, retraining and serving."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipelines.core.sections.section import Count, Section

Feature = Literal["embedding", "yaw", "pitch", "brightness", "size", "expression", "outcome"]


class DriftLimit(Section):
    """Bounds on the distance of one feature."""

    warn: float = Field(ge=0, description="Distance above which there is a warning.")
    stop: float = Field(ge=0, description="Distance above which the run stops; not below warn.")

    @model_validator(mode="after")
    def _ordered(self) -> DriftLimit:
        if self.stop < self.warn:
            raise ValueError(f"stop {self.stop:g} is below warn {self.warn:g}")
        return self


class Drift(Section):
    """How a dataset version is compared with the one that the champion was trained on."""

    sample: int = Field(2000, ge=20, description="Maximum number of photos compared of each version.")
    resamples: int = Field(100, ge=10, description="Comparisons within the champion's people, to measure chance.")
    limits: dict[Feature, DriftLimit] = Field(
        {}, description="Bounds on embedding, yaw, pitch, brightness, size, expression, outcome; others are not judged."
    )


class Keeping(Section):
    """How long data that can be recomputed is kept after its last use."""

    workspaces_days: float = Field(14, ge=0, description="Workspaces of runs, in days.")
    checkpoints_days: float = Field(14, ge=0, description="Checkpoints to resume from, in days.")
    caches_days: float = Field(30, ge=0, description="Caches, in days.")
    caches_gb: float | None = Field(
        None, gt=0, description="Maximum size of all caches, in GB; what was used last stays. null: any size."
    )
    runs_days: float | None = Field(
        None, ge=0, description="MLflow's runs of which no registered version was made, in days. null: all."
    )
    deleted_runs_days: float = Field(30, ge=0, description="MLflow's runs that were deleted, in days.")
    inbox_days: float | None = Field(None, ge=0, description="Batches in the inbox's _done, in days. null: all.")
    backups: Count = Field(7, description="Number of backups that a schedule makes; older ones go.")


class Inbox(Section):
    """When a batch of photos is taken from the inbox."""

    quiet_seconds: float = Field(60.0, ge=0, description="Seconds without change that complete a batch without _READY.")


class Retrain(Section):
    """What a training run starts from, and what a scheduled one does without new data."""

    without_new_data: Literal["skip", "new_seed"] = Field(
        "skip", description="Without a newer dataset version: do nothing, or train with another seed."
    )
    start_from: Literal["parameters", "scratch", "champion"] = Field(
        "parameters", description="What `start_from` of both trainings says, new weights, or the champion's weights."
    )


class Serve(Section):
    """Pictures that people ask for, by `generate`, in Python, on the page and over HTTP, and limits on requests."""

    steps: Count | None = Field(
        None, description="Denoising steps of a picture whose request names none; null: evaluate.steps."
    )
    combine: Literal["average", "concatenate"] = Field(
        "average",
        description="How several references of one person become one identity: average, the mean of their tokens; "
        "concatenate, all tokens beside each other.",
    )
    max_request_mb: Count = Field(64, description="Maximum size of a request, in MB.")
    max_upload_mb: Count = Field(16, description="Maximum size of one reference photo, encoded as sent, in MB.")
    max_pixels: Count = Field(40_000_000, description="Maximum number of pixels of one reference photo.")
    max_people: Count = Field(4, description="Maximum number of people in one picture.")
    max_rows: Count = Field(4, description="Maximum number of pictures in one request.")
    max_steps: Count = Field(100, description="Maximum number of denoising steps of one picture.")
