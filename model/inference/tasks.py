"""People in other pipelines of diffusers: from a picture, into a masked part of one, after a control picture."""

from __future__ import annotations

import inspect
from typing import Any

import diffusers

from model.inference.flux_pipeline import FluxPeople
from model.inference.gate_maps import GateMaps
from model.inference.identity_pipeline import IdentityPipeline
from model.inference.pipeline import StableDiffusionPeople, XLPeople
from model.network.identity_state import IdentityState

# Every one is drawn with in the tests; another one could leave people out, or take their tokens for something else.
TASKS: dict[type[IdentityPipeline], tuple[str, ...]] = {
    StableDiffusionPeople: (
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
        "StableDiffusionControlNetPipeline",
        "StableDiffusionControlNetImg2ImgPipeline",
        "StableDiffusionControlNetInpaintPipeline",
        "StableDiffusionAdapterPipeline",
    ),
    XLPeople: (
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLInpaintPipeline",
        "StableDiffusionXLControlNetPipeline",
        "StableDiffusionXLControlNetImg2ImgPipeline",
        "StableDiffusionXLControlNetInpaintPipeline",
        "StableDiffusionXLAdapterPipeline",
    ),
    FluxPeople: ("FluxImg2ImgPipeline", "FluxInpaintPipeline", "FluxControlNetPipeline"),
}
# What no class of diffusers is made with.
_OURS = ("adapter", "base_fingerprint", "crop_processor", "image_encoder", "_progress_bar_config")


class Task(IdentityPipeline):
    """People in a pipeline that draws after a picture; made by `for_task`."""

    in_windows = False
    control: Any = None
    """A T2I-Adapter: diffusers calls it `adapter`, as this project calls its own."""

    def _stand_ins(self, state: IdentityState | None, maps: GateMaps | None) -> dict[str, Any]:
        found = super()._stand_ins(state, maps)
        if state is not None and hasattr(self, "unet"):
            found["unet"] = _MeasuringUNet(self.unet, state, maps)
        return found

    def _prepared(self, arguments: dict[str, Any]) -> dict[str, Any]:
        arguments = super()._prepared(arguments)
        if not self.batched_guidance and self._guided(arguments):
            raise ValueError(
                "negative_prompt, true_cfg_scale: this pipeline of diffusers does not tell which call of the "
                "transformer is that of the negative prompt; leave them out, with guidance_scale=1 on a transformer "
                "that is not guidance-distilled"
            )
        return arguments

    def _loop(self, prompt: Any, arguments: dict[str, Any]) -> tuple[Any, Any]:
        if self.control is None:
            return super()._loop(prompt, arguments)
        arguments = dict(arguments)
        advance = arguments.pop("callback_on_step_end", None)
        if arguments.pop("callback_on_step_end_tensor_inputs", None):
            raise ValueError("this pipeline of diffusers has no callbacks that change texts; set plain_steps to 0")
        if advance is not None:
            # Its callbacks see the latents, and change nothing.
            arguments["callback"] = lambda step, time, latents: advance(self, step, time, {"latents": latents}) and None
            arguments["callback_steps"] = 1
        self.__dict__["adapter"] = self.control
        return super()._loop(prompt, arguments)

    def enable_model_cpu_offload(self, *arguments: Any, **keywords: Any) -> None:
        """Offload as diffusers does; raise ValueError with a T2I-Adapter, which would stay where it is."""
        if self.control is not None:
            raise ValueError("a T2I-Adapter is not offloaded here: give a ControlNet, or leave offloading out")
        super().enable_model_cpu_offload(*arguments, **keywords)

    def save_pretrained(self, *_: Any, **__: Any) -> None:
        """Raise ValueError: there is one pipeline to save, the one that this was made from."""
        raise ValueError("save the pipeline that this one was made from: base and adapter are the same")


class _MeasuringUNet:
    """Stands in for a UNet in one call: tells the identity state the size of the latents, which a picture decides."""

    def __init__(self, unet: Any, state: IdentityState, maps: GateMaps | None) -> None:
        self._unet, self._state, self._maps = unet, state, maps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._unet, name)

    def __call__(self, sample: Any, *arguments: Any, **keywords: Any) -> Any:
        rows, columns = sample.shape[-2:]
        self._state.height, self._state.width = rows, columns
        if self._maps is not None:
            self._maps.size = (rows, columns)
        return self._unet(sample, *arguments, **keywords)


def inpainting_of(pipe: IdentityPipeline) -> Any:
    """Return the class of diffusers that paints into a picture with the base of `pipe`."""
    family = next(kind for kind in TASKS if isinstance(pipe, kind))
    name = next(name for name in TASKS[family] if name.endswith("InpaintPipeline") and "ControlNet" not in name)
    return getattr(diffusers, name)


def for_task(pipe: IdentityPipeline, pipeline: type, **parts: Any) -> Any:
    """Return a pipeline of another class of diffusers, with the base, the adapter and the people of `pipe`.

    `pipeline`: one of TASKS for the family of the base, such as StableDiffusionInpaintPipeline; `parts`: what it needs
    beside the base (`controlnet`; `adapter`, a T2I-Adapter). Its calls take the arguments of both. Raise ValueError
    for another class, and for a part that is missing or unknown.
    """
    family = next(kind for kind in TASKS if isinstance(pipe, kind))
    if pipeline.__name__ not in TASKS[family] or getattr(diffusers, pipeline.__name__, None) is not pipeline:
        raise ValueError(
            f"{pipeline.__name__}: no people can be put into it; expected one of {', '.join(TASKS[family])}"
        )
    parameters = dict(inspect.signature(pipeline).parameters)
    if unknown := sorted(set(parts) - set(parameters)):
        raise ValueError(f"{pipeline.__name__} has no {', '.join(unknown)}; expected of {', '.join(parameters)}")
    own = {"add_watermarker": getattr(pipe, "watermark", None) is not None, **pipe.config}
    given = {name: getattr(pipe, name) for name in parameters if name in pipe.__dict__}
    values = {**{name: own[name] for name in parameters if name in own}, **given, **parts}
    needed = [name for name, one in parameters.items() if one.default is one.empty and name not in values]
    if "adapter" in parameters and "adapter" not in parts:
        needed.append("adapter")
    if needed:
        raise ValueError(f"{pipeline.__name__} needs {' and '.join(needed)}, beside the base")
    made = type(f"DynamicID{pipeline.__name__}", (Task, family, pipeline), {"__module__": __name__})(**values)
    if "adapter" in parameters:
        made.control = made.__dict__.pop("adapter")
    made.__dict__.update({name: pipe.__dict__[name] for name in _OURS if name in pipe.__dict__})
    return made
