"""Convert published checkpoints to adapters and back, bit for bit: only the names of tensors change.

The parts that published files do not have (null tokens, landmark templates, τ, the fingerprint of the base) are in a
fourth file, `rest.safetensors`, so that converting back gives the same bytes. Without this file, the null tokens are
those of published code: the face encoder's output for a zero embedding and an empty picture. Files of other methods
(IP-Adapter-FaceID, ConsistentID) are read and written by the same functions.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.checkpoints.published_files import (
    FILE_NAMES,
    KINDS,
    PREFIXES,
    CheckpointError,
    compare,
    kind_of,
    method_of,
    of_kind,
    read_tensors,
    to_adapter_keys,
    to_published_keys,
    write_published,
)
from model.face.face_prompts import EXPRESSIONS, POSES
from model.formats import ADAPTER, KEY
from model.network.adapter import EMBEDDING, Adapter
from model.network.adapter_config import CONFIG, WEIGHTS, check_config, check_weights, method_in, read_config
from model.network.base import empty_states
from model.network.methods import DYNAMICID, Method
from model.network.quantisation import dequantise

REST = "rest.safetensors"


@dataclass(frozen=True)
class PublishedFiles:
    """The paths of the published files of one method; IMR and landmark encoder are given both or not at all."""

    saa: Path | None = None
    imr: Path | None = None
    landmark_encoder: Path | None = None
    rest: Path | None = None
    ip_adapter: Path | None = None
    consistentid: Path | None = None

    def __post_init__(self) -> None:
        if len({kinds for kinds in KINDS.values() if any(kind in self.kinds() for kind in kinds)}) != 1:
            raise CheckpointError("expected the files of one method: SAA, IP-Adapter-FaceID or ConsistentID")
        if self.main not in self.kinds():
            raise CheckpointError(f"files without {FILE_NAMES[self.main]}: expected this one, too")
        if (self.imr is None) != (self.landmark_encoder is None):
            given, lacking = ("IMR", "landmark encoder") if self.imr else ("landmark encoder", "IMR")
            raise CheckpointError(f"{given} without {lacking}: give both files, or neither")

    def kinds(self) -> dict[str, Path]:
        """Return the given files by kind."""
        given = {kind: getattr(self, kind) for kind in FILE_NAMES}
        return {kind: file for kind, file in given.items() if file is not None}

    @property
    def main(self) -> str:
        """The kind of the file that holds face encoder and processors."""
        return next(kinds[0] for kinds in KINDS.values() if any(kind in self.kinds() for kind in kinds))


@dataclass(frozen=True)
class AdapterShapes:
    """All that is needed to build an adapter without weights: the base's configuration, sizes and optional parts.

    `unet` is a folder with the config.json of a UNet2DConditionModel, `image_width` the hidden size of the image
    encoder, `sizes` as in `Adapter.create`.
    """

    unet: Path
    image_width: int
    sizes: Mapping[str, int]
    gate_threshold: float = 0.3
    residual: bool = False
    imr: bool = False
    templates: bool = False
    method: Method = DYNAMICID
    shortcut: float | None = None
    plain_steps: int | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any], unet: Path) -> AdapterShapes:
        """Return the shapes of an adapter from `config`, the content of its config.json."""
        imr = config["reconfigurator"]
        return cls(
            unet,
            config["image_width"],
            config["sizes"],
            config["gate_threshold"],
            residual=bool(imr and imr["residual"]),
            imr=imr is not None,
            templates=config["templates"],
            method=method_in(config, CONFIG),
            shortcut=config.get("shortcut"),
            plain_steps=config.get("plain_steps"),
        )

    def build(self) -> Adapter:
        """Return the adapter without weights (on the device `meta`), for its keys and shapes."""
        from diffusers import UNet2DConditionModel

        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(self.unet, local_files_only=True))
            adapter = Adapter(unet, self.image_width, self.sizes, self.gate_threshold, self.method)
            adapter.shortcut, adapter.plain_steps = self.shortcut, self.plain_steps
            if self.imr:
                adapter.add_reconfigurator(residual=self.residual)
            if self.templates:
                adapter.templates = torch.zeros(len(EXPRESSIONS), len(POSES), 68, 2)
        return adapter


@dataclass(frozen=True)
class Published:
    """The content of published files: tensors by kind and published key, and the rest file if given."""

    files: PublishedFiles
    tensors: Mapping[str, Mapping[str, Any]]
    rest: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None

    @property
    def main(self) -> Mapping[str, Any]:
        """The tensors of face encoder and processors."""
        return self.tensors[self.files.main]

    @property
    def method(self) -> Method:
        """The method of the files."""
        return method_of(self.files.main, self.main)


def read_published(files: PublishedFiles) -> Published:
    """Read every file; raise CheckpointError if one is missing, unreadable or of another kind."""
    tensors = {kind: of_kind(kind, read_tensors(file)) for kind, file in files.kinds().items()}
    for kind, file in files.kinds().items():
        found = kind_of(tensors[kind])
        if found not in (None, kind):
            raise CheckpointError(f"{file}: looks like {FILE_NAMES[str(found)]}; expected {FILE_NAMES[kind]}")
    if files.rest is None:
        return Published(files, tensors)
    return Published(files, tensors, read_tensors(files.rest), _rest_config(files.rest))


def _rest_config(file: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        metadata = opened.metadata() or {}
    try:
        config = json.loads(metadata.get("config", "{}"))
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict) or KEY not in config:
        raise CheckpointError(f"{file}: no adapter configuration in its metadata; expected the {REST} of an export")
    try:
        ADAPTER.check(file, config[KEY])
        check_config(config, file)
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    return config


def sizes_of(published: Published, width: int, given: Mapping[str, int]) -> dict[str, int]:
    """Return the sizes that the tensors' shapes determine, and those of `given` for the others (heads of the IMR).

    `width` is the cross-attention width of the UNet. If a tensor is missing, its size is that of `given`, and `verify`
    reports the tensor. Raise CheckpointError if the heads do not divide the width of the IMR.
    """
    sizes = dict(given)
    ranks = Counter(
        len(value)
        for key, value in published.main.items()
        if key.endswith("_lora.down.weight") and isinstance(value, Tensor)
    )
    if ranks:
        sizes["lora_rank"] = ranks.most_common(1)[0][0]
    main = to_adapter_keys(published.files.main, published.main)
    _read(sizes, "tokens", main, "face_encoder.proj.2.weight", divided_by=width)
    if published.method.facial_parts:
        _read(sizes, "parts_width", main, "facial_encoder.visual_projection.proj_in.weight")
        layers = "facial_encoder.visual_projection.layers."
        depth = len({key.removeprefix(layers).split(".")[0] for key in main if key.startswith(layers)})
        sizes |= {"parts_depth": depth} if depth else {}
    imr, landmark_encoder = published.tensors.get("imr", {}), published.tensors.get("landmark_encoder", {})
    _read(sizes, "reconfigurator_width", imr, "proj_in.weight")
    depth = len({key.split(".")[1] for key in imr if key.startswith("entangleNet.")})
    sizes["reconfigurator_depth"] = depth or sizes["reconfigurator_depth"]
    _read(sizes, "landmark_width", landmark_encoder, "blocks.0.0.conv_block.0.weight")
    _read(sizes, "landmark_features", landmark_encoder, "blocks.6.1.conv_block.0.weight")
    if sizes["reconfigurator_width"] % sizes["reconfigurator_heads"]:
        raise CheckpointError(
            f"IMR of width {sizes['reconfigurator_width']} with {sizes['reconfigurator_heads']} heads: expected a "
            "number of heads that divides the width; set train_anchoring.sizes.reconfigurator_heads (not in the files)"
        )
    return sizes


def _read(sizes: dict[str, int], name: str, tensors: Mapping[str, Any], key: str, divided_by: int = 1) -> None:
    value = tensors.get(key)
    if isinstance(value, Tensor) and value.ndim and len(value) >= divided_by:
        sizes[name] = len(value) // divided_by


def verify(published: Published, shapes: AdapterShapes) -> None:
    """Raise CheckpointError, listing them, if any file has missing, unexpected or misshapen keys."""
    expected = shapes.build().state_dict()
    problems = []
    if shapes.imr and published.files.imr is None:
        problems.append(
            f"{published.files.rest}: rest of an adapter with an IMR; give the files of IMR and landmark encoder too"
        )
    comparisons = [
        (file, compare(published.tensors[kind], to_published_keys(kind, expected)))
        for kind, file in published.files.kinds().items()
    ]
    if published.files.rest is not None:
        comparisons.append((published.files.rest, compare(published.rest, _rest_of(expected))))
    problems += [misfit.describe(str(file)) for file, misfit in comparisons if misfit]
    if problems:
        raise CheckpointError("\n  ".join(problems))


def to_adapter(published: Published, shapes: AdapterShapes, rest: Mapping[str, Tensor]) -> Adapter:
    """Return an adapter with the tensors of the files, in their precision; call `verify` first.

    `rest`: `null_tokens` (1, tokens, D) and, with `shapes.templates`, `templates` (7, 5, 68, 2).
    """
    adapter = shapes.build()
    state: dict[str, Tensor] = dict(rest)
    for kind in published.files.kinds():
        state.update(to_adapter_keys(kind, published.tensors[kind]))
    adapter.load_state_dict(state, assign=True)
    return adapter.eval()


def _rest_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    published = tuple(ours for prefixes in PREFIXES.values() for ours in prefixes.values())
    return {key: value for key, value in state.items() if not key.startswith(published)}


def read_adapter(folder: Path, unet: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return configuration and tensors of an adapter folder, in the precision of the file (int8 becomes float32).

    `unet` is the folder of the adapter's UNet. Raise CheckpointError if any key does not fit.
    """
    folder = Path(folder)
    config = read_config(folder)
    check_config(config, folder / CONFIG)
    expected = AdapterShapes.of(config, unet).build().state_dict()
    found = dequantise(read_tensors(folder / WEIGHTS))
    misfit = compare(found, expected)
    if misfit:
        raise CheckpointError(misfit.describe(str(folder / WEIGHTS)))
    check_weights(folder, config)
    return config, {key: found[key] for key in expected}


def write_all(config: Mapping[str, Any], state: Mapping[str, Tensor], folder: Path) -> list[Path]:
    """Write an adapter into an existing folder, as published files and the rest file; return the files."""
    from safetensors.torch import save_file

    kinds = [kind for kind in KINDS[method_in(config, CONFIG).name] if to_published_keys(kind, state)]
    files = [write_published(folder, kind, to_published_keys(kind, state)) for kind in kinds]
    rest = {key: value.contiguous() for key, value in _rest_of(state).items()}
    save_file(rest, folder / REST, {"format": "pt", "config": json.dumps(config)})
    return [*files, folder / REST]


@torch.no_grad()
def encoded_null_tokens(published: Published, shapes: AdapterShapes, image_encoder: Any) -> Tensor:
    """Return the null tokens of published code, (1, tokens, D) float32; call `verify` first.

    They are the face encoder's output for a zero embedding and the penultimate states of `image_encoder`, the CLIP
    vision model, for a picture that is zero after normalisation.
    """
    encoder = shapes.build().face_encoder.to_empty(device="cpu").float().eval()
    prefix, found = "face_encoder.", to_adapter_keys(published.files.main, published.main)
    encoder.load_state_dict({key.removeprefix(prefix): x for key, x in found.items() if key.startswith(prefix)})
    return encoder(torch.zeros(1, EMBEDDING), empty_states(image_encoder), shapes.shortcut)
