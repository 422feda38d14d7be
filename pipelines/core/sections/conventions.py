"""The section of `params.yaml` for the inputs that a converted checkpoint was trained with."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from pipelines.core.sections.section import Sampler, Section


class Conventions(Section):
    """How inputs of a converted checkpoint are prepared; recorded in the adapter, with which everything then draws."""

    like: Literal["published", "ours"] = Field(
        "published", description="A complete set; every other key replaces one value of it, where it is not null."
    )
    crop: Literal["aligned", "photo"] | None = Field(
        None, description="What CLIP sees of a reference: the aligned face alone, or the middle of the photo."
    )
    hair: bool | None = Field(None, description="An aligned crop shows the hair.")
    clip_pixels: Literal["encoder", "openai"] | None = Field(
        None, description="CLIP's size, mean and scale: as the image encoder's folder states, or those of OpenAI."
    )
    recogniser_channels: Literal["rgb", "bgr"] | None = Field(
        None, description="Colour channels in which the recogniser sees a reference; published code exchanges them."
    )
    landmark_points: Literal[68, 106] | None = Field(
        None, description="Landmarks for the IMR: 68, or insightface's 106, of which the face pack needs the network."
    )
    landmark_frame: Literal["aligned", "photo"] | None = Field(
        None, description="Frame in which they are drawn: that of the aligned face, or of the photo."
    )
    landmark_outside: Literal["border", "dropped"] | None = Field(
        None, description="Landmarks outside the frame: drawn on its border, or dropped."
    )
    target_landmarks: Literal["template", "source"] | None = Field(
        None, description="Landmarks of a face prompt: a template in the reference's shape, or the reference's own."
    )
    source_prompt: Literal["composed", "published"] | None = Field(
        None, description="Text about the reference: words of a face prompt, or the sentence of published code."
    )
    target_prompt: Literal["composed", "verbatim"] | None = Field(
        None, description="Text of a face prompt: composed of its expression and pose, or as it was written."
    )
    identity_scale: float | None = Field(None, ge=0, description="λ; a requested scale is multiplied with it.")
    boost: float | None = Field(None, ge=0, description="As evaluate.boost, in its place.")
    boost_steps: int | None = Field(None, ge=0, description="As evaluate.boost_steps, in its place.")
    layout_steps: int | None = Field(None, ge=0, description="As evaluate.layout_steps, in its place.")
    boost_one_person: bool | None = Field(None, description="Boost the box of a single person, too.")
    negative_prompt: str | None = Field(None, description="Negative prompt where a request has none.")
    sampler: Sampler | None = Field(None, description="As evaluate.sampler, in its place.")
    steps: int | None = Field(None, ge=1, description="As evaluate.steps, in its place.")
    guidance: float | None = Field(None, description="As evaluate.guidance, in its place.")
    guidance_rescale: float | None = Field(None, ge=0, le=1, description="As evaluate.guidance_rescale, in its place.")
    resolution: int | None = Field(None, ge=32, multiple_of=8, description="As base.resolution, in its place.")

    def values(self) -> dict[str, Any]:
        """Return the values that replace those of the set."""
        return self.model_dump(exclude={"like"}, exclude_none=True)
