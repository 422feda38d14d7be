"""A second, literal implementation of published inference, from the published files to latents.

Written from the description of the published pipeline (docs/reference/published.md), with tokens that are appended to
the text, explicit softmaxes and a denoising loop of its own. Only face encoder, IMR and landmark encoder are the
project's modules, since golden vectors check those (tests/model/network/test_golden.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from model.network.face_encoder import FaceEncoder
from model.network.landmark_encoder import LandmarkEncoder
from model.network.reconfigurator import Reconfigurator

TOKENS = 4


@dataclass
class Call:
    """The arguments of one call, in the order of the published ones: regions are y0 x0 y1 x1."""

    people: int
    regions: Sequence[Sequence[float]]
    boost: float = 0.0
    boost_steps: int = 0
    count: int = 0


class Attention:
    """A processor of the published kind, with the weights of one layer of SAA.bin."""

    def __init__(self, weights: dict[str, torch.Tensor], call: Call) -> None:
        self.weights = weights
        self.call = call
        self.count = 0

    def lora(self, name: str, x: torch.Tensor) -> torch.Tensor:
        down, up = (self.weights[f"{name}_lora.{part}.weight"] for part in ("down", "up"))
        return x @ down.T @ up.T

    def __call__(self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: Any = None, **_: Any) -> Any:
        h, crossing = hidden_states, "to_k_ip.weight" in self.weights
        context = h if encoder_hidden_states is None else encoder_hidden_states
        if crossing:
            end = context.shape[1] - TOKENS * self.call.people
            context, identity = context[:, :end], context[:, end:]
        query = attn.to_q(h) + self.lora("to_q", h)
        key = attn.to_k(context) + self.lora("to_k", context)
        value = attn.to_v(context) + self.lora("to_v", context)

        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.reshape(len(x), x.shape[1], attn.heads, -1).transpose(1, 2)

        def joined(x: torch.Tensor) -> torch.Tensor:
            return x.transpose(1, 2).reshape(len(x), x.shape[2], -1)

        scale = 1 / math.sqrt(query.shape[-1] // attn.heads)
        out = joined((heads(query) @ heads(key).transpose(-1, -2) * scale).softmax(-1) @ heads(value))
        if crossing:
            score = heads(query) @ heads(identity @ self.weights["to_k_ip.weight"].T).transpose(-1, -2) * scale
            score, gate = self.gated(score)
            picture = joined(score.softmax(-1) @ heads(identity @ self.weights["to_v_ip.weight"].T))
            out = out + gate[..., None] * picture
        return attn.to_out[1](attn.to_out[0](out) + self.lora("to_out", out))

    def gated(self, score: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        call, (pictures, count, cells, keys) = self.call, score.shape
        side = math.isqrt(cells)
        total = score.permute(0, 2, 1, 3).reshape(pictures, cells, -1).sum(-1)
        low, high = total.amin(1, keepdim=True), total.amax(1, keepdim=True)
        gate = (total - low) / (high - low)
        gate[gate < 0.3] = 0
        boost = call.boost if self.count < call.boost_steps else 0
        self.count += 1
        gate = gate.reshape(pictures, side, side) / (boost + 1)
        score = score.reshape(pictures, count, side, side, keys).clone()
        for index, region in enumerate(call.regions):
            y0, x0, y1, x1 = (int(edge * side) for edge in region)
            gate[:, y0:y1, x0:x1] = gate[:, y0:y1, x0:x1] * (boost + 1) + boost
            for other in range(len(call.regions)):
                if other != index:
                    score[:, :, y0:y1, x0:x1, other * TOKENS : (other + 1) * TOKENS] = -torch.inf
        return score.reshape(pictures, count, cells, keys), gate.reshape(pictures, cells)


class PublishedCode:
    """The published pipeline on local folders: a base, an image encoder, a face pack and the published files."""

    def __init__(self, base: Path, image_encoder: Path, pack: Path, files: Path) -> None:
        from insightface.model_zoo import get_model

        self.unet = UNet2DConditionModel.from_pretrained(base / "unet").eval()
        self.vae = AutoencoderKL.from_pretrained(base / "vae")
        self.text = CLIPTextModel.from_pretrained(base / "text_encoder").eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer")
        self.scheduler = DDIMScheduler.from_pretrained(base / "scheduler")
        self.clip = CLIPVisionModelWithProjection.from_pretrained(image_encoder).eval()
        networks = [get_model(str(file), providers=["CPUExecutionProvider"]) for file in pack.glob("*.onnx")]
        tasks = {network.taskname: network for network in networks}
        self.recogniser, self.landmarks = tasks["recognition"], tasks["landmark_2d_106"]
        saa, imr, points = (
            torch.load(files / f"{name}.bin", weights_only=True) for name in ("SAA", "IMR", "key_point_encoder")
        )
        encoder = saa["proj_module"]
        width = len(encoder["norm.weight"])
        self.encoder = FaceEncoder(width, self.clip.config.hidden_size, TOKENS, 512).eval()
        self.encoder.load_state_dict(encoder)
        layers: dict[int, dict[str, torch.Tensor]] = {}
        for key, tensor in saa["SAA_module"].items():
            number, _, name = key.partition(".")
            layers.setdefault(int(number), {})[name] = tensor
        self.layers = [layers[number] for number in sorted(layers)]
        points = {key: x.float() if x.is_floating_point() else x for key, x in points.items()}
        features = len(points["blocks.6.1.conv_block.0.weight"])
        self.points = LandmarkEncoder(features, len(points["blocks.0.0.conv_block.0.weight"])).eval()
        self.points.load_state_dict(points)
        self.imr = Reconfigurator(
            width, features + width, width=len(imr["proj_in.weight"]), heads=4, depth=1, residual=False
        ).eval()
        self.imr.load_state_dict(imr)

    def encoded(self, prompts: list[str]) -> Any:
        ids = self.tokenizer(prompts, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
        return self.text(ids.input_ids)

    def tokens_of(self, photo: np.ndarray, face: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tokens (1, 4, D) of a photo, RGB, and those of no identity; `face` is insightface's."""
        # Published code gives RGB to a function that expects BGR.
        self.recogniser.get(photo, face)
        embedding = torch.from_numpy(face.normed_embedding)[None]
        side = self.clip.config.image_size
        processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
        pixels = processor(images=Image.fromarray(photo), return_tensors="pt").pixel_values
        states, empty = (
            self.clip(x, output_hidden_states=True).hidden_states[-2] for x in (pixels, torch.zeros_like(pixels))
        )
        return self.encoder(embedding, states), self.encoder(torch.zeros_like(embedding), empty)

    def landmark_picture(self, photo: np.ndarray, box: np.ndarray) -> torch.Tensor:
        """Return the picture (1, 1, 96, 96) in {-1, 1} of the 106 landmarks; `box` (4,) in pixels of `photo`."""
        from insightface.app.common import Face

        shown = np.asarray(Image.fromarray(photo).resize((512, 512)))
        face = Face(bbox=box * 512 / len(photo))
        picture = np.zeros((96, 96), np.uint8)
        for x, y in self.landmarks.get(cv2.cvtColor(shown, cv2.COLOR_RGB2BGR), face) / (512 / 96):
            if 0 < x < 96 and 0 < y < 96:
                picture[int(y), int(x)] = 255
        return torch.from_numpy(picture)[None, None] / 255 * 2 - 1

    def edited(self, tokens: torch.Tensor, picture: torch.Tensor, source: str, target: str) -> torch.Tensor:
        """Return the tokens after the IMR, whose target landmarks are the source's where no file has others."""
        feature = self.points(picture)
        text = self.encoded([source, target]).pooler_output
        return self.imr(tokens, feature, text[:1], feature, text[1:])

    @torch.no_grad()
    def latents(  # noqa: PLR0917
        self, prompt: str, negative: str, tokens: Any, null: Any, call: Call, steps: int, noise: torch.Tensor
    ) -> torch.Tensor:
        """Return the latents of one picture; `tokens` (1, 4·P, D), `null` (1, 4, D)."""
        names = self.unet.attn_processors
        self.unet.set_attn_processor(
            {name: Attention(weights, call) for name, weights in zip(names, self.layers, strict=True)}
        )
        text = self.encoded([negative, prompt]).last_hidden_state
        identity = torch.cat([torch.cat([null] * call.people, dim=1), tokens])
        context = torch.cat([text, identity], dim=1)
        self.scheduler.set_timesteps(steps)
        latents = noise * self.scheduler.init_noise_sigma
        for t in self.scheduler.timesteps:
            without, with_text = self.unet(torch.cat([latents] * 2), t, encoder_hidden_states=context).sample.chunk(2)
            latents = self.scheduler.step(without + 5.0 * (with_text - without), t, latents).prev_sample
        return latents
