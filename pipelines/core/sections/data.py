"""Sections of `params.yaml` for photos: ingest, validation, preprocessing, curation, rights, export."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Literal

from pydantic import Field, field_validator, model_validator

from pipelines.core.sections.face_networks import Expression, HeadPose
from pipelines.core.sections.section import ChannelOrder, Count, Domain, Section, Share

Engine = Literal["auto", "pandas", "spark"]


class Ingest(Section):
    """How files become rows of `data/faces`."""

    shard_mb: int = Field(128, ge=1, le=1024, description="Approximate size of a shard of the dataset, in MB.")
    max_file_mb: int = Field(256, ge=1, le=1024, description="Size in MB above which a file is skipped and reported.")
    source: str | None = Field(None, description="Source recorded for photos without one in their metadata.")
    licence: str | None = Field(None, description="Licence recorded for photos without one in their metadata.")
    consent: str | None = Field(None, description="Consent recorded for photos without one in their metadata.")
    domain: Literal["drawn", "photograph"] | None = Field(
        None, description="What the photos are; null: not stated, so `preprocess` measures it."
    )


class Validate(Section):
    """What the metadata of a dataset version must satisfy before it is preprocessed."""

    engine: Engine = Field(
        "auto",
        description="What Great Expectations runs on, also in validate_processed: `spark` above two million rows with "
        "`auto`, else `pandas`.",
    )
    min_photos: Count = Field(1, description="Minimum number of photos.")
    min_side: Count = Field(32, description="A photo whose shorter side has fewer pixels is small.")
    max_small_share: Share = Field(0.1, description="Maximum share of small photos.")
    max_pixels: Count = Field(89_000_000, description="A photo of more pixels is large.")
    max_large_share: Share = Field(0.05, description="Maximum share of large photos.")
    max_unreadable_share: Share = Field(0.05, description="Maximum share of empty files, and of unknown formats.")
    max_duplicate_share: Share = Field(0.2, description="Maximum share of photos with the bytes of another.")
    max_without_identity_share: Share = Field(
        0.5, description="Warn above this share of photos without a person's name; anchoring needs no names."
    )
    max_without_prompt_share: Share = Field(
        0.5, description="Warn above this share of photos without a prompt; preprocessing adds captions."
    )


class Landmarker(Section):
    """The network for 68 landmarks: FAN (face-alignment) or an ONNX file.

    The input of an ONNX network is a square around the face, (pixel - mean) / scale; its first 136 outputs are x, y
    pairs in [0, 1] of that square.
    """

    kind: Literal["onnx", "fan"] = Field(description="Kind of network; the keys after `path` apply to `onnx` only.")
    path: str = Field(description="ONNX file; for FAN, the weights file or the folder that holds it.")
    input_size: int = Field(64, ge=16, description="Side of the square, in pixels.")
    box_scale: float = Field(1.4, gt=0, description="Side of the square, as a multiple of the face box's longer side.")
    mean: float = Field(127.0, description="Value subtracted from every pixel (0 to 255).")
    scale: float = Field(127.0, gt=0, description="Divisor of the pixels after the subtraction.")
    channel_order: ChannelOrder = Field("rgb", description="Colour channels of the input, in order.")


class Captions(Section):
    """Where prompts and face prompts come from."""

    sources: tuple[Literal["sidecar", "clip", "internvl"], ...] = Field(
        ("sidecar", "clip"), description="Sources, asked in this order; the first text is used."
    )
    clip_path: str | None = Field(None, description="Folder of a CLIPModel, in the layout of transformers.")
    clip_min_confidence: Share = Field(
        0.0,
        description="Minimum probability among CLIP's words for clothes, background and expression, and none of them; "
        "below it nothing is stated. 0: the likeliest words always are.",
    )
    internvl_path: str | None = Field(None, description="Folder of an InternVL model, in the layout of transformers.")
    internvl_batch: int = Field(8, ge=1, le=16, description="Photos that InternVL describes at once.")


class Preprocess(Section):
    """Analysis of every photo, on Spark."""

    resolution: int = Field(ge=32, description="Side of the stored square, in pixels.")
    jpeg_quality: int = Field(95, ge=50, le=100, description="JPEG quality of the stored square.")
    insightface_name: str = Field(description="insightface pack: a folder in `insightface_root`/models.")
    insightface_root: str = Field(description="Folder that holds `models`, the folder of packs.")
    det_sizes: tuple[int, ...] = Field(
        (), description="Sides of the detector's square inputs, in pixels; empty: 128 and 640, as insightface."
    )
    det_threshold: float = Field(0.5, gt=0, lt=1, description="Minimum score of a detected face.")
    domain: Domain | None = Field(
        None, description="What the networks of this section know, if you vouch for it; null: as the manifest says."
    )
    landmarker: Landmarker
    expression: Expression = Expression()
    pose: HeadPose = HeadPose()
    captions: Captions = Captions()
    face_share: Share = Field(0.0, description="Minimum face height as a share of the stored square; 0: no bound.")
    several_faces: Literal["reject", "largest"] = Field(
        "largest", description="Reject a photo with several faces, or take its largest face."
    )
    max_pixels: Count = Field(89_000_000, description="A photo with more pixels is rejected without decoding.")
    min_face_side: Count = Field(20, description="Minimum shorter side of the face box, in pixels of the source photo.")
    min_sharpness: float = Field(0.0, ge=0, description="Minimum variance of the Laplacian of the face.")
    test_share: float = Field(0.12, ge=0, lt=1, description="Share of people held out for evaluation.")
    val_share: float = Field(0.04, ge=0, lt=1, description="Share of people held out to monitor the training.")
    buckets: Count = Field(8, description="Number of Parquet files; each person is in one of them.")
    slice_photos: Count = Field(256, description="Photos per Spark task; a killed run repeats unfinished tasks.")
    master: str = Field("local[2]", description="Spark master: `local[N]` for N processes, or a cluster's address.")
    spark: dict[str, str] = Field({}, description="Spark settings that replace the project's (docs/guides/cluster.md).")
    max_failed_share: Share = Field(0.2, description="Maximum share of rejected photos; above it the stage fails.")


class Threshold(Section):
    """A cosine chosen by hand, with the recogniser that it was chosen for."""

    value: float = Field(gt=0, lt=1, description="The cosine.")
    recogniser: str | None = Field(
        pattern=r"^[0-9a-f]{12,64}$", description="First digits of the sha256 of the recogniser's file."
    )


class ValidateProcessed(Section):
    """What the processed rows must satisfy before anything is trained on them."""

    min_ok_share: Share = Field(0.8, description="Minimum share of accepted photos, duplicates not counted.")
    min_identities: int = Field(2, ge=0, description="Minimum number of named people with an accepted photo.")
    min_test_identities: int = Field(1, ge=0, description="Minimum number of those who are held out for evaluation.")
    similarity: Threshold | None = Field(
        None,
        description="Mean cosine from which two people of different splits are one; null: as calibrated for the "
        "recogniser, and higher for few photos and many people.",
    )
    max_angle: float = Field(120.0, gt=0, le=180, description="Bound on yaw, pitch and roll of 99 % of faces, degrees.")
    max_without_prompt_share: Share = Field(0.1, description="Warn above this share without a prompt or face prompt.")
    max_open_share: Share = Field(
        0.5, description="Warn above this share of photos whose expression, or whose pose, is open."
    )


class Curate(Section):
    """Grouping of unnamed photos by person: which faces are one person, which photos are left out, how many remain."""

    working_side: int = Field(
        1280, ge=128, description="Minimum shorter side after reduction, in pixels; larger finds smaller faces."
    )
    task_photos: Count = Field(128, description="Photos per Spark task; a killed run repeats unfinished tasks.")
    min_face_side: Count = Field(48, description="Minimum shorter side of a face box, in pixels of the photo.")
    min_score: Share = Field(0.5, description="Minimum score of a detected face.")
    min_sharpness: float = Field(0.0, ge=0, description="Minimum variance of the Laplacian of the face.")
    max_yaw: float = Field(90.0, gt=0, le=180, description="Maximum yaw to either side, in degrees.")
    max_pitch: float = Field(60.0, gt=0, le=180, description="Maximum pitch up or down, in degrees.")
    max_outside_share: Share = Field(0.2, description="Maximum share of the face box outside of the photo.")
    similarity: Threshold | None = Field(
        None,
        description="Minimum mean cosine to join two groups of faces; null: as calibrated for the recogniser.",
    )
    neighbours: int = Field(30, ge=2, description="Number of nearest faces that each face is compared with.")
    likeness: float = Field(
        0.55, gt=0, lt=1, description="First round: minimum of ⅓ mean cosine + ⅔ share of common neighbours."
    )
    duplicate_similarity: float = Field(
        0.82, gt=0, le=1, description="Faces whose aligned grey values correlate this much are duplicates."
    )
    min_photos: Count = Field(3, description="Minimum number of usable photos of a person.")
    max_photos: Count = Field(35, description="Maximum number of photos of a person; the most diverse are taken.")

    @model_validator(mode="after")
    def _photos(self) -> Curate:
        if self.min_photos > self.max_photos:
            raise ValueError(
                f"min_photos {self.min_photos} > max_photos {self.max_photos}: expected at most max_photos"
            )
        return self


class Term(Section):
    """Which values of one column permit training on a row."""

    allow: tuple[str, ...] = Field((), description='A value must match one of these ("*": any value); empty: all rows.')
    deny: tuple[str, ...] = Field((), description="A value that matches one of these patterns is always refused.")


class Consent(Section):
    """Which consents permit training on a row: a clear yes, and by `unknown` perhaps none at all."""

    allow: tuple[str, ...] = Field(
        ("granted", "given", "agreed", "consented"),
        description="What counts as yes, beside a plain yes or true in the data; any other given value is refused.",
    )
    deny: tuple[str, ...] = Field(
        ("refused", "withdrawn*"), description="A value that matches one of these patterns is always refused."
    )
    unknown: Literal["allow", "deny"] = Field("allow", description="Whether photos without any consent are permitted.")

    @field_validator("allow")
    @classmethod
    def _clear(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            if any(fnmatch(word, pattern.strip().casefold()) for word in ("", "no", "false", "0", "none", "pending")):
                raise ValueError(f"{pattern!r} also matches values that are no yes; expected words such as granted")
        return patterns


class Rights(Section):
    """Which photos may be trained on: all three columns must permit it.

    Values are matched with shell patterns; case and surrounding white space are ignored.
    """

    consent: Consent = Field(Consent(), description="What the people agreed to.")
    licence: Term = Field(Term(), description="Licence under which a photo is used.")
    source: Term = Field(Term(), description="Where a photo comes from.")


class Parsing(Section):
    """A face-parsing network (ONNX): one score per class and pixel; the class with the highest score is the part.

    Its input is (pixel / 255 - mean) / std.
    """

    path: str = Field(description="ONNX file.")
    input_size: int = Field(512, ge=32, description="Side of the square input, in pixels.")
    mean: tuple[float, float, float] = Field((0.485, 0.456, 0.406), description="Value subtracted from each channel.")
    std: tuple[float, float, float] = Field((0.229, 0.224, 0.225), description="Divisor of each channel.")
    channel_order: ChannelOrder = Field("rgb", description="Colour channels of the input, in order.")


class Export(Section):
    """How a dataset is exported."""

    shard_mb: int = Field(256, ge=1, le=4096, description="Approximate size of tar and Parquet shards, in MB.")
    parsing: Parsing | None = Field(None, description="Network for the masks of the ConsistentID layout; null: none.")
