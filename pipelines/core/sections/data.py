"""Sections of `params.yaml` about photos: taken in, validated, analysed, curated, permitted, given out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipelines.core.sections.section import Section


class Ingest(Section):
    """How files become rows of `data/faces`."""

    shard_mb: int = Field(128, ge=1, le=1024)
    """Size of a shard of the dataset, about, in MB."""
    max_file_mb: int = Field(256, ge=1, le=1024)
    """A file above so many MB is left out, and listed in the summary."""
    source: str | None = None
    """Where photos come from, for those that do not say."""
    licence: str | None = None
    """Under what licence photos are used, for those that do not say."""
    consent: str | None = None
    """What the people in photos agreed to, for those that do not say."""


class Validate(Section):
    """What the metadata of a dataset version must satisfy before it is preprocessed."""

    min_photos: int = Field(1, ge=1)
    """Photos that there must be."""
    min_side: int = Field(32, ge=1)
    """A photo whose shorter side has fewer pixels is small."""
    max_small_share: float = Field(0.1, ge=0, le=1)
    """Share of photos that may be small."""
    max_pixels: int = Field(89_000_000, ge=1)
    """A photo of more pixels is large."""
    max_large_share: float = Field(0.05, ge=0, le=1)
    """Share of photos that may be large."""
    max_unreadable_share: float = Field(0.05, ge=0, le=1)
    """Share of files that may be empty or of no known format."""
    max_duplicate_share: float = Field(0.2, ge=0, le=1)
    """Share of photos that may be repeats of others."""
    max_without_identity_share: float = Field(0.5, ge=0, le=1)
    """Share of photos without a person's name above which there is a warning: anchoring can do without."""
    max_without_prompt_share: float = Field(0.5, ge=0, le=1)
    """Share of photos without a prompt above which there is a warning: preprocessing writes captions."""


class Landmarker(Section):
    """The 68-point network: FAN (face-alignment) or any ONNX file with its input convention.

    An ONNX network sees a square around the face as (pixel - mean) / scale; its first 136 outputs are x, y pairs in
    [0, 1] of that square.
    """

    kind: Literal["onnx", "fan"]
    """Kind of network; the keys below `path` are the convention of an ONNX network."""
    path: str
    """ONNX file; for FAN the weights file, or the folder that holds it under face-alignment's own name."""
    input_size: int = Field(64, ge=16)
    """Side of the square, in pixels."""
    box_scale: float = Field(1.4, gt=0)
    """Side of the square, in longer sides of the face box."""
    mean: float = 127.0
    """Subtracted from every pixel (0 to 255)."""
    scale: float = Field(127.0, gt=0)
    """What the difference is divided by."""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    """Order of the colour channels."""


class Captions(Section):
    """Where prompts and face prompts come from."""

    sources: tuple[Literal["sidecar", "clip", "internvl"], ...] = ("sidecar", "clip")
    """Asked in this order; the first answer wins."""
    clip_path: str | None = None
    """Folder of a CLIPModel, in the layout of transformers."""
    internvl_path: str | None = None
    """Folder of an InternVLForConditionalGeneration, in the layout of transformers."""


class Preprocess(Section):
    """Analysis of every photo, on Spark."""

    resolution: int = Field(ge=32)
    """Side of the stored square, in pixels."""
    jpeg_quality: int = Field(95, ge=50, le=100)
    """JPEG quality of the stored square."""
    insightface_name: str
    """Pack of insightface: a folder in `models` of `insightface_root`."""
    insightface_root: str
    """Folder of insightface's packs."""
    det_sizes: tuple[int, ...] = ()
    """Sides in pixels of the squares that faces are detected in; none: insightface's own, 128 and 640."""
    det_threshold: float = Field(0.5, gt=0, lt=1)
    """Score from which a detection is a face."""
    landmarker: Landmarker
    captions: Captions = Captions()
    face_share: float = Field(0.0, ge=0, le=1)
    """The stored square is tightened until the face box is this share of its height; 0: never."""
    several_faces: Literal["reject", "largest"] = "largest"
    """What becomes of a photo of several faces: rejected, or its largest face is taken."""
    max_pixels: int = Field(89_000_000, ge=1)
    """A photo of more pixels is rejected unread."""
    min_face_side: int = Field(20, ge=1)
    """Shorter side that a face box must have, in pixels of the photo as found."""
    min_sharpness: float = Field(0.0, ge=0)
    """Variance of the Laplacian that a face must have."""
    test_share: float = Field(0.12, ge=0, lt=1)
    """Share of people who are held out for evaluation."""
    val_share: float = Field(0.04, ge=0, lt=1)
    """Share of people who are held out to watch the training."""
    buckets: int = Field(8, ge=1)
    """Parquet files that rows are gathered in, by person."""
    slice_photos: int = Field(256, ge=1)
    """Photos of one task of Spark, and what a killed run may have to analyse again."""
    master: str = "local[2]"
    """Spark's master: `local[N]` for N processes here, or the address of a cluster."""
    spark: dict[str, str] = Field(default_factory=dict)
    """Settings of Spark itself, over the project's own (docs/guides/cluster.md)."""
    max_failed_share: float = Field(0.2, ge=0, le=1)
    """Share of photos above whose rejection the stage fails."""


class ValidateProcessed(Section):
    """What the processed rows must satisfy before anything is trained on them."""

    min_ok_share: float = Field(0.8, ge=0, le=1)
    """Share of photos that must be accepted, repeats not counted."""
    min_identities: int = Field(2, ge=0)
    """Named people with an accepted photo; 0 to train on photos of nobody named."""
    min_test_identities: int = Field(1, ge=0)
    """Of them, people held out for evaluation."""
    max_angle: float = Field(120.0, gt=0, le=180)
    """Yaw, pitch and roll that 99 % of faces must stay within, in degrees."""
    max_without_prompt_share: float = Field(0.1, ge=0, le=1)
    """Share of photos without a prompt or face prompt above which there is a warning."""


class Curate(Section):
    """From a pile of photos to a set of people: who is one person, which photos are left out, how many are taken."""

    working_side: int = Field(1280, ge=128)
    """Shorter side that photos are analysed with, in pixels: more finds smaller faces."""
    task_photos: int = Field(128, ge=1)
    """Photos of one task of Spark, and what a killed run may have to analyse again."""
    min_face_side: int = Field(48, ge=1)
    """Shorter side that a face box must have, in pixels of the photo."""
    min_score: float = Field(0.5, ge=0, le=1)
    """Score that the detector must give a face."""
    min_sharpness: float = Field(0.0, ge=0)
    """Variance of the Laplacian that a face must have."""
    max_yaw: float = Field(90.0, gt=0, le=180)
    """How far a head may be turned sideways, in degrees."""
    max_pitch: float = Field(60.0, gt=0, le=180)
    """How far a head may be turned up or down, in degrees."""
    max_outside_share: float = Field(0.2, ge=0, le=1)
    """Share of a face box that may lie outside of the photo."""
    similarity: float = Field(0.32, gt=0, lt=1)
    """Mean cosine from which two groups of faces are one person; of the recogniser (docs/explanation/curation.md)."""
    neighbours: int = Field(30, ge=2)
    """Nearest faces that each face is compared with."""
    likeness: float = Field(0.55, gt=0, lt=1)
    """They are also one from here on: a third of it is their cosine, two thirds the neighbours they share."""
    duplicate_similarity: float = Field(0.82, gt=0, le=1)
    """Correlation of the grey values of two aligned faces from which they are one picture."""
    min_photos: int = Field(3, ge=1)
    """Usable photos that a person must have."""
    max_photos: int = Field(35, ge=1)
    """Photos taken of one person, at most: the most diverse."""

    @model_validator(mode="after")
    def _photos(self) -> Curate:
        if self.min_photos > self.max_photos:
            raise ValueError(f"min_photos {self.min_photos} > max_photos {self.max_photos}: nobody could be selected")
        return self


class Term(Section):
    """Which values of one column a row may have to be trained on."""

    allow: tuple[str, ...] = ()
    """One of these patterns must fit, "*" any value; empty: every value, and none at all."""
    deny: tuple[str, ...] = ()
    """A value that fits one of these patterns is refused in any case."""


class Rights(Section):
    """Which photos may be trained on, by what their rows say in three columns, which must all agree.

    Patterns are those of the shell, upper and lower case alike.
    """

    consent: Term = Term(deny=("no", "refused", "withdrawn*"))
    """What the people in a photo agreed to."""
    licence: Term = Term()
    """Under what licence a photo is used."""
    source: Term = Term()
    """Where a photo comes from."""


class Parsing(Section):
    """A face-parsing network (ONNX): one score per class and pixel, of which the highest names the part.

    It sees (pixel / 255 - mean) / std.
    """

    path: str
    """ONNX file."""
    input_size: int = Field(512, ge=32)
    """Side of the square that it sees, in pixels."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Subtracted from the channels, in their order."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """What the channels are divided by."""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    """Order of the colour channels."""


class Export(Section):
    """How a dataset leaves the project."""

    shard_mb: int = Field(256, ge=1, le=4096)
    """Size of tar and Parquet shards, about, in MB."""
    parsing: Parsing | None = None
    """Network for the masks of the ConsistentID layout; null: no masks."""
