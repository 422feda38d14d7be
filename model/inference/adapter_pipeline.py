"""A pipeline of diffusers to whose denoiser an adapter can be attached: loading, saving, folding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from diffusers import DiffusionPipeline

from model.network.adapter import Adapter
from model.network.base import FAMILIES, SD, Base, BaseReference, family_of, fingerprint, load_base

_ADAPTER_FOLDER = "adapter"


class AdapterPipeline(DiffusionPipeline):
    """A base model with or without an `adapter`; `family` is that of the bases of a class (see base.FAMILIES).

    A mixin for pipelines of diffusers.
    """

    adapter: Adapter | None = None
    family: ClassVar[str] = SD
    flow_matching: ClassVar[bool] = False
    attention_kwargs: ClassVar[str] = "cross_attention_kwargs"
    # Whether one call of the denoiser computes both sides of classifier-free guidance.
    batched_guidance: ClassVar[bool] = True
    base_fingerprint: str | None = None

    @classmethod
    def from_base(cls, base: Base, adapter: Adapter | None = None) -> Self:
        """Return a pipeline of loaded base models, with an adapter if given.

        Raise ValueError if the base is of another family than this class needs.
        """
        cls._check_family(base.family, base.pipeline_folder)
        pipe = cls(**cls._parts(base))
        if adapter is not None:
            pipe.set_adapter(adapter)
        return pipe

    @classmethod
    def from_folders(
        cls,
        pipeline: Path,
        image_encoder: Path,
        adapter: Path | None = None,
        *,
        dtype: torch.dtype | str = torch.float32,
        device: str | torch.device = "cpu",
        allow_other_base: bool = False,
    ) -> Self:
        """Load base and adapter from three folders; `base_fingerprint` is that of the loaded base.

        Raise ValueError if the adapter was trained on other weights, unless `allow_other_base`; then only their shapes
        have to fit.
        """
        base = load_base(pipeline, image_encoder, dtype=dtype, device=device)
        pipe = cls.from_base(base)
        if adapter is not None:
            pipe.load_adapter(adapter)
            loaded = pipe._require_adapter()
            reference, found = loaded.base_reference, base.fingerprint()
            if reference is not None and reference.fingerprint != found and not allow_other_base:
                raise ValueError(
                    f"{adapter}: trained on {reference.pipeline} with fingerprint {reference.fingerprint[:12]}, but "
                    f"{pipeline} and {image_encoder} have {found[:12]}; give the base it was trained on, or allow "
                    "another one of its architecture (base.allow_other)"
                )
            width = int(base.image_encoder.config.hidden_size)
            if width != loaded.image_width:
                raise ValueError(
                    f"{adapter}: trained on an image encoder of width {loaded.image_width}, {image_encoder} has {width}"
                )
            pipe.base_fingerprint = found
        return pipe

    @classmethod
    def _parts(cls, base: Base) -> dict[str, Any]:
        """Return the arguments of the constructor; here those that the pipelines of all bases have."""
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        return {
            "vae": base.vae,
            "text_encoder": base.text_encoder,
            "tokenizer": base.tokenizer,
            "unet": base.denoiser,
            "scheduler": base.scheduler,
            "image_encoder": base.image_encoder,
            "crop_processor": CLIPImageProcessorPil(**base.crop_transform.config()),
        }

    @classmethod
    def _check_family(cls, family: str, folder: Path) -> None:
        if family != cls.family:
            raise ValueError(
                f"{folder}: {FAMILIES[family]}; {cls.__name__} needs {FAMILIES[cls.family]}: use "
                "model.inference.pipeline.pipeline_class(folder)"
            )

    @property
    def denoiser(self) -> Any:
        """The network that the adapter extends."""
        return self.unet

    @property
    def size_step(self) -> int:
        """Heights and widths are multiples of it, in pixels."""
        return 8

    def set_adapter(self, adapter: Adapter) -> None:
        """Attach an adapter, replacing any other; raise ValueError under sequential CPU offload."""
        self._require_weights()
        self.unload_adapter()
        adapter.to(self.denoiser.device, self.denoiser.dtype).eval()
        adapter.attach(self.denoiser)
        self.adapter = adapter

    def load_adapter(self, folder: Path) -> None:  # type: ignore[override]
        """Read an adapter folder and attach it, replacing any other; raise ValueError if it does not fit."""
        self._require_weights()
        self.set_adapter(Adapter.load(Path(folder), self.denoiser))

    def unload_adapter(self) -> None:
        """Detach the adapter; the pipeline is the base model again, bit for bit."""
        if self.adapter is not None:
            self.adapter.detach(self.denoiser)
            self.adapter = None

    def fold_lora(self, scale: float = 1.0) -> None:
        """Add LoRA to the denoiser's weights, so that LoRA costs no time in calls with `lora_scale` = `scale`.

        Other calls, also those without faces, give the same results up to rounding and take slightly longer.
        """
        self._require_adapter().fold(self.denoiser, scale)

    def unfold_lora(self) -> None:
        """Restore the weights of the denoiser, bit for bit."""
        self._require_adapter().unfold()

    def fuse_lora(self, *arguments: Any, **keywords: Any) -> None:
        """Add the LoRAs of `load_lora_weights` to the denoiser's weights, as diffusers does."""
        with self._unfolded():
            super().fuse_lora(*arguments, **keywords)  # type: ignore[misc]

    def unfuse_lora(self, *arguments: Any, **keywords: Any) -> None:
        """Subtract them again, as diffusers does."""
        with self._unfolded():
            super().unfuse_lora(*arguments, **keywords)  # type: ignore[misc]

    @contextmanager
    def _unfolded(self) -> Iterator[None]:
        """Change weights inside the block without the adapter's LoRA in them: unfolding restores what it has kept."""
        folded = 0.0 if self.adapter is None else self.adapter.folded
        if folded:
            self.unfold_lora()
        yield
        if folded:
            self.fold_lora(folded)

    def to(self, *arguments: Any, **keywords: Any) -> Self:
        """Move every component, including the adapter."""
        super().to(*arguments, **keywords)
        if self.adapter is not None:
            self.adapter.to(self.denoiser.device, self.denoiser.dtype)
        return self

    def save_pretrained(self, save_directory: str | Path, *arguments: Any, **keywords: Any) -> None:
        """Write the pipeline as diffusers does, and the adapter into the subfolder `adapter`."""
        adapter = self.adapter
        folded = 0.0 if adapter is None else adapter.folded
        if adapter is not None:
            # Attached processors are modules of the denoiser and would be saved in its weight file.
            adapter.detach(self.denoiser)
        try:
            super().save_pretrained(save_directory, *arguments, **keywords)
        finally:
            if adapter is not None:
                adapter.attach(self.denoiser)
                adapter.fold(self.denoiser, folded)
        if adapter is not None:
            folder = Path(save_directory)
            own = BaseReference("..", "../image_encoder", fingerprint(folder))
            adapter.save(folder / _ADAPTER_FOLDER, adapter.base_reference or own)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **keywords: Any) -> Self:
        """Read a folder of `save_pretrained`, or one of a base (without adapter), never from a hub."""
        if not Path(folder).is_dir():
            raise ValueError(f"{folder}: no such folder; expected a saved pipeline")
        cls._check_family(family_of(Path(folder)), Path(folder))
        pipe = super().from_pretrained(folder, **{**keywords, "local_files_only": True})
        if (Path(folder) / _ADAPTER_FOLDER).is_dir():
            pipe.load_adapter(Path(folder) / _ADAPTER_FOLDER)
        return pipe

    def _require_weights(self) -> None:
        if self.denoiser.device.type == "meta":
            raise ValueError("an adapter cannot be attached under sequential CPU offload: load it first, then offload")

    def _require_adapter(self) -> Adapter:
        if self.adapter is None:
            raise ValueError("no adapter: load_adapter(folder) first")
        return self.adapter
