"""Which trainings and evaluations are the same: equal keys are done once, also by two comparisons."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from model.network.base import fingerprint_of_base
from pipelines.core.errors import UserError
from pipelines.core.files import folder_sha256
from pipelines.core.params import Params
from pipelines.core.paths import resolve
from pipelines.evaluation.judge_loading import cache_key, judged_by
from pipelines.operations.compare.plan import Row

# What a loop notes or keeps on the way does not change where it ends.
_NOTES = {"checkpoint_every", "samples_every", "log_every"}
_KEY = 32
# With another version of this code, figures may be others.
_TRAINS = ("model/*.py", "model/*/*.py", "pipelines/stages/train*.py", "pipelines/data/training_data.py")
_DRAWS = (
    "model/*.py",
    "model/*/*.py",
    "pipelines/evaluation/*.py",
    "pipelines/evaluation/*/*.py",
    "pipelines/data/faces/*.py",
)


def refuse_equal(rows: Sequence[Row]) -> None:
    """Raise UserError where two rows have the same training and pictures: what differs, the method does not read."""
    seen: dict[str, Row] = {}
    for row in rows:
        key = json.dumps([_training(row), str(row.adapter or ""), row.params.evaluate.model_dump(mode="json")])
        if row.method is not None and (other := seen.setdefault(key, row)) is not row:
            raise UserError(
                f"{other.name} and {row.name}: the same training and the same pictures, since {row.method.name} does "
                "not read what differs; vary a parameter that it reads"
            )


def photos_key(params: Params, processed: Path) -> str:
    """Return what identifies the photos of a training; raises as `permitted_photos`."""
    from pipelines.data.training_data import permitted_photos

    permitted = permitted_photos(processed, ("train", "val"), params.rights)
    return " ".join(found.photos.digest() for found in permitted.values())


def training_key(row: Row, seed: int | None, photos: str) -> str:
    """Return the name (hex) of a training: a hash of base, photos, parameters that it reads, seed and code."""
    base = row.params.base
    weights = fingerprint_of_base(resolve(base.pipeline), resolve(base.image_encoder))
    faces = row.params.preprocess.insightface_name
    return cache_key([_training(row), seed, photos, weights, faces], *_TRAINS)[:_KEY]


def evaluation_key(params: Params, adapter: Path, held_out: str, variants: Collection[str]) -> str:
    """Return the name (hex) of an evaluation: a hash of adapter, photos, parameters, judges and code."""
    sections = params.model_dump(mode="json", by_alias=True, include={"base", "evaluate"})
    del sections["evaluate"]["processes"]
    made_of = [folder_sha256(adapter), held_out, sections, judged_by(params), sorted(variants)]
    return cache_key(made_of, *_DRAWS)[:_KEY]


def _training(row: Row) -> Any:
    """Return what shapes the adapters of a row, but for photos, weights of the base and seed; None without training."""
    method = row.method
    if method is None:
        return None
    sections = {"base", "caches", "train_anchoring", "train_imr"}
    tree = row.params.model_dump(mode="json", by_alias=True, include=sections)
    anchoring, imr, caches = (tree[name] for name in ("train_anchoring", "train_imr", "caches"))
    unread = {"train_anchoring": {*_NOTES, "seed"}, "train_imr": {*_NOTES, "seed"}, "caches": set[str]()}
    if not method.gate:
        unread["train_anchoring"].add("gate_threshold")
    if not method.facial_parts:
        unread["train_anchoring"].add("facial_parts")
        unread["caches"].add("parts")
    if not method.image_states:
        unread["caches"].add("clip")
    if not method.motion:
        unread["train_imr"] = set(imr)
        unread["caches"].add("identity_tokens")
        anchoring["sizes"] = {name: anchoring["sizes"][name] for name in ("tokens", "lora_rank")}
    if not anchoring["identity"]["weight"]:
        anchoring["identity"] = {}
    for section, names in zip((anchoring, imr, caches), unread.values(), strict=True):
        for name in names:
            section.pop(name, None)
    return tree
