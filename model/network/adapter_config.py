"""`config.json` of an adapter: what its networks are made from, checked before anything is made."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from model.face.conventions import OURS, Conventions, read_conventions
from model.formats import ADAPTER, KEY, read_object
from model.network.base import BaseReference
from model.network.denoisers import KINDS, UNET
from model.network.methods import DYNAMICID, Method, method_named

WEIGHTS = "adapter.safetensors"
CONFIG = "config.json"
# The sizes of an adapter and their defaults (paper section 3).
SIZES: dict[str, int] = {
    "tokens": 4,
    "lora_rank": 128,
    "reconfigurator_width": 1024,
    "reconfigurator_heads": 16,
    "reconfigurator_depth": 1,
    "landmark_features": 768,
    "landmark_width": 16,
}
# Those of the facial encoder, in methods with facial parts (ConsistentID, section 3.2).
PART_SIZES: dict[str, int] = {"parts_width": 1024, "parts_depth": 8}
# The first format with conventions, the first that names a method, and the first that names the denoiser's class.
_CONVENTIONS, _METHODS, _DENOISERS = 2, 3, 4
_MOST = 2**16
# A layer is a Python object of its own, whatever its width.
_MOST_LAYERS = 256


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write `config.json` beside the weights in `folder`, with their sha256: the two files are one adapter."""
    text = json.dumps({**config, "weights": _sha256(folder / WEIGHTS)}, indent=2)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def read_config(folder: Path) -> dict[str, Any]:
    """Return the configuration of the adapter in `folder`; ValueError if missing, damaged or of a newer format."""
    file = Path(folder) / CONFIG
    if not file.is_file():
        raise ValueError(f"{file}: no such file; expected an adapter folder ({WEIGHTS}, {CONFIG})")
    config = read_object(file, "copy the adapter again")
    ADAPTER.check(file, config.get(KEY, "none"))
    return config


def check_config(config: Mapping[str, Any], origin: object) -> None:
    """Raise ValueError, beginning with `origin`, where a value cannot be an adapter's: before it is built."""
    if wrong := list(_wrong_values(config)):
        raise ValueError(f"{origin}: damaged: {', '.join(wrong)} missing or not a value of an adapter; copy it again")
    method_in(config, origin)
    conventions_in(config, origin)
    denoiser_in(config, origin)


def conventions_in(config: Mapping[str, Any], origin: object) -> Conventions:
    """Return the conventions of an adapter, in format 1 this project's own.

    Raise ValueError, beginning with `origin`, where they are missing in a later format, or not complete.
    """
    if config.get(KEY, 1) != 1:
        return read_conventions(config.get("conventions"), f"{origin}: conventions")
    return OURS.with_values({"hair": config.get("hair", False)})


def stated_conventions(conventions: Conventions) -> dict[str, Any]:
    """Return what `config.json` states of conventions, with its format: a reader of format 1 knows only ours."""
    if conventions.are_ours:
        return {KEY: 1, **({"hair": True} if conventions.hair else {})}
    return {KEY: _CONVENTIONS, "conventions": conventions.model_dump()}


def method_in(config: Mapping[str, Any], origin: object) -> Method:
    """Return the method of an adapter: DynamicID where none is named; raise ValueError for an unknown one."""
    return method_named(config.get("method", DYNAMICID.name), origin)


def stated_method(method: Method, own: Mapping[str, Any], conventions: Conventions) -> dict[str, Any]:
    """Return what `config.json` states of another method than DynamicID, with its format; empty for DynamicID.

    `own`: values of the method, None for those that it does not have. Readers of earlier formats know no other method,
    and would draw with a gate.
    """
    if method == DYNAMICID:
        return {}
    given = {name: value for name, value in own.items() if value is not None}
    return {KEY: _METHODS, "method": method.name, **given, "conventions": conventions.model_dump()}


def denoiser_in(config: Mapping[str, Any], origin: object) -> str:
    """Return the class of denoiser that an adapter extends, a UNet if none is named; ValueError for an unknown one."""
    named = config.get("denoiser", UNET)
    if named not in KINDS:
        raise ValueError(f"{origin}: denoiser {str(named)[:80]!r}; expected one of {', '.join(KINDS)}")
    return str(named)


def stated_denoiser(kind: str, conventions: Conventions) -> dict[str, Any]:
    """Return what `config.json` states of another denoiser than a UNet, with its format; empty for a UNet."""
    if kind == UNET:
        return {}
    return {KEY: _DENOISERS, "denoiser": kind, "conventions": conventions.model_dump()}


def sizes_for(method: Method, sizes: Any) -> dict[str, int]:
    """Return the sizes of an adapter from an object or mapping; those that it lacks have their defaults."""

    def value(name: str, default: int) -> Any:
        return sizes.get(name, default) if isinstance(sizes, Mapping) else getattr(sizes, name, default)

    wanted = SIZES | (PART_SIZES if method.facial_parts else {})
    return {name: int(value(name, default)) for name, default in wanted.items()}


def _wrong_values(config: Mapping[str, Any]) -> Iterator[str]:
    sizes, threshold, imr = config.get("sizes"), config.get("gate_threshold"), config.get("reconfigurator", "none")
    if not isinstance(sizes, dict):
        yield "sizes"
    else:
        most = {"reconfigurator_depth": _MOST_LAYERS, "parts_depth": _MOST_LAYERS}
        known = SIZES | PART_SIZES
        yield from (f"sizes.{name}" for name in known if not _whole(sizes.get(name, 1), most.get(name, _MOST)))
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not math.isfinite(threshold):
        yield "gate_threshold"
    yield from (name for name in ("cross_attention_width", "image_width") if not _whole(config.get(name), _MOST))
    if imr is not None and not (isinstance(imr, dict) and isinstance(imr.get("residual"), bool)):
        yield "reconfigurator"
    if not isinstance(config.get("templates"), bool):
        yield "templates"
    shortcut = config.get("shortcut", 1.0)
    if isinstance(shortcut, bool) or not isinstance(shortcut, int | float) or not math.isfinite(shortcut):
        yield "shortcut"
    if not _whole(config.get("plain_steps", 0), _MOST, least=0):
        yield "plain_steps"
    if not isinstance(config.get("hair", False), bool):
        yield "hair"
    names, base = {field.name for field in fields(BaseReference)}, config.get("base")
    if not isinstance(base, dict) or set(base) != names or not all(map(_is_path, base.values())):
        yield "base"
    yield from (name for name in ("weights",) if not isinstance(config.get(name, ""), str))
    if not isinstance(config.get("made_by"), dict | None):
        yield "made_by"


def _whole(value: Any, most: int, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def check_weights(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise ValueError if `config`, read from `folder`, was written for other weights than those beside it."""
    recorded = config.get("weights")  # adapters of earlier versions do not have it
    if recorded is not None and (present := _sha256(folder / WEIGHTS)) != recorded:
        raise ValueError(
            f"{folder / CONFIG}: belongs to weights with sha256 {recorded[:12]}, {WEIGHTS} beside it has "
            f"{present[:12]}; the two files are of different adapters: copy the whole folder again, or train it again"
        )


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
