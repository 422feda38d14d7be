"""The adapter that ships with the foundation, at one byte per weight, for pictures right after installation."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from model.foundation import manifest
from model.foundation.face_networks import FILES
from model.network.adapter_config import CONFIG, WEIGHTS, check_weights, read_config, write_config
from model.network.quantisation import dequantise, quantise

FOLDER = "adapter"
# Gates of an adapter, not of its base networks.
ADAPTER_GATES = ("identity_tokens", "imr")
# Not quantised: fewer bits would move landmarks.
_UNQUANTISED = ("templates",)


def ship(
    adapter: Path, weights: Path, recipe: dict[str, Any], figures: dict[str, Any], seen: dict[str, str] | None = None
) -> Path:
    """Write `adapter`, quantised, into `weights`/adapter and into the manifest, and return the folder.

    `recipe` describes its training, `seen` is the ledger of its people. Raises ValueError, and keeps the previous
    adapter, if `adapter` has no IMR, was trained on another base than that in `weights`, or would make the folder too
    large.
    """
    from safetensors.torch import load_file, save_file

    from model.network.base import fingerprint_of_base

    known = manifest.read(weights)
    config = read_config(adapter)
    if config["reconfigurator"] is None or not config["templates"]:
        raise ValueError(f"{adapter}: has no IMR; run train_imr, which adds it")
    base = fingerprint_of_base(weights / "sd", weights / "image_encoder")
    if config["base"]["fingerprint"] != base:
        raise ValueError(
            f"{adapter}: trained on a base with fingerprint {config['base']['fingerprint'][:12]}, {weights} has "
            f"{base[:12]}; train the adapter on this base"
        )
    check_weights(adapter, config)
    tensors = quantise(dequantise(load_file(adapter / WEIGHTS)), keep=_UNQUANTISED)
    folder = weights / FOLDER
    others = sum(path.stat().st_size for path in weights.rglob("*") if path.is_file() and folder not in path.parents)
    with tempfile.TemporaryDirectory(dir=weights.parent) as temporary:
        made = Path(temporary) / FOLDER
        made.mkdir()
        save_file(tensors, made / WEIGHTS, {"format": "pt"})
        write_config(made, config)
        total = others + sum(path.stat().st_size for path in made.iterdir())
        if total > manifest.MAX_BYTES:
            raise ValueError(f"{weights}: {total} bytes with {adapter}, expected at most {manifest.MAX_BYTES}")
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
    # Figures of the previous adapter do not apply to this one.
    kept = {name: found for name, found in known["figures"].items() if name not in ADAPTER_GATES}
    trained = {**recipe, "recogniser": _recogniser(weights)}
    manifest.write(weights, {**known["recipe"], FOLDER: trained}, {**kept, FOLDER: figures}, seen=seen)
    return folder


def matches_base(weights: Path) -> bool:
    """Return whether `weights` has an adapter and this was trained on the base and recogniser there."""
    from model.network.base import fingerprint_of_base

    if not (weights / FOLDER / CONFIG).is_file():
        return False
    known = manifest.read(weights)["recipe"].get(FOLDER, {})
    base = fingerprint_of_base(weights / "sd", weights / "image_encoder")
    same = bool(read_config(weights / FOLDER)["base"]["fingerprint"] == base)
    return same and known.get("recogniser") == _recogniser(weights)


def _recogniser(weights: Path) -> str | None:
    """Return the sha256 (hex) of the conditioning recogniser, None without one."""
    file = weights / FILES["recogniser"]
    return manifest.digest(file) if file.is_file() else None
