"""Sections of `params.yaml` about photos: taken in, validated, looked at, curated, permitted, given out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipelines.core.sections.section import Section


class Ingest(Section):
    """How files become rows of `data/faces`."""

    shard_mb: int = Field(128, ge=1, le=1024)
    # A file above this is left out, and listed in the summary.
    max_file_mb: int = Field(256, ge=1, le=1024)
    source: str | None = None
    licence: str | None = None
    consent: str | None = None


class Validate(Section):
    """What the metadata of a dataset version must satisfy before it is preprocessed."""

    min_photos: int = Field(1, ge=1)
    # Shorter side and pixels of a photo, and the shares of photos that may be smaller or larger.
    min_side: int = Field(32, ge=1)
    max_small_share: float = Field(0.1, ge=0, le=1)
    max_pixels: int = Field(89_000_000, ge=1)
    max_large_share: float = Field(0.05, ge=0, le=1)
    max_unreadable_share: float = Field(0.05, ge=0, le=1)
    max_duplicate_share: float = Field(0.2, ge=0, le=1)
    # Above these there is a warning: anchoring can do without identities and prompts.
    max_without_identity_share: float = Field(0.5, ge=0, le=1)
    max_without_prompt_share: float = Field(0.5, ge=0, le=1)


class Landmarker(Section):
    """The 68-point network: FAN (face-alignment) or any ONNX file with its input convention."""

    kind: Literal["onnx", "fan"]
    # An ONNX file; for FAN the weights file, or the folder that holds it under face-alignment's own name.
    path: str
    # The rest is the convention of an ONNX network: it sees a square of `box_scale` times the longer side of the
    # face box, as (pixel - mean) / scale; its first 136 outputs are x, y pairs in [0, 1] of that square.
    input_size: int = Field(64, ge=16)
    box_scale: float = Field(1.4, gt=0)
    mean: float = 127.0
    scale: float = Field(127.0, gt=0)
    channel_order: Literal["rgb", "bgr"] = "rgb"


class Captions(Section):
    """Where prompts and face prompts come from: the sources are asked in order, the first answer wins."""

    sources: tuple[Literal["sidecar", "clip", "internvl"], ...] = ("sidecar", "clip")
    # Folders in the layout of transformers: a CLIPModel, an InternVLForConditionalGeneration.
    clip_path: str | None = None
    internvl_path: str | None = None


class Preprocess(Section):
    """Looking at every photo, on Spark."""

    resolution: int = Field(ge=32)
    jpeg_quality: int = Field(95, ge=50, le=100)
    insightface_name: str
    insightface_root: str
    # Sides of the squares in which faces are looked for; none: insightface's own (128 and 640).
    det_sizes: tuple[int, ...] = ()
    det_threshold: float = Field(0.5, gt=0, lt=1)
    landmarker: Landmarker
    captions: Captions = Captions()
    # The stored square is tightened until the face box is at least this share of its height (0: never).
    face_share: float = Field(0.0, ge=0, le=1)
    several_faces: Literal["reject", "largest"] = "largest"
    max_pixels: int = Field(89_000_000, ge=1)
    # Shorter side of the face box, in pixels of the photo as found.
    min_face_side: int = Field(20, ge=1)
    min_sharpness: float = Field(0.0, ge=0)
    test_share: float = Field(0.12, ge=0, lt=1)
    val_share: float = Field(0.04, ge=0, lt=1)
    buckets: int = Field(8, ge=1)
    # Photos per unit of work: what one task looks at, and what a killed run may have to look at again.
    slice_photos: int = Field(256, ge=1)
    master: str = "local[2]"
    # Settings of Spark itself, over the project's own: memory, shipped archives, the workers' Python (docs/scaling.md).
    spark: dict[str, str] = Field(default_factory=dict)
    max_failed_share: float = Field(0.2, ge=0, le=1)


class ValidateProcessed(Section):
    """What the processed rows must satisfy before anything is trained on them."""

    # Of the photos that are no repeats of others.
    min_ok_share: float = Field(0.8, ge=0, le=1)
    # People with a name and an accepted photo; 0 where photos of nobody named are to be trained on.
    min_identities: int = Field(2, ge=0)
    min_test_identities: int = Field(1, ge=0)
    max_angle: float = Field(120.0, gt=0, le=180)
    # Above this there is a warning.
    max_without_prompt_share: float = Field(0.1, ge=0, le=1)


class Curate(Section):
    """From a pile of photos to a set of people: what is found, what is left out, who is one person, how many photos."""

    # Shorter side that photos are looked at with, in pixels: smaller faces are found with more.
    working_side: int = Field(1280, ge=128)
    # Photos one task looks at, and what a killed run may have to look at again.
    task_photos: int = Field(128, ge=1)
    # A usable face: shorter side of its box in pixels of the photo, the detector's score, variance of the Laplacian,
    # head pose in degrees, share of its box that is outside of the photo.
    min_face_side: int = Field(48, ge=1)
    min_score: float = Field(0.5, ge=0, le=1)
    min_sharpness: float = Field(0.0, ge=0)
    max_yaw: float = Field(90.0, gt=0, le=180)
    max_pitch: float = Field(60.0, gt=0, le=180)
    max_outside_share: float = Field(0.2, ge=0, le=1)
    # Mean cosine from which two groups of faces are one person: it belongs to the recogniser (docs/curation.md).
    similarity: float = Field(0.32, gt=0, lt=1)
    # Nearest faces that each face is compared with.
    neighbours: int = Field(30, ge=2)
    # They also are from this likeness on: a third of it is their cosine, two thirds the neighbours they share.
    likeness: float = Field(0.55, gt=0, lt=1)
    # Correlation of the grey values of two aligned faces from which they are one picture.
    duplicate_similarity: float = Field(0.82, gt=0, le=1)
    min_photos: int = Field(3, ge=1)
    max_photos: int = Field(35, ge=1)

    @model_validator(mode="after")
    def _photos(self) -> Curate:
        if self.min_photos > self.max_photos:
            raise ValueError(f"min_photos {self.min_photos} > max_photos {self.max_photos}: nobody could be selected")
        return self


class Term(Section):
    """Which values of one column a row may have to be trained on: shell patterns, whatever the case of the letters.

    `allow` is empty: every value, and none at all. Otherwise one of its patterns must fit ("*": something must be
    said). A value that fits a pattern of `deny` is refused in any case.
    """

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


class Rights(Section):
    """Which photos may be trained on, by what their rows say of consent, licence and source; all three must agree."""

    consent: Term = Term(deny=("no", "refused", "withdrawn*"))
    licence: Term = Term()
    source: Term = Term()


class Parsing(Section):
    """A face-parsing network (ONNX): one score per class and pixel, of which the highest names the part."""

    path: str
    input_size: int = Field(512, ge=32)
    # The network sees (pixel / 255 - mean) / std, channels as in `channel_order`.
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    channel_order: Literal["rgb", "bgr"] = "rgb"


class Export(Section):
    """How a dataset leaves the project."""

    # Tar and Parquet shards hold about this much.
    shard_mb: int = Field(256, ge=1, le=4096)
    # Masks in the ConsistentID layout; none without a network.
    parsing: Parsing | None = None
