"""The frozen base models of an adapter: a folder of Stable Diffusion (1.x, 2.x, XL) or FLUX.1, a CLIP image encoder.

Models are read from disk only, never from a model hub; the error for an incomplete folder names the missing files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from model.formats import read_object
from model.network.crop_transform import CropTransform
from model.network.identity_state import IdentityState
from model.network.latents import encode_pixels, unscale_latents
from model.network.text_encoding import TextEncoder, TextStates, encode_text

_PARTS = ("vae", "unet", "text_encoder", "tokenizer", "scheduler")
_SECOND_TEXT = ("text_encoder_2", "tokenizer_2")
SD, SDXL, FLUX = "sd", "sdxl", "flux"
FAMILIES = {
    SD: "Stable Diffusion 1.x or 2.x, with one text encoder",
    SDXL: "Stable Diffusion XL, with two text encoders",
    FLUX: "FLUX.1, with a transformer",
}
# The fingerprint covers files with these suffixes, except the safety checker's, on which no adapter depends.
_FINGERPRINTED = (".safetensors", ".bin")
_COPY_AGAIN = "copy the model again"


@dataclass(frozen=True)
class BaseReference:
    """An adapter's reference to its base: the folders as written in the parameters, and the hash of their weights."""

    pipeline: str
    image_encoder: str
    fingerprint: str


@dataclass(frozen=True)
class Base:
    """The base models, frozen and in eval mode; `text_encoder_2` and `tokenizer_2` are for Stable Diffusion XL only.

    `hair`: whether an adapter is trained on crops that show the hair. `zero_empty_text`: whether the base stands for no
    prompt by zeros, not by the states of the empty text.
    """

    vae: Any
    denoiser: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any
    image_encoder: Any
    crop_transform: CropTransform
    pipeline_folder: Path
    image_encoder_folder: Path
    text_encoder_2: Any = None
    tokenizer_2: Any = None
    hair: bool = False
    zero_empty_text: bool = False
    flow_matching: ClassVar[bool] = False

    @property
    def family(self) -> str:
        """One of FAMILIES."""
        return SD if self.text_encoder_2 is None else SDXL

    @property
    def unet(self) -> Any:
        """The denoiser of a base of Stable Diffusion."""
        return self.denoiser

    @property
    def texts(self) -> tuple[TextEncoder, ...]:
        """The pair of tokenizer and text model; two such pairs for Stable Diffusion XL."""
        pairs = [(self.tokenizer, self.text_encoder), (self.tokenizer_2, self.text_encoder_2)]
        return tuple(pair for pair in pairs if pair[1] is not None)

    @property
    def device(self) -> torch.device:
        """The device of the denoiser."""
        return self.denoiser.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the denoiser; the autoencoder's may be higher (see `load_autoencoder`)."""
        return self.denoiser.dtype

    @property
    def resolution(self) -> int:
        """The side in pixels of the pictures that the UNet was trained for."""
        return int(self.unet.config.sample_size) * self.pixels_per_latent

    @property
    def pixels_per_latent(self) -> int:
        """The side in pixels of what one position of the latents stands for."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def pooled_width(self) -> int:
        """The width of the pooled text that the UNet reads beside the states; 0 where it reads none."""
        return int(self.text_encoder_2.config.projection_dim) if self.unet.config.addition_embed_type else 0

    @property
    def text_shape(self) -> tuple[int, int]:
        """Length and width of the text states."""
        width = sum(int(model.config.hidden_size) for _, model in self.texts)
        return int(self.tokenizer.model_max_length), width

    @property
    def text_networks(self) -> tuple[str, ...]:
        """The folders of tokenizers and text models."""
        return ("text_encoder", "tokenizer", *(_SECOND_TEXT if self.tokenizer_2 else ()))

    def check_resolution(self, side: int, origin: str) -> None:
        """Raise ValueError unless the base makes pictures of `side` pixels; `origin` names it."""
        if side != self.resolution:
            raise ValueError(
                f"base.resolution {side}: the UNet of {origin} makes pictures of {self.resolution} px; set "
                "base.resolution to that"
            )

    @property
    def crop_size(self) -> int:
        """The side in pixels of the image encoder's input; crops of another size are resized."""
        return self.crop_transform.crop

    def fingerprint(self) -> str:
        """Return one sha256 (hex) over the weights of both folders."""
        return fingerprint_of_base(self.pipeline_folder, self.image_encoder_folder)

    def reference(self, pipeline: str, image_encoder: str) -> BaseReference:
        """Return the reference for adapters: the folders as written in the parameters, and the fingerprint."""
        return BaseReference(pipeline, image_encoder, self.fingerprint())

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the states (B, 77, D) for the UNet's cross-attention, and the pooled text (B, D)."""
        return encode_text(self.texts, prompts)

    def text_states(self, prompts: Sequence[str]) -> TextStates:
        """Return texts as `predict` takes them; where `zero_empty_text`, the empty text gives zeros."""
        states, pooled = self.encode_text(prompts)
        pooled = pooled[:, pooled.shape[1] - self.pooled_width :]
        if self.zero_empty_text:
            empty = torch.tensor([not text for text in prompts], device=states.device)
            states, pooled = states.masked_fill(empty[:, None, None], 0), pooled.masked_fill(empty[:, None], 0)
        return TextStates(states, pooled)

    def predict(self, noised: Tensor, steps: Tensor, text: TextStates, identity: IdentityState | None = None) -> Tensor:
        """Return what the UNet predicts for noised latents (B, C, h, w) at `steps` (B,), in its precision.

        The UNet of XL also gets the pooled text and six numbers for each picture: height and width of the original, top
        and left edge of the crop, height and width asked for. Here the picture is the whole original.
        """
        unet, added = self.unet, None
        if unet.config.addition_embed_type is not None:
            height, width = (side * self.pixels_per_latent for side in noised.shape[-2:])
            sizes = torch.tensor([height, width, 0, 0, height, width], device=noised.device, dtype=unet.dtype)
            added = {"text_embeds": text.pooled.to(unet.dtype), "time_ids": sizes.expand(len(noised), -1)}
        return unet(
            noised.to(unet.dtype),
            steps,
            encoder_hidden_states=text.states.to(unet.dtype),
            cross_attention_kwargs=None if identity is None else {"identity": identity},
            added_cond_kwargs=added,
            return_dict=False,
        )[0]

    @torch.no_grad()
    def encode_crops(self, crops: Any) -> Tensor:
        """Return the image encoder's penultimate hidden states (B, T, W) for face crops (B, S, S, 3) uint8 RGB."""
        return encode_crops(self.image_encoder, self.crop_transform, crops)

    @torch.no_grad()
    def encode_images(self, images: Any) -> Tensor:
        """Return scaled latents (B, 4, h, w) of pictures (B, H, W, 3) uint8 RGB (see `encode_pixels`)."""
        pixels = torch.as_tensor(np.asarray(images) if not isinstance(images, Tensor) else images)
        pixels = pixels.to(self.device, self.vae.dtype).permute(0, 3, 1, 2) / 127.5 - 1
        return encode_pixels(self.vae, pixels)

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> np.ndarray:
        """Return the pictures (B, H, W, 3) uint8 RGB of scaled latents (B, 4, h, w)."""
        latents = latents.to(self.device, self.vae.dtype)
        pixels = self.vae.decode(unscale_latents(self.vae, latents), return_dict=False)[0]
        pixels = ((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
        return pixels.permute(0, 2, 3, 1).cpu().numpy()


def load_base(
    pipeline: Path, image_encoder: Path, *, dtype: torch.dtype | str = torch.float32, device: str | torch.device = "cpu"
) -> Base:
    """Load the base models from two folders and freeze them.

    `pipeline` has the diffusers layout of Stable Diffusion 1.x, 2.x or XL, or of FLUX.1; `image_encoder` contains a
    CLIP vision model and its preprocessor_config.json; `dtype` may be a name ("float16"). Raise ValueError, naming it,
    if a folder or file is missing or unreadable, and for a pipeline with another denoiser.
    """
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionModelWithProjection

    if isinstance(dtype, str):
        dtype = getattr(torch, dtype)
    pipeline, image_encoder = Path(pipeline), Path(image_encoder)
    if (family := family_of(pipeline)) == FLUX:
        from model.network.transformer_base import load_transformer_base

        return load_transformer_base(pipeline, image_encoder, dtype, device)
    two_text_encoders = family == SDXL
    second = _SECOND_TEXT if two_text_encoders else ()
    require_files(pipeline, "a Stable Diffusion model in diffusers layout", *_PARTS, *second)
    for part in (*_PARTS[:3], *second[:1]):
        require_files(pipeline / part, f"the {part} of a Stable Diffusion model", "config.json")
    require_files(image_encoder, "a CLIP image encoder", "config.json", "preprocessor_config.json")
    scheduler = load_scheduler(pipeline / "scheduler")
    models = [
        load_autoencoder(pipeline / "vae", dtype=dtype, upcast=True),
        load_network(UNet2DConditionModel, pipeline / "unet", torch_dtype=dtype),
        load_network(CLIPTextModel, pipeline / "text_encoder", dtype=dtype),
        load_network(CLIPVisionModelWithProjection, image_encoder, dtype=dtype),
        *(
            [load_network(CLIPTextModelWithProjection, pipeline / "text_encoder_2", dtype=dtype)]
            if two_text_encoders
            else []
        ),
    ]
    vae, unet, text_encoder, vision, *others = (model.to(device).eval().requires_grad_(False) for model in models)
    added, expected = unet.config.addition_embed_type, "text_time" if two_text_encoders else None
    if added != expected:
        raise ValueError(
            f"{pipeline / 'unet'}: a UNet with addition_embed_type {added!r}, and {1 + two_text_encoders} text encoders"
            f" beside it; expected {expected!r}: give a whole base of Stable Diffusion 1.x, 2.x or XL"
        )
    return Base(
        vae=vae,
        denoiser=unet,
        text_encoder=text_encoder,
        tokenizer=load_network(CLIPTokenizer, pipeline / "tokenizer"),
        scheduler=scheduler,
        image_encoder=vision,
        crop_transform=CropTransform.from_folder(image_encoder),
        pipeline_folder=pipeline,
        image_encoder_folder=image_encoder,
        text_encoder_2=others[0] if two_text_encoders else None,
        tokenizer_2=load_network(CLIPTokenizer, pipeline / "tokenizer_2") if two_text_encoders else None,
        zero_empty_text=two_text_encoders and bool(read_index(pipeline).get("force_zeros_for_empty_prompt", True)),
    )


def read_index(pipeline: Path) -> dict[str, Any]:
    """Return model_index.json of a diffusers folder; raise ValueError if missing or of a base of another family."""
    pipeline = Path(pipeline)
    require_files(pipeline, "a Stable Diffusion model in diffusers layout", "model_index.json")
    index = read_object(pipeline / "model_index.json", _COPY_AGAIN)
    found = class_in(index, "unet")
    if found != "UNet2DConditionModel" and class_in(index, "transformer") != "FluxTransformer2DModel":
        denoiser = found or class_in(index, "transformer") or class_in(index, "prior") or "no denoiser"
        raise ValueError(
            f"{pipeline}: a {str(index.get('_class_name'))[:80]} with {denoiser[:80]}; expected a UNet2DConditionModel:"
            " give a base of Stable Diffusion 1.x, 2.x or XL, or of FLUX.1 (FluxTransformer2DModel)"
        )
    return index


def family_of(pipeline: Path) -> str:
    """Return which of FAMILIES the base in a folder belongs to; raise ValueError as `read_index` does."""
    index = read_index(pipeline)
    if class_in(index, "unet") is None:
        return FLUX
    return SD if class_in(index, "text_encoder_2") is None else SDXL


def class_in(index: Mapping[str, Any], part: str) -> str | None:
    """Return the class that a `model_index.json` names for a part; None where it names none."""
    entry = index.get(part)
    return entry[1] if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str) else None


def load_autoencoder(folder: Path, dtype: torch.dtype = torch.float32, *, upcast: bool = False) -> Any:
    """Load an AutoencoderKL or, where config.json names it, an AutoencoderTiny; raise ValueError for other files.

    One whose config.json says force_upcast, as that of XL, overflows in half precision: with `upcast`, it is always in
    float32.
    """
    from diffusers import AutoencoderKL, AutoencoderTiny

    require_files(folder, "an autoencoder of Stable Diffusion", "config.json")
    config = read_object(folder / "config.json", _COPY_AGAIN)
    kind = AutoencoderTiny if config.get("_class_name") == AutoencoderTiny.__name__ else AutoencoderKL
    stays = upcast and config.get("force_upcast") is True
    return load_network(kind, folder, torch_dtype=torch.float32 if stays else dtype)


def load_scheduler(folder: Path) -> Any:
    """Load the scheduler that scheduler_config.json names; raise ValueError where it names none of diffusers."""
    import diffusers

    require_files(folder, "a scheduler of diffusers", "scheduler_config.json")
    settings = folder / "scheduler_config.json"
    named = read_object(settings, _COPY_AGAIN).get("_class_name")
    kind = getattr(diffusers, named, None) if isinstance(named, str) else None
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        raise ValueError(f"{settings}: _class_name {str(named)[:80]!r}; expected a scheduler of diffusers")
    return load_network(kind, folder)


def load_network(kind: Any, folder: Path, **options: Any) -> Any:
    """Load a network or tokenizer of a class `kind` from disk; raise ValueError, naming the folder, if it is none."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    # A short-lived bar per network would hide the messages of the stage.
    logging.disable_progress_bar()
    try:
        return kind.from_pretrained(folder, local_files_only=True, **options)
    except Exception as error:  # damaged files raise nearly anything
        raise ValueError(f"{folder}: not a {kind.__name__}: {' '.join(str(error).split())}") from error
    finally:
        if bars:
            logging.enable_progress_bar()


def require_files(folder: Path, what: str, *names: str) -> None:
    """Raise ValueError, naming `what` is expected, unless `folder` has files or folders of all `names`."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; expected {what}")
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise ValueError(f"{folder}: {', '.join(missing)} missing; expected {what}")


def fingerprint_of_base(pipeline: Path, image_encoder: Path) -> str:
    """Return one sha256 (hex) over the weights of both folders."""
    return hashlib.sha256((fingerprint(pipeline) + fingerprint(image_encoder)).encode()).hexdigest()


def fingerprint(folder: Path) -> str:
    """Return the sha256 (hex) of names and bytes of the weight files in `folder`; raise ValueError if it has none."""
    files = sorted(
        file
        for file in Path(folder).rglob("*")
        if file.suffix in _FINGERPRINTED and "safety_checker" not in file.relative_to(folder).parts
    )
    if not files:
        raise ValueError(f"{folder}: no weight files (*.safetensors, *.bin); expected a model folder")
    return digest_of_files(folder, files)


def digest_of_files(folder: Path, files: Iterable[Path]) -> str:
    """Return one sha256 (hex) over the bytes of `files` and their names relative to `folder`, in the given order."""
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        total.update(f"{file.relative_to(folder).as_posix()} {digest}\n".encode())
    return total.hexdigest()


def encode_crops(
    image_encoder: Any, transform: CropTransform, crops: Any, device: torch.device | None = None
) -> Tensor:
    """Return a CLIP image encoder's penultimate hidden states (B, T, W) for face crops (B, S, S, 3) uint8 RGB.

    `device`: where an offloaded encoder runs; by default its own device.
    """
    pixels = transform(crops, image_encoder.device if device is None else device).to(image_encoder.dtype)
    return image_encoder(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]


@torch.no_grad()
def empty_states(image_encoder: Any, device: torch.device | None = None) -> Tensor:
    """Return the penultimate states (1, T, W) float32 of a CLIP image encoder for a picture that is zero for it.

    It is zero after normalisation: published code encodes it where there is no face. `device`: as in `encode_crops`.
    """
    side, where = image_encoder.config.image_size, image_encoder.device if device is None else device
    picture = torch.zeros(1, 3, side, side, dtype=image_encoder.dtype, device=where)
    return image_encoder(picture, output_hidden_states=True).hidden_states[-2].float()
