"""Train a base of the team's own photographs, from what preprocessing has made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.core.errors import UserError
from pipelines.core.paths import refuse_pointers, resolve

if TYPE_CHECKING:
    from pipelines.core.params import Params

AUTOENCODER = Path("weights/taesd")
WORK = Path(".dynamicid/foundation/photographs")
FOLDER, ENCODER = "sd", "image_encoder"


def train_base(
    processed: Path,
    params: Params,
    *,
    work: Path,
    weights: Path | None,
    autoencoder: Path,
    parts: Sequence[str] | None,
    steps_scale: float,
) -> dict[str, Any]:
    """Train CLIP and UNet on the permitted photos of split train; return figures and the path of the manifest.

    `weights` is by default where `base.pipeline` and `base.image_encoder` expect them. The manifest records the photos
    by hash, their licences, sources and consents by number of photos, and the networks that analysed them.
    Raises UserError for a folder that is not preprocessed, and where parameters or photos do not fit.
    """
    from model.foundation.edition import PHOTOGRAPHS
    from model.foundation.measure import chosen_parts
    from model.foundation.photographs import RECIPE, PhotographContext, train_photographs
    from pipelines.core.weights.domains import DRAWN, domains_of, main_domain
    from pipelines.core.weights.licences import networks_at
    from pipelines.core.weights.manifest import named_paths
    from pipelines.data.training_data import permitted_terms
    from pipelines.stages.training_stage import photos_to_train_on
    from pipelines.versions.forgotten import hashed_people
    from pipelines.versions.places import BASE, CACHE, note_outside

    names = [part.name for part in RECIPE]
    chosen = chosen_parts(names if parts is None else parts, names)
    _refuse_raw(processed)
    folder = weights or _folder_of(params)
    if not (autoencoder / "config.json").is_file():
        raise UserError(
            f"--autoencoder {autoencoder}: no autoencoder there (config.json is missing); `dynamicid weights fetch "
            "taesd` brings one"
        )
    refuse_pointers(autoencoder.rglob("*"))
    if main_domain(domains_of(processed)) == DRAWN:
        raise UserError(
            f"--from {processed}: most of these are drawings, and the base would be taken for one that knows "
            "photographs; if they are photographs, ingest them with ingest.domain=photograph"
        )
    photos, refused = photos_to_train_on(params, processed)
    resolution = params.base.resolution
    edition = replace(PHOTOGRAPHS, size=resolution)
    if resolution % (2 * edition.autoencoder.factor):
        raise UserError(f"base.resolution {resolution}: expected a multiple of {2 * edition.autoencoder.factor}")
    named = named_paths(params.model_dump(mode="json", by_alias=True), ("preprocess",))
    origin = {
        "rights": params.rights.model_dump(mode="json"),
        "people": len(photos["train"].people),
        # Hashed, so that a given person can be found in it, as in the list of the forgotten.
        "people_seen": hashed_people(photos["train"].people),
        "photos_not_permitted": refused,
        **permitted_terms(processed, "train", params.rights),
        "networks": networks_at({**named, "autoencoder": str(autoencoder)}),
    }
    root = Path.cwd()
    note_outside(root, work, str(WORK), CACHE)
    note_outside(root, folder, "", BASE)
    context = PhotographContext(work, folder, edition, autoencoder, photos["train"], photos["val"], params.base.hair)
    figures = train_photographs(context, origin, parts=chosen, steps_scale=steps_scale)
    missing = [name for name in names if name not in figures]
    return {"figures": figures, "manifest": None if missing else str(folder / "manifest.json"), "missing": missing}


def _refuse_raw(processed: Path) -> None:
    """Raise UserError for a dataset that is not preprocessed: it has neither faces nor splits."""
    import pyarrow.parquet as pq

    shards = sorted(processed.rglob("*.parquet"))
    refuse_pointers(shards)
    if shards and "split" not in pq.read_schema(shards[0]).names:
        raise UserError(
            f"--from {processed}: these photos are not preprocessed; run `dynamicid preprocess`, and give the folder "
            "that it writes (data/processed): it states which people are held out"
        )


def _folder_of(params: Params) -> Path:
    pipeline, encoder = resolve(params.base.pipeline), resolve(params.base.image_encoder)
    if (pipeline.name, encoder.name) != (FOLDER, ENCODER) or pipeline.parent != encoder.parent:
        raise UserError(
            f"base.pipeline = {params.base.pipeline}, base.image_encoder = {params.base.image_encoder}: expected DIR/"
            f"{FOLDER} and DIR/{ENCODER}, which this training writes; take the profile photographs, or give --weights"
        )
    if (pipeline.parent / "adapter").exists():
        raise UserError(
            f"{pipeline.parent}: the networks that ship with the project are there; take the profile photographs, or "
            "give --weights"
        )
    return pipeline.parent
