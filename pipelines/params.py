"""Typed parameters: one section a stage, frozen, unknown keys refused; `params.yaml` is the single source.

A profile (`profiles/<name>.yaml`) is a complete parameter file and nothing but data; `dynamicid configure`
copies one to `params.yaml` with changes applied.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipelines.errors import UserError


class Section(BaseModel):
    """A frozen group of parameters that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class BaseModels(Section):
    """The frozen networks the adapter stands on; folders relative to the project root or absolute."""

    pipeline: str
    image_encoder: str
    resolution: int = Field(ge=32, multiple_of=8)
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"


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
    spark: dict[str, str] = {}
    max_failed_share: float = Field(0.2, ge=0, le=1)


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
    # Two groups of faces are one person from this mean cosine on: it belongs to the recogniser (docs/curation.md).
    similarity: float = Field(0.32, gt=0, lt=1)
    # Nearest faces that each face is compared with.
    neighbours: int = Field(48, ge=2)
    # Correlation of the grey values of two aligned faces from which they are one picture.
    duplicate_similarity: float = Field(0.82, gt=0, le=1)
    min_photos: int = Field(3, ge=1)
    max_photos: int = Field(35, ge=1)

    @model_validator(mode="after")
    def _photos(self) -> Curate:
        if self.min_photos > self.max_photos:
            raise ValueError(f"min_photos {self.min_photos} > max_photos {self.max_photos}: nobody could be selected")
        return self


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


class FaceEncoderSize(Section):
    """Sizes of the adapter's parts; those of the base model are read from its own configuration."""

    tokens: int = 4
    lora_rank: int = 128
    reconfigurator_width: int = 1024
    reconfigurator_heads: int = 16
    reconfigurator_depth: int = 1
    landmark_features: int = 768
    landmark_width: int = 16


class Loop(Section):
    """What both training stages share: AdamW, warm-up, averaged weights, checkpoints."""

    steps: int = Field(ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    # After the warm-up the rate stays, or follows half a cosine to zero.
    learning_rate_decay: Literal["none", "cosine"] = "none"
    weight_decay: float = Field(1e-2, ge=0)
    warmup_steps: int = Field(0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    checkpoint_every: int = Field(200, ge=1)
    # Steps between two rows of losses.csv.
    log_every: int = Field(10, ge=1)
    # Photos whose latents, crops or prompts are encoded at once.
    cache_batch: int = Field(32, ge=1)
    seed: int = Field(0, ge=0)
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    # The UNet's activations are computed again on the way back: a third more time, a fraction of the memory.
    gradient_checkpointing: bool = False


class TrainAnchoring(Loop):
    """The anchoring stage (paper section 3.4): face encoder and SAA on single-person pictures."""

    # A registered version whose face encoder and SAA training goes on from; by number, since an alias moves.
    start_from: str | None = Field(None, pattern=r"^models:/[^/@]+/[0-9]+$")
    # Photos a step and process.
    batch_size: int = Field(ge=1)
    drop_text: float = Field(0.05, ge=0, le=1)
    drop_identity: float = Field(0.05, ge=0, le=1)
    drop_both: float = Field(0.05, ge=0, le=1)
    gate_threshold: float = Field(0.3, ge=0, lt=1)
    # Weight of the latent cells inside the face box, against 1 outside.
    face_loss_weight: float = Field(1.0, gt=0)
    min_snr_gamma: float | None = None
    # Held-out photos with fixed noise on which the curve's `probe` is measured.
    probe_photos: int = Field(32, ge=1)
    sizes: FaceEncoderSize = FaceEncoderSize()

    @model_validator(mode="after")
    def _shares(self) -> TrainAnchoring:
        total = self.drop_text + self.drop_identity + self.drop_both
        if total > 1:
            raise ValueError(f"drop_text + drop_identity + drop_both = {total:g}: expected at most 1")
        return self


class TrainImr(Loop):
    """The reconfiguration stage (paper section 3.4): the IMR on frozen identity tokens."""

    # Photos of the same person that one source is turned into, at most.
    helpers: int = Field(32, ge=1)
    # People a step and process.
    batch_size: int = Field(1, ge=1)
    # λ of the noise term, every how many steps it is computed, and on how many of a step's photos.
    ldc_weight: float = Field(1.0, ge=0)
    ldc_every: int = Field(1, ge=1)
    ldc_targets: int = Field(32, ge=1)
    residual: bool = True
    # Share of targets whose landmarks are a template's, moved to the source's shape, instead of their own.
    template_share: float = Field(0.5, ge=0, le=1)


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


class Judges(Section):
    """Networks that judge and never condition."""

    recogniser: str
    recogniser_size: int = 112
    recogniser_mean: float = 127.5
    recogniser_scale: float = 127.5
    expression_pose: str
    # A CLIPModel folder with tokenizer and preprocessor_config.json: reads whether a picture follows its prompt.
    clip: str


class Evaluate(Section):
    """The evaluation protocol: who, what is asked, how it is sampled."""

    people: int = Field(ge=2)
    prompts: int = Field(2, ge=1)
    seeds: int = Field(1, ge=1)
    # Pictures of one look and prompt per person, from different noise: `diversity` is their spread.
    diversity_seeds: int = Field(3, ge=2)
    # Looks per person and seed, of eleven, that the variants beside the model draw.
    variant_cells: int = Field(5, ge=2, le=11)
    pairs: int = Field(4, ge=1)
    steps: int = Field(20, ge=1)
    guidance: float = 3.0
    sampler: Literal["ddim", "dpm"] = "ddim"
    batch_size: int = 16
    bootstrap: int = 1000
    boost_steps: int = 0
    boost: float = 0.0
    sweeps: bool = False
    seed: int = 0
    # An adapter on the same base that is drawn beside the one just trained, for comparison.
    shipped_adapter: str | None = None
    judges: Judges


class Gate(Section):
    """One bound on one metric of `reports/metrics.json`."""

    metric: str
    variant: str = "model"
    minimum: float | None = None
    maximum: float | None = None
    # How much worse than the champion on the same evaluation set it may be.
    max_regression: float | None = Field(None, ge=0)
    # What a 95 % interval that reaches over the bound means: nothing, that the gate is passed, that it is failed.
    doubt: Literal["ignore", "passes", "refuses"] = "ignore"

    @model_validator(mode="after")
    def _bounded(self) -> Gate:
        if self.minimum is None and self.maximum is None and self.max_regression is None:
            raise ValueError(f"gate {self.metric} bounds nothing: give it minimum, maximum or max_regression")
        return self


class Register(Section):
    """Under what name the adapter is registered and what promotes it."""

    model_name: str = "dynamicid"
    promote: bool = True
    gates: tuple[Gate, ...] = ()


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
    limits: dict[Literal["embedding", "yaw", "pitch", "brightness", "size", "expression", "outcome"], DriftLimit] = {}


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


class Params(Section):
    """Everything a run depends on."""

    profile: str
    base: BaseModels
    ingest: Ingest = Ingest()
    curate: Curate = Curate()
    validate_: Validate = Field(Validate(), alias="validate")
    preprocess: Preprocess
    validate_processed: ValidateProcessed = ValidateProcessed()
    rights: Rights = Rights()
    train_anchoring: TrainAnchoring
    train_imr: TrainImr
    evaluate: Evaluate
    register_: Register = Field(Register(), alias="register")
    drift: Drift = Drift()
    keeping: Keeping = Keeping()
    inbox: Inbox = Inbox()
    retrain: Retrain = Retrain()
    export: Export = Export()
    serve: Serve = Serve()


def _set(tree: dict[str, Any], assignment: str) -> None:
    key, sign, text = assignment.partition("=")
    if not sign:
        raise UserError(f"--set {assignment}: expected section.key=value")
    *parents, last = key.strip().split(".")
    node = tree
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise UserError(f"--set {assignment}: {parent} is a value, not a section")
        node = child
    node[last] = yaml.safe_load(text)


def check_params(tree: dict[str, Any], origin: str) -> Params:
    """Turn a plain tree into Params; raise UserError naming every key that is unknown, missing or out of range."""
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            where = ".".join(str(part) for part in problem["loc"])
            if problem["type"] == "extra_forbidden":
                problems.append(f"unknown key {where}")
            elif problem["type"] == "missing":
                problems.append(f"missing key {where}")
            else:
                problems.append(f"{where} = {problem['input']!r}: {problem['msg']}")
        raise UserError(f"{origin}: {'; '.join(problems)}") from None


def read_tree(file: Path) -> dict[str, Any]:
    """Read a YAML parameter file into a plain tree; raise UserError where it is missing or not a mapping."""
    if not file.is_file():
        raise UserError(f"{file}: no such parameter file; `dynamicid configure --profile tiny` writes params.yaml")
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{file}: expected a mapping of sections")
    return tree


def load_params(file: Path, overrides: Iterable[str] = ()) -> Params:
    """Read `file`, apply `section.key=value` overrides in order, and check every key."""
    tree = read_tree(file)
    for assignment in overrides:
        _set(tree, assignment)
    return check_params(tree, str(file))


def dump_params(tree: dict[str, Any], file: Path) -> None:
    """Write a parameter tree as YAML, sections in the order of the chain."""
    file.write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=110), encoding="utf-8")


def overridden_tree(file: Path, overrides: Iterable[str]) -> dict[str, Any]:
    """Return the tree of `file` with overrides applied, after checking that it is a valid parameter file."""
    tree = read_tree(file)
    for assignment in overrides:
        _set(tree, assignment)
    check_params(tree, str(file))
    return tree
