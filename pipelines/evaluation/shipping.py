"""Checks before an adapter ships: its weights, metrics and the parameters of its trainings must agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.core.documents import read_object
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.files import sha256
from pipelines.core.params import Params, changes, load_params
from pipelines.evaluation.belonging import record_of, withheld
from pipelines.evaluation.variants import JUDGED_BY


def read_metrics(file: Path, adapter: Path, profile: str) -> dict[str, Any]:
    """Return the metrics in `file`; raise UserError where they are not of this `adapter` and `profile`.

    Raises StageFailed where a figure is not measurable.
    """
    from model.network.adapter_config import WEIGHTS

    if not (adapter / WEIGHTS).is_file():
        raise UserError(f"{adapter / WEIGHTS}: no such file; expected the folder of a trained adapter")
    document = read_object(file, "`dynamicid evaluate` writes it")
    try:
        known = document["settings"]
        judges = document.get("judges")
        # Of more people than the base draws there are no figures, whatever the judges can.
        missing = {
            name: reason
            for name, reason in withheld(document).items()
            if judges is None or any(judges.get(judge, {}).get("reason") for judge in JUDGED_BY[name])
        }
        if not missing and not isinstance(document["normalised"]["model"]["id_similarity"]["value"], float):
            raise TypeError
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{file}: not what `dynamicid evaluate` writes; evaluate the adapter again") from None
    for name, found, expected in (
        ("adapter", known.get("adapter"), sha256(adapter / WEIGHTS)),
        ("profile", known.get("profile"), profile),
    ):
        if found != expected:
            raise UserError(
                f"{file}: figures of {name} {found}, expected {expected}; evaluate the adapter with the parameters "
                "that it was trained with"
            )
    if missing:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
        raise StageFailed(f"{file}: an adapter ships with all of its figures; not measurable: {reasons}")
    return document


def people_ledger(processed: Path) -> dict[str, str]:
    """Return the ledger of the people of `processed` whom a training reads; raise UserError where there are no rows."""
    import pyarrow.compute as pc

    from model.face.ledger import ledger
    from pipelines.core.row_schemas import PROCESSED_SCHEMA, open_rows

    people: dict[str, set[str]] = {"train": set(), "val": set()}
    rows = open_rows(processed, PROCESSED_SCHEMA)
    for batch in rows.to_batches(columns=["identity", "split"], cache_metadata=False):
        for split, names in people.items():
            found = batch["identity"].filter(pc.equal(batch["split"], split))
            names.update(filter(None, found.unique().to_pylist()))
    return ledger(train=people["train"], val=people["val"])


def read_legs(files: Sequence[Path], adapter: Path) -> list[Params]:
    """Return the parameters of the legs: the anchoring runs that continue one another; the last one made `adapter`.

    Raises UserError unless the first leg begins from scratch and every later one from an adapter, all have the same
    profile and sizes (`lora_rank` may grow), and the last leg's sizes, gate threshold and, where the adapter recorded
    them, all other parameters of its trainings are the adapter's.
    """
    from model.network.adapter_config import read_config

    legs = [load_params(file) for file in files]
    for number, (file, leg) in enumerate(zip(files, legs, strict=True)):
        named, start = f"{file}: leg {number + 1} of {len(legs)}", leg.train_anchoring.start_from
        if (start is None) != (number == 0):
            raise UserError(
                f"{named} has start_from {start or 'null'}; the first leg begins from scratch and every later one from "
                "an adapter: name all legs before the last in order (--before), as the manifest lists all of them"
            )
        earlier, sizes = legs[max(number - 1, 0)].train_anchoring.sizes, leg.train_anchoring.sizes
        if sizes != earlier.model_copy(update={"lora_rank": max(earlier.lora_rank, sizes.lora_rank)}):
            raise UserError(f"{named} has other sizes than the one before; only lora_rank may grow")
        if leg.profile != legs[-1].profile:
            raise UserError(f"{named} has profile {leg.profile}, the last one {legs[-1].profile}; expected one profile")
    try:
        config = read_config(adapter)
    except ValueError as error:
        raise UserError(f"foundation: {error}") from error
    section = legs[-1].train_anchoring
    for name, found, expected in (
        ("sizes", config["sizes"], section.sizes.model_dump()),
        ("gate_threshold", config["gate_threshold"], section.gate_threshold),
    ):
        if found != expected:
            raise UserError(
                f"{adapter}: has {name} {found}, train_anchoring of {files[-1]} has {expected}; give the parameters "
                "of its training (--params)"
            )
    for stage in ("train_anchoring", "train_imr"):
        record = record_of(adapter, stage)
        made = {} if record is None else record["params"][stage]
        given = legs[-1].model_dump(mode="json", by_alias=True)[stage]
        for key, trained, named in changes(made, {name: given.get(name) for name in made}, stage):
            raise UserError(
                f"{adapter}: trained with {key} {trained!r}, {files[-1]} has {named!r}; give the parameters of its "
                "training (--params)"
            )
    return legs


def recipe_of(legs: Sequence[Params], processes: int, document: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest's record of how an adapter was trained and under which settings it was evaluated.

    `processes` is the number of parallel training processes; `batch_size` is per process.
    """
    *before, last = legs
    return {
        "profile": last.profile,
        "processes": processes,
        **({"legs_before": [leg.train_anchoring.model_dump(mode="json") for leg in before]} if before else {}),
        "train_anchoring": last.train_anchoring.model_dump(mode="json"),
        "train_imr": last.train_imr.model_dump(mode="json"),
        "evaluated": {"evaluation_set": document.get("evaluation_set"), "settings": document["settings"]},
    }
