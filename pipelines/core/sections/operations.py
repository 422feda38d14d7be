"""Sections of `params.yaml` about what runs every week: drift, retention, the inbox, retraining, serving."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipelines.core.sections.section import Section

Feature = Literal["embedding", "yaw", "pitch", "brightness", "size", "expression", "outcome"]


class DriftLimit(Section):
    """Above what distance one feature warns, and above what it stops the run."""

    warn: float = Field(ge=0)
    stop: float = Field(ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> DriftLimit:
        if self.stop < self.warn:
            raise ValueError(f"stop {self.stop:g} is below warn {self.warn:g}")
        return self


class Drift(Section):
    """How a dataset version is compared with the one that the champion was trained on."""

    # Photos of each version that are looked at, at most.
    sample: int = Field(2000, ge=20)
    # Comparisons of the champion's own people with each other, which say what chance gives.
    resamples: int = Field(100, ge=10)
    limits: dict[Feature, DriftLimit] = Field(default_factory=dict)


class Keeping(Section):
    """For how many days what can be made again is kept after its last use."""

    workspaces_days: float = Field(14, ge=0)
    checkpoints_days: float = Field(14, ge=0)
    caches_days: float = Field(30, ge=0)


class Inbox(Section):
    """When photos dropped into the inbox are taken."""

    # Nothing in a batch has changed for so long, where no file _READY says that it is complete.
    quiet_seconds: float = Field(60.0, ge=0)


class Retrain(Section):
    """What a scheduled run does."""

    # Where no dataset version is newer than those trained on: nothing, or the same data with another seed.
    without_new_data: Literal["skip", "new_seed"] = "skip"
    start_from: Literal["scratch", "champion"] = "scratch"


class Serve(Section):
    """What a stranger may ask of the served model."""

    max_request_mb: int = Field(64, ge=1)
    # Of one reference photo, as it is sent.
    max_upload_mb: int = Field(16, ge=1)
    max_pixels: int = Field(40_000_000, ge=1)
    # People in one picture, and pictures in one request.
    max_people: int = Field(4, ge=1)
    max_rows: int = Field(4, ge=1)
