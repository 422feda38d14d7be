"""Published checkpoints as adapters and back, bit for bit: tensors are renamed and never computed with.

What the published files have no place for (null tokens, landmark templates, τ, the base's fingerprint) travels in a
fourth file, `rest.safetensors`, so that an adapter folder comes back with the same bytes. Without it the null tokens
are what published code uses for "nobody": the face encoder's answer to a zero embedding and an empty picture.
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
    PREFIXES,
    CheckpointError,
    compare,
    likeness,
    read_tensors,
    to_adapter_keys,
    to_published_keys,
    write_published,
)
from model.face.face_prompts import EXPRESSIONS, POSES
from model.network.adapter import EMBEDDING, FORMAT, WEIGHTS, Adapter, read_config
from model.network.compact import whole

REST = "rest.safetensors"


@dataclass(frozen=True)
class PublishedFiles:
    """Where the published files lie: IMR and landmark encoder come together or not at all."""

    saa: Path
    imr: Path | None = None
    landmark_encoder: Path | None = None
    rest: Path | None = None

    def __post_init__(self) -> None:
        if (self.imr is None) != (self.landmark_encoder is None):
            given, lacking = ("IMR", "landmark encoder") if self.imr else ("landmark encoder", "IMR")
            raise CheckpointError(f"{given} without {lacking}: give both files, or neither")

    def kinds(self) -> dict[str, Path]:
        """The files that are given, by kind."""
        given = {"saa": self.saa, "imr": self.imr, "landmark_encoder": self.landmark_encoder}
        return {kind: file for kind, file in given.items() if file is not None}


@dataclass(frozen=True)
class Skeleton:
    """What the shapes of an adapter follow from: two configurations of the base, and sizes.

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

    @classmethod
    def of(cls, config: Mapping[str, Any], unet: Path) -> Skeleton:
        """Return the skeleton of an adapter whose config.json holds `config`."""
        imr = config["reconfigurator"]
        return cls(
            unet,
            config["image_width"],
            config["sizes"],
            config["gate_threshold"],
            residual=bool(imr and imr["residual"]),
            imr=imr is not None,
            templates=config["templates"],
        )

    def build(self) -> Adapter:
        """Return the adapter without weights (on the device `meta`): its state names every key and shape."""
        from diffusers import UNet2DConditionModel

        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(self.unet, local_files_only=True))
            adapter = Adapter(unet, self.image_width, self.sizes, self.gate_threshold)
            if self.imr:
                adapter.add_reconfigurator(residual=self.residual)
            if self.templates:
                adapter.templates = torch.zeros(len(EXPRESSIONS), len(POSES), 68, 2)
        return adapter


@dataclass(frozen=True)
class Published:
    """The published files, read: tensors under published keys by kind, and the rest where there is one."""

    files: PublishedFiles
    tensors: Mapping[str, Mapping[str, Any]]
    rest: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None


def read_published(files: PublishedFiles) -> Published:
    """Read every file; CheckpointError where one is missing, unreadable, or holds something else."""
    tensors = {kind: read_tensors(file) for kind, file in files.kinds().items()}
    for kind, file in files.kinds().items():
        looks = likeness(tensors[kind])
        if looks not in (None, kind):
            raise CheckpointError(f"{file}: looks like {FILE_NAMES[str(looks)]}; expected {FILE_NAMES[kind]}")
    if files.rest is None:
        return Published(files, tensors)
    return Published(files, tensors, read_tensors(files.rest), _rest_config(files.rest))


def _rest_config(file: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        metadata = opened.metadata() or {}
    config = json.loads(metadata.get("config", "{}"))
    if config.get("format") != FORMAT:
        raise CheckpointError(
            f"{file}: no adapter configuration of format {FORMAT} in its metadata; expected the {REST} of an export"
        )
    return config


def sizes_of(published: Published, width: int, given: Mapping[str, int]) -> dict[str, int]:
    """Read the sizes off the tensors; what no shape tells (the heads of the IMR), or no file holds, is as `given`.

    `width` is the cross-attention width of the UNet. A size whose tensor is missing stays as given: the comparison
    reports the tensor.
    """
    sizes = dict(given)
    saa = published.tensors["saa"]
    ranks = Counter(
        len(value) for key, value in saa.items() if key.endswith("_lora.down.weight") and isinstance(value, Tensor)
    )
    if ranks:
        sizes["lora_rank"] = ranks.most_common(1)[0][0]
    _read(sizes, "tokens", saa, "proj_module.proj.2.weight", divided_by=width)
    imr, eye = published.tensors.get("imr", {}), published.tensors.get("landmark_encoder", {})
    _read(sizes, "reconfigurator_width", imr, "proj_in.weight")
    depth = len({key.split(".")[1] for key in imr if key.startswith("entangleNet.")})
    sizes["reconfigurator_depth"] = depth or sizes["reconfigurator_depth"]
    _read(sizes, "landmark_width", eye, "blocks.0.0.conv_block.0.weight")
    _read(sizes, "landmark_features", eye, "blocks.6.1.conv_block.0.weight")
    if sizes["reconfigurator_width"] % sizes["reconfigurator_heads"]:
        raise CheckpointError(
            f"IMR of width {sizes['reconfigurator_width']} with {sizes['reconfigurator_heads']} heads: expected a "
            "number of heads that divides it (no file tells how many: train_anchoring.sizes.reconfigurator_heads)"
        )
    return sizes


def _read(sizes: dict[str, int], name: str, tensors: Mapping[str, Any], key: str, divided_by: int = 1) -> None:
    value = tensors.get(key)
    if isinstance(value, Tensor) and value.ndim and len(value) >= divided_by:
        sizes[name] = len(value) // divided_by


def verify(published: Published, skeleton: Skeleton) -> None:
    """Raise CheckpointError with every missing, unexpected and misshapen key of every file, where there is one."""
    expected = skeleton.build().state_dict()
    problems = []
    if skeleton.imr and published.files.imr is None:
        problems.append(
            f"{published.files.rest}: of an adapter with an IMR; give the files of IMR and landmark encoder too"
        )
    for kind, file in published.files.kinds().items():
        misfit = compare(published.tensors[kind], to_published_keys(kind, expected))
        if misfit:
            problems.append(misfit.told(str(file)))
    if published.files.rest is not None:
        misfit = compare(published.rest, _rest_of(expected))
        if misfit:
            problems.append(misfit.told(str(published.files.rest)))
    if problems:
        raise CheckpointError("\n".join(problems))


def to_adapter(published: Published, skeleton: Skeleton, rest: Mapping[str, Tensor]) -> Adapter:
    """Return an adapter that holds exactly the tensors of the files, in their own precision; `verify` comes first.

    `rest` holds `null_tokens` (1, tokens, D) and, where the skeleton has them, `templates` (7, 5, 68, 2).
    """
    adapter = skeleton.build()
    state: dict[str, Tensor] = dict(rest)
    for kind in published.files.kinds():
        state.update(to_adapter_keys(kind, published.tensors[kind]))
    adapter.load_state_dict(state, assign=True)
    return adapter.eval()


def _rest_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.startswith(_published_prefixes())}


def _published_prefixes() -> tuple[str, ...]:
    return tuple(ours for prefixes in PREFIXES.values() for ours in prefixes.values())


def read_adapter(folder: Path, unet: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return configuration and tensors of an adapter folder, complete and in the files' own precision.

    `unet` is the folder of the UNet it was made for. Raises CheckpointError on any key that does not fit.
    """
    folder = Path(folder)
    config = read_config(folder)
    expected = Skeleton.of(config, unet).build().state_dict()
    found = whole(read_tensors(folder / WEIGHTS))
    misfit = compare(found, expected)
    if misfit:
        raise CheckpointError(misfit.told(str(folder / WEIGHTS)))
    return config, {key: found[key] for key in expected}


def write_all(config: Mapping[str, Any], state: Mapping[str, Tensor], folder: Path) -> list[Path]:
    """Write an adapter as published files and the rest into `folder` (which exists); return the files."""
    from safetensors.torch import save_file

    kinds = [kind for kind in FILE_NAMES if to_published_keys(kind, state)]
    files = [write_published(folder, kind, to_published_keys(kind, state)) for kind in kinds]
    rest = {key: value.contiguous() for key, value in _rest_of(state).items()}
    save_file(rest, folder / REST, {"format": "pt", "config": json.dumps(config)})
    return [*files, folder / REST]


@torch.no_grad()
def encoded_null_tokens(published: Published, skeleton: Skeleton, image_encoder: Any) -> Tensor:
    """Return the tokens of nobody as published code makes them, (1, tokens, D) float32; `verify` comes first.

    They are the face encoder's answer to a zero embedding and the penultimate states of a picture of zeros (after
    normalisation). `image_encoder` is the CLIP vision model.
    """
    encoder = skeleton.build().face_encoder.to_empty(device="cpu").float().eval()
    prefix = "proj_module."
    found = published.tensors["saa"]
    encoder.load_state_dict({key.removeprefix(prefix): x for key, x in found.items() if key.startswith(prefix)})
    side = image_encoder.config.image_size
    picture = torch.zeros(1, 3, side, side, dtype=image_encoder.dtype)
    states = image_encoder(picture, output_hidden_states=True).hidden_states[-2]
    return encoder(torch.zeros(1, EMBEDDING), states.float())
