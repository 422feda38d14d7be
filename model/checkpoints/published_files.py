"""Read the files of published checkpoints without executing pickles, write them, and compare keys.

All are written by torch.save. A published DynamicID consists of three files: SAA, a dict `{"proj_module": face encoder,
"SAA_module": processors in the order of unet.attn_processors}`, and the state dicts of IMR and landmark encoder.
IP-Adapter-FaceID and ConsistentID are one file each, a dict of the state dicts of their parts.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.network.methods import CONSISTENTID, DYNAMICID, IP_ADAPTER_FACEID, IP_ADAPTER_FACEID_PLUS, Method

# By kind of file: its published name; and for each prefix of its keys, the prefix of the adapter's keys.
FILE_NAMES = {
    "saa": "SAA.bin",
    "imr": "IMR.bin",
    "landmark_encoder": "key_point_encoder.bin",
    "ip_adapter": "ip-adapter-faceid.bin",
    "consistentid": "ConsistentID-v1.bin",
}
PREFIXES: dict[str, dict[str, str]] = {
    "saa": {"proj_module.": "face_encoder.", "SAA_module.": "processors."},
    "imr": {"": "reconfigurator."},
    "landmark_encoder": {"": "landmark_encoder."},
    "ip_adapter": {"image_proj.": "face_encoder.", "ip_adapter.": "processors."},
    "consistentid": {
        "image_proj.": "face_encoder.",
        "adapter_modules.": "processors.",
        "FacialEncoder.": "facial_encoder.",
    },
}
# The kinds of files of a method; the first one is always there.
KINDS: dict[str, tuple[str, ...]] = {
    DYNAMICID.name: ("saa", "imr", "landmark_encoder"),
    IP_ADAPTER_FACEID.name: ("ip_adapter",),
    IP_ADAPTER_FACEID_PLUS.name: ("ip_adapter",),
    CONSISTENTID.name: ("consistentid",),
}
# Some published code writes, and reads, another name.
_OTHER_NAMES = {"image_proj_model.": "image_proj."}


class CheckpointError(ValueError):
    """A file is not a checkpoint of the expected kind; the message names every wrong key."""


@dataclass(frozen=True)
class Misfit:
    """The wrong keys of one file, one text per key; falsy if there are none."""

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen)

    def describe(self, origin: str) -> str:
        """Return one line with the counts and one line per key."""
        counts = f"{len(self.missing)} missing, {len(self.unexpected)} unexpected, {len(self.misshapen)} misshapen"
        lines = [f"{origin}: does not fit: {counts}"]
        for word in ("missing", "unexpected", "misshapen"):
            lines += [f"  {word:<10} {key}" for key in getattr(self, word)]
        return "\n".join(lines)


def compare(found: Mapping[str, Any], expected: Mapping[str, Tensor]) -> Misfit:
    """Compare the content of a file with the expected tensors by shape and type, not by value or device.

    Weights may have any floating-point precision; integers must have the expected type.
    """
    misshapen = [
        f"{key} {_form(found[key])} instead of {_form(tensor)}"
        for key, tensor in expected.items()
        if key in found and not _same_form(found[key], tensor)
    ]
    return Misfit(
        tuple(f"{key} {_form(tensor)}" for key, tensor in expected.items() if key not in found),
        tuple(f"{key} {_form(value)}" for key, value in found.items() if key not in expected),
        tuple(misshapen),
    )


def _same_form(found: Any, expected: Tensor) -> bool:
    return (
        isinstance(found, Tensor)
        and found.layout == torch.strided
        and not found.is_quantized
        and found.shape == expected.shape
        and found.is_floating_point() == expected.is_floating_point()
        and (found.is_floating_point() or found.dtype == expected.dtype)
    )


def _form(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"({type(value).__name__}, not a tensor)"
    shape = "x".join(str(size) for size in value.shape) or "number"
    return f"({shape})" if value.is_floating_point() else f"({shape} {str(value.dtype).removeprefix('torch.')})"


def read_tensors(file: Path) -> dict[str, Any]:
    """Return the content of a checkpoint on the CPU, in the precision of the file, with nested dicts as dotted keys.

    Pickles are read with `weights_only=True`, so that nothing in them is executed. A `.safetensors` file already has
    dotted keys. Values other than tensors are kept, so that `compare` reports them. Raise CheckpointError if the file
    is missing or cannot be read.
    """
    file = Path(file)
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file; expected a published checkpoint")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(file))
        _refuse_compressed(file)
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file may raise almost anything
        why = str(error).strip().split("\n", maxsplit=1)[0] or type(error).__name__
        raise CheckpointError(
            f"{file}: not read: {why} (expected tensors in dicts, as torch.save writes them; "
            "a file with anything else is never executed)"
        ) from None
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{file}: contains {_form(loaded)}; expected a dict of tensors")
    return dict(_flattened(loaded))


def _refuse_compressed(file: Path) -> None:
    """Raise ValueError for an archive with compressed tensors, which torch.save never writes: it may be a bomb."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("its tensors are compressed")


def _flattened(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def of_kind(kind: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a file of `kind` with the names of its parts that this project writes."""
    return {_renamed(key, _OTHER_NAMES) if kind == "consistentid" else key: value for key, value in found.items()}


def method_of(kind: str, found: Mapping[str, Any]) -> Method:
    """Return the method of a published file of `kind` with the tensors `found`."""
    if kind == "ip_adapter":
        plus = any(key.startswith("image_proj.perceiver_resampler.") for key in found)
        return IP_ADAPTER_FACEID_PLUS if plus else IP_ADAPTER_FACEID
    return CONSISTENTID if kind == "consistentid" else DYNAMICID


def to_adapter_keys(kind: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the keys of a published file of `kind` to an adapter's keys; unknown keys stay."""
    return {_renamed(key, PREFIXES[kind]): value for key, value in found.items()}


def to_published_keys(kind: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of an adapter's state that belong to a published file of `kind`, with its keys."""
    back = {ours: theirs for theirs, ours in PREFIXES[kind].items()}
    return {_renamed(key, back): value for key, value in state.items() if key.startswith(tuple(back))}


def _renamed(key: str, prefixes: Mapping[str, str]) -> str:
    for old, new in prefixes.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def write_published(folder: Path, kind: str, tensors: Mapping[str, Tensor]) -> Path:
    """Write `tensors` into `folder` as a published file of `kind`, nested like the original; return its path."""
    own = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
    content: dict[str, Any] = own
    if "" not in PREFIXES[kind]:
        content = {
            prefix.removesuffix("."): {
                key.removeprefix(prefix): tensor for key, tensor in own.items() if key.startswith(prefix)
            }
            for prefix in PREFIXES[kind]
        }
    file = folder / FILE_NAMES[kind]
    torch.save(content, file)
    return file


def kind_of(found: Mapping[str, Any]) -> str | None:
    """Return the kind of a published file (a key of FILE_NAMES) by the keys of its tensors, or None if unknown."""
    marks = {"saa": "SAA_module.", "imr": "entangleNet.", "landmark_encoder": "blocks."}
    marks |= {"ip_adapter": "ip_adapter.", "consistentid": "FacialEncoder."}
    for kind, mark in marks.items():
        if any(key.startswith(mark) for key in found):
            return kind
    return None
