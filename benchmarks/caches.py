"""Measure what trainings may keep of the frozen networks' outputs: bytes a photo, time of a step, and quality.

    python benchmarks/caches.py --rounds 12
    python benchmarks/caches.py --paper          # only the arithmetic for sd15 at 350,000 photos

Measured on the shipped networks and drawn people, one thread, processor time: every format of a kind is compared with
all kinds in float16 in the same process, in turn. What is `none` is computed at every step. Quality is that of the
stored values against float32 (cosine, relative error), and the difference of the noise loss on the same photos, noise
and steps. The arithmetic counts bytes, and the operations of networks of Stable Diffusion 1.5's size without memory for
their weights. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from benchmarks.full_size_models import TEXT, TEXT_LENGTH, TOKENS, UNET, VAE, VISION
from benchmarks.measure import interleaved_times, median_ratio, quiet
from benchmarks.real_networks import PROJECT, TINY
from benchmarks.training import counted_flops
from model.face.face_geometry import CROP_TEMPLATE
from model.network.adapter import Adapter
from model.network.base import load_base
from model.training.anchoring import AnchoringData, AnchoringModel, anchoring_data, make_batch
from model.training.cache import EIGHT_BITS, text_keys
from model.training.eight_bits import packed_bytes
from model.training.encode import NONE, RecordEncoder
from model.training.photos import PhotoContent, Photos
from model.training.seeded_draws import generator, stratified_steps
from pipelines.core.params import load_params

KINDS, FORMATS = ("latents", "clip", "text"), ("float32", "float16", EIGHT_BITS, NONE)
BEFORE = "all float16"
PHOTOS = 350_000
SD15 = {
    "latents": (VAE["latent_channels"] * 64 * 64),
    "clip": ((VISION["image_size"] // VISION["patch_size"]) ** 2 + 1) * VISION["hidden_size"],
    "text": TEXT_LENGTH * TEXT["hidden_size"],
    "identity_tokens": TOKENS * UNET["cross_attention_dim"],
}
# Keys of five kinds, and faces: embedding, landmarks, box and alignment in float32.
OTHER_BYTES = 5 * 32 + 4 * (512 + 136 + 4 + 6)
CHOICES = {
    BEFORE: {"latents": "float16", "clip": "float16", "text": "float16", "identity_tokens": "float32"},
    "sd15": load_params(PROJECT / "profiles" / "sd15.yaml").caches.model_dump(),
    "sd15, clip none": {**load_params(PROJECT / "profiles" / "sd15.yaml").caches.model_dump(), "clip": NONE},
}


def bytes_of(numbers: int, kept: str) -> int:
    """Return the bytes of a record of so many numbers."""
    return {NONE: 0, "float32": 4 * numbers, "float16": 2 * numbers, EIGHT_BITS: packed_bytes(numbers)}[kept]


def operations() -> dict[str, float]:
    """Return floating-point operations a photo: of each network's forward pass, and of a step of anchoring."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

    with torch.device("meta"), torch.no_grad():
        unet, vae = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE)
        vision, text = CLIPVisionModel(CLIPVisionConfig(**VISION)), CLIPTextModel(CLIPTextConfig(**TEXT))
        forward = counted_flops(lambda: unet(torch.empty(1, 4, 64, 64), 1, torch.empty(1, TEXT_LENGTH + TOKENS, 768)))
        return {
            "latents": counted_flops(lambda: vae.encode(torch.empty(1, 3, 512, 512))),
            "clip": counted_flops(lambda: vision(torch.empty(1, 3, 224, 224))),
            "text": counted_flops(lambda: text(torch.zeros(1, TEXT_LENGTH, dtype=torch.long))),
            # Forward, again for gradient checkpointing, and backward through frozen weights; without what the adapter
            # adds, so that what is computed on the fly is not made small.
            "step": 3 * forward,
        }


def paper() -> dict[str, Any]:
    """Return gigabytes by kind and format, and size and operations of the choices, for sd15 at 350,000 photos."""
    counted = operations()
    sizes = {kind: {kept: bytes_of(count, kept) for kept in FORMATS} for kind, count in SD15.items()}
    choices = {}
    for name, chosen in CHOICES.items():
        total = sum(sizes[kind][kept] for kind, kept in chosen.items()) + OTHER_BYTES
        more = sum(counted[kind] for kind, kept in chosen.items() if kept == NONE)
        choices[name] = {
            "gigabytes": round(total * PHOTOS / 1e9, 1),
            "step_operations_ratio": round(1 + more / counted["step"], 3),
        }
    by_kind = {
        kind: {kept: [size, round(size * PHOTOS / 1e9, 1)] for kept, size in of.items()} for kind, of in sizes.items()
    }
    return {"bytes_and_gigabytes": by_kind, "choices": choices, "teraflops": {k: v / 1e12 for k, v in counted.items()}}


def drawn_photos(count: int, side: int) -> Photos:
    """Return pictures of drawn people, each with a prompt of its own."""
    import cv2

    from pipelines.data.synthetic.dataset import person_scenes
    from pipelines.data.synthetic.draw import render
    from pipelines.data.synthetic.person import Person

    def content(number: int) -> PhotoContent:
        drawn = render(Person.sample("dataset", 0, number), person_scenes(0, number)[0], 128).image
        rng = np.random.default_rng(number)
        embedding = rng.normal(size=512).astype(np.float32)
        landmarks = rng.uniform(0.3 * side, 0.7 * side, (68, 2)).astype(np.float32)
        box = np.array([0.25, 0.125, 0.75, 1.0], np.float32) * side
        image = cv2.resize(drawn, (side, side), interpolation=cv2.INTER_AREA)
        return PhotoContent(image, box, CROP_TEMPLATE * side, landmarks, embedding / np.linalg.norm(embedding))

    photos = [content(number) for number in range(count)]

    def read(rows: np.ndarray) -> Iterator[PhotoContent]:
        return (photos[row] for row in rows)

    zeros, order = np.zeros(count, np.int8), np.arange(count, dtype=np.int32)
    prompts = [f"a photo of a person in a {word} shirt" for word in np.arange(count).astype(str)]
    keys = text_keys([str(number) for number in range(count)])
    return Photos(keys, order, [str(number) for number in order], order, prompts, zeros, zeros, read)


def measured(rounds: int, batch: int, folder: Path) -> dict[str, dict[str, float]]:
    """Return by kind and format what is described above."""
    params = load_params(TINY)
    base = load_base(PROJECT / params.base.pipeline, PROJECT / params.base.image_encoder)
    settings = params.train_anchoring.model_copy(update={"batch_size": batch, "gradient_checkpointing": False})
    photos = drawn_photos(4 * batch, base.resolution)

    def data_of(name: str, formats: dict[str, str]) -> AnchoringData:
        data = anchoring_data(base, photos, RecordEncoder(folder / name, batch, None, formats), base.resolution)
        for records in (*data.encoded, data.faces.records):
            if records.store is not None:
                records.complete()
        return data

    cases = {f"{kind} {kept}": {kind: kept} for kind in KINDS for kept in FORMATS if kept != "float16"}
    every = {name: data_of(name, formats) for name, formats in {BEFORE: {}, **cases}.items()}
    exact = data_of("exact", dict.fromkeys(KINDS, "float32"))
    # A trained one: a new one hardly uses CLIP's states.
    adapter = Adapter.load(PROJECT / str(settings.start_from), base.unet).train()
    adapter.attach(base.unet)
    model = AnchoringModel(adapter, base, settings)

    def batch_of(data: AnchoringData, step: int) -> Any:
        rng = generator(0, "caches", step)
        rows = rng.choice(len(photos), batch, replace=False)
        return make_batch(data, rows, rng, stratified_steps(rng, batch, 1000), (0.0, 0.0, 0.0))

    def step_of(data: AnchoringData) -> Callable[[], None]:
        def step() -> None:
            model.zero_grad()
            model(batch_of(data, 0))["loss"].backward()

        return step

    steps = {name: step_of(data) for name, data in every.items()}
    for step in steps.values():
        step()
    times = interleaved_times(steps, rounds, torch.device("cpu")).cpu
    rows = np.arange(len(photos))

    @torch.no_grad()
    def losses(data: AnchoringData) -> np.ndarray:
        return np.array([float(model.noise_loss(batch_of(data, number))) for number in range(8)])

    true, report = losses(exact), {}
    for name, data in every.items():
        kind = name.split()[0] if name != BEFORE else "clip"
        attribute = {"latents": "latents", "clip": "states", "text": "texts"}[kind]
        found, right = (getattr(one, attribute).tensor(rows).flatten(1) for one in (data, exact))
        store = getattr(data, attribute).store
        report[name] = {
            "bytes": 0 if store is None else store.record_bytes,
            "step_ratio": round(median_ratio(times[name], times[BEFORE]), 3),
            "one_minus_cosine": float(
                f"{max(0.0, 1 - float(torch.cosine_similarity(found, right, dim=1).mean())):.2g}"
            ),
            "relative_error": float(f"{(found - right).norm() / right.norm():.2g}"),
            "loss_difference": float(f"{np.abs(losses(data) / true - 1).mean():.2g}"),
        }
    return report


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--paper", action="store_true", help="only the arithmetic for sd15")
    options = parser.parse_args(argv)
    quiet()
    torch.set_num_threads(1)
    report: dict[str, Any] = {"sd15": paper()}
    if not options.paper:
        with tempfile.TemporaryDirectory() as temporary:
            report["measured"] = measured(options.rounds, options.batch, Path(temporary))
        for name, found in report["measured"].items():
            print(name, found, file=sys.stderr)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
