"""Conventions of an adapter: every input that published code prepares otherwise than this project, one value each.

A network works on inputs prepared as those it was trained with. An adapter carries its conventions in `config.json`,
and everything that draws with it follows them. Published values are those of the authors' scripts for one person and
for several (github.com/ByteCat-bot/DynamicID), where the paper (Hu et al., ICCV 2025, section 3) states none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator


class Conventions(BaseModel):
    """A complete set of conventions: frozen; unknown keys, missing ones and other types are refused.

    Sampling values that are None are those of the parameters of whoever draws.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    # What CLIP sees: the aligned face with all else grey, or the photo, whose middle CLIP's processor cuts out.
    crop: Literal["aligned", "photo"]
    # Whether an aligned crop shows the hair; a photo always does.
    hair: bool
    # Size, mean and scale of CLIP's pixels: as the image encoder's folder states, or those of OpenAI's CLIP.
    clip_pixels: Literal["encoder", "openai"]
    # Colour channels of the recogniser's input; networks of insightface are trained on rgb.
    recogniser_channels: Literal["rgb", "bgr"]
    # Landmarks in the pictures for the IMR: iBUG's 68, or the 106 of insightface's packs.
    landmark_points: Literal[68, 106]
    # The frame in which they are drawn, and what happens to points outside of it.
    landmark_frame: Literal["aligned", "photo"]
    landmark_outside: Literal["border", "dropped"]
    # Landmarks of the target where only a text is given: a template in the shape of the source, or those of the source.
    target_landmarks: Literal["template", "source"]
    # What the text encoder reads of the source and of the target: the words of `face_prompts.compose`, or a sentence
    # of the published code about the source and the request as it was written about the target.
    source_prompt: Literal["composed", "published"]
    target_prompt: Literal["composed", "verbatim"]
    # λ; what somebody asks for is relative to it.
    identity_scale: float
    # The boost of the gate inside boxes and its steps, out of `steps`; the first steps without LoRA.
    boost: float | None
    boost_steps: int | None
    layout_steps: int | None
    # Whether the box of a single person is boosted, too.
    boost_one_person: bool
    # Read where a request has none.
    negative_prompt: str
    sampler: Literal["ddim", "dpm", "euler", "lcm"] | None
    steps: int | None
    guidance: float | None
    guidance_rescale: float | None
    # Side of the pictures in pixels.
    resolution: int | None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.target_landmarks == "template" and (self.landmark_points, self.landmark_frame) != (68, "aligned"):
            raise ValueError(
                "target_landmarks=template: templates are 68 points of aligned faces; expected landmark_points=68 and "
                "landmark_frame=aligned, or target_landmarks=source"
            )
        for name in ("boost_steps", "layout_steps", "steps", "resolution"):
            value, least = getattr(self, name), 1 if name in ("steps", "resolution") else 0
            if value is not None and value < least:
                raise ValueError(f"{name} {value}: expected at least {least}")
        if self.resolution is not None and self.resolution % 8:
            raise ValueError(f"resolution {self.resolution}: expected a multiple of 8")
        return self

    @property
    def are_ours(self) -> bool:
        """Whether these are this project's own; crops with or without hair are both."""
        return self.with_values({"hair": OURS.hair}) == OURS

    def with_values(self, values: Mapping[str, Any]) -> Conventions:
        """Return these conventions with other `values`; raise ValueError for unknown names and wrong values."""
        return read_conventions({**self.model_dump(), **values}, "conventions")

    def other_than(self, other: Conventions) -> dict[str, Any]:
        """Return the values that differ from those of `other`."""
        theirs = other.model_dump()
        return {name: value for name, value in self.model_dump().items() if value != theirs[name]}


def read_conventions(values: Any, origin: object) -> Conventions:
    """Return the set in a mapping; raise ValueError that begins with `origin` and names every wrong key."""
    try:
        return Conventions.model_validate(values)
    except ValidationError as error:
        problems = [
            ": ".join(filter(None, [".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, ")]))
            for one in error.errors()
        ]
        raise ValueError(f"{origin}: {'; '.join(problems)}") from None


OURS = Conventions(
    crop="aligned",
    hair=False,
    clip_pixels="encoder",
    recogniser_channels="rgb",
    landmark_points=68,
    landmark_frame="aligned",
    landmark_outside="border",
    target_landmarks="template",
    source_prompt="composed",
    target_prompt="composed",
    identity_scale=1.0,
    boost=None,
    boost_steps=None,
    layout_steps=None,
    boost_one_person=False,
    negative_prompt="",
    sampler=None,
    steps=None,
    guidance=None,
    guidance_rescale=None,
    resolution=None,
)
PUBLISHED = Conventions(
    crop="photo",
    hair=True,
    clip_pixels="openai",
    recogniser_channels="bgr",
    landmark_points=106,
    landmark_frame="photo",
    landmark_outside="dropped",
    target_landmarks="source",
    source_prompt="published",
    target_prompt="verbatim",
    identity_scale=1.0,
    boost=2.0,
    boost_steps=12,
    layout_steps=0,
    boost_one_person=True,
    # Brackets and numbers are read as text; the text encoder cuts off all but the first 75 tokens.
    negative_prompt=(
        "(nude:1.0), (naked:1.0), (bare breasts:1.0), (nipples:1.0),((((ugly)))), (((duplicate))), ((morbid)), "
        "((mutilated)), [out of frame], extra fingers, mutated hands, ((poorly drawn hands)), ((poorly drawn face)), "
        "(((mutation))), (((deformed))), ((ugly)), blurry, ((bad anatomy)), (((bad proportions))), ((extra limbs)), "
        "cloned face, (((disfigured))). out of frame, ugly, extra limbs, (bad anatomy), gross proportions, "
        "(malformed limbs), ((missing arms)), ((missing legs)), (((extra arms))), (((extra legs))), mutated hands, "
        "(fused fingers), (too many fingers), (((long neck)))"
    ),
    sampler="ddim",
    steps=50,
    guidance=5.0,
    guidance_rescale=0.0,
    resolution=768,
)
NAMED: dict[str, Conventions] = {"published": PUBLISHED, "ours": OURS}
_FACES = OURS.with_values({"hair": True, "clip_pixels": "openai"})
# Of the published files of each method: docs/reference/published.md names what ours cannot follow.
PUBLISHED_OF: dict[str, Conventions] = {
    "dynamicid": PUBLISHED,
    "ip_adapter_faceid": _FACES,
    "ip_adapter_faceid_plus": _FACES,
    "consistentid": _FACES.with_values(
        # Facial parts are found by landmarks in the frame of the crop.
        {"crop": "photo", "landmark_frame": "photo", "target_landmarks": "source", "steps": 50, "guidance": 5.0}
    ),
}
