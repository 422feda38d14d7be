"""Published files draw as published code draws them, and by other conventions something else."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from insightface.app.common import Face as InsightFace

from model.face.conventions import OURS, PUBLISHED, Conventions
from model.face.face_prompts import EXPRESSIONS, POSES, describe_as_published
from model.network.crop_transform import CLIP_MEAN
from pipelines.core.errors import UserError
from pipelines.core.params import load_params
from pipelines.core.sections.conventions import Conventions as Section
from pipelines.serving.generation import Generator
from pipelines.serving.request import DrawRequest, Reference
from tests.pipelines.photos import slim_landmarker
from tests.published_code import Call, PublishedCode
from tests.published_files import PACK, converted, dynamicid, write_home

TOLERANCE = 1e-4
SHIPPED = Path(__file__).parents[3] / "model" / "foundation" / "weights" / "insightface"
Draw = Callable[..., torch.Tensor]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, project: Path) -> Path:
    return write_home(tmp_path_factory.mktemp("published"), project)


class LatentPipeline:
    """A pipeline that keeps latents in place of pictures."""

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pipe, name)

    def __call__(self, prompt: str, **arguments: Any) -> Any:
        done = self.pipe(prompt, **arguments, output_type="latent")
        return SimpleNamespace(images=[done.images], gate_maps=None)


@pytest.fixture(scope="module")
def generators(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Generator]:
    """Return what draws with the published files as `dynamicid generate` does, converted with some changes."""
    made: dict[tuple[str, ...], Generator] = {}

    def load(*changes: str) -> Generator:
        if changes not in made:
            adapter = converted(home, tmp_path_factory.mktemp("converted") / "adapter", *changes)
            made[changes] = Generator.load(adapter, load_params(home / "params.yaml"))
            made[changes]._pipeline = LatentPipeline(made[changes]._pipeline)
        return made[changes]

    return load


@pytest.fixture(scope="module")
def photos(drawn_people: list[Path]) -> list[Reference]:
    return [Reference(file.name, file.read_bytes()) for file in drawn_people]


def drawn(generator: Generator, photos: list[Reference], **request: Any) -> torch.Tensor:
    return generator.draw(DrawRequest(tuple(photos), "a person walking on the street", seed=7, **request)).image


def by_published_code(
    home: Path, generator: Generator, photos: list[Reference], texts: tuple[str, ...], boxes: Any = None
) -> torch.Tensor:
    """Return what published code draws of the photos as preprocessing stores them."""
    code = PublishedCode(
        home / "base" / "sd", home / "base" / "image_encoder", home / "insightface" / "models" / PACK, home / "files"
    )
    tokens, null = [], None
    for number, photo in enumerate(photos):
        record = generator._record(photo, None)
        image = cv2.cvtColor(cv2.imdecode(np.frombuffer(record.image, np.uint8), 1), cv2.COLOR_BGR2RGB)
        own, null = code.tokens_of(image, InsightFace(bbox=record.bbox, kps=record.keypoints))
        if texts:
            source = describe_as_published(record.expression, record.pose, record.yaw, record.pitch)
            own = code.edited(own, code.landmark_picture(image, record.bbox), source, texts[number])
        tokens.append(own)
    people = len(photos)
    regions = boxes or [(0, place / people, 1, (place + 1) / people) for place in range(people)]
    boosted = {"boost": 2.0, "boost_steps": 12} if boxes or people > 1 else {}
    noise = torch.randn((1, 4, 16, 16), generator=torch.Generator("cpu").manual_seed(7))
    call = Call(people, regions, **boosted)
    prompt = "a person walking on the street"
    return code.latents(prompt, PUBLISHED.negative_prompt, torch.cat(tokens, dim=1), null, call, 4, noise)


CASES = {
    "as the reference": (1, (), ()),
    "a face prompt": (1, ("a very surprised expression, front view",), ()),
    "a box of one person": (1, (), ((0.0, 0.0, 0.5, 0.75),)),
    "two people": (2, ("a happy expression, side view.", "a sad face"), ((0.1, 0.1, 0.6, 0.5), (0.1, 0.6, 0.9, 1.0))),
}


@pytest.mark.parametrize(("people", "texts", "boxes"), CASES.values(), ids=CASES)
@torch.no_grad()
def test_published_files_draw_as_published_code(
    home: Path, generators: Callable[..., Generator], photos: list[Reference], *, people: int, texts: Any, boxes: Any
) -> None:
    generator = generators()
    found = drawn(generator, photos[:people], face_prompts=texts, boxes=boxes)
    expected = by_published_code(home, generator, photos[:people], texts, [list(box) for box in boxes])
    assert float(expected.abs().max()) > 0.1
    assert float((found - expected).abs().max()) <= TOLERANCE


@pytest.mark.realdata
@torch.no_grad()
def test_a_photograph_is_drawn_as_by_published_code(project: Path, shared: Path, tmp_path: Path) -> None:
    """With the real small recogniser, by which exchanged colours are another vector."""
    pack = shared / "weights" / "insightface" / "models" / "buffalo_real_mini"
    real = {"landmarker": slim_landmarker(shared), "captions": {"sources": ["sidecar"]}}
    home = write_home(tmp_path / "home", project, pack, **real)
    file = sorted((shared / "photos" / "lfw10_krasserm").rglob("*.jpg"))[0]
    photos = [Reference("photo", file.read_bytes())]
    generator = Generator.load(converted(home, tmp_path / "adapter"), load_params(home / "params.yaml"))
    generator._pipeline = LatentPipeline(generator._pipeline)
    texts = ("a very surprised expression, front view",)
    expected = by_published_code(home, generator, photos, texts)
    assert float((drawn(generator, photos, face_prompts=texts) - expected).abs().max()) <= TOLERANCE
    own = drawn(generator, photos, face_prompts=texts)
    adapter = generator._pipeline.adapter
    adapter.conventions = adapter.conventions.with_values({"recogniser_channels": "rgb"})
    generator.__dict__.pop("_inputs")
    assert float((drawn(generator, photos, face_prompts=texts) - own).abs().max()) > 10 * TOLERANCE


def test_the_section_has_the_values_of_a_set() -> None:
    assert list(Section.model_fields) == ["like", *Conventions.model_fields]
    assert Section().values() == {}


def test_by_our_conventions_the_same_files_draw_something_else(
    generators: Callable[..., Generator], photos: list[Reference]
) -> None:
    published = drawn(generators(), photos[:1])
    ours = drawn(generators("conventions.like=ours"), photos[:1])
    assert float((published - ours).abs().max()) > 100 * TOLERANCE
    assert generators("conventions.like=ours")._pipeline.adapter.conventions == OURS.with_values(
        {"steps": 4, "resolution": 64}
    )


# One other value of each, and what it needs to have an effect.
OTHERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "crop": ("aligned", {}),
    "hair": (False, {"crop": "aligned"}),
    "clip_pixels": ("encoder", {}),
    "recogniser_channels": ("rgb", {}),
    "landmark_points": (68, {}),
    "landmark_frame": ("aligned", {"landmark_points": 68}),
    "landmark_outside": ("border", {}),
    "target_landmarks": ("template", {"landmark_points": 68, "landmark_frame": "aligned"}),
    "source_prompt": ("composed", {}),
    "target_prompt": ("composed", {}),
    "identity_scale": (0.5, {}),
    "boost": (0.5, {}),
    "boost_steps": (1, {}),
    "layout_steps": (2, {}),
    "boost_one_person": (False, {}),
    "negative_prompt": ("", {}),
    "sampler": ("dpm", {}),
    "steps": (3, {}),
    "guidance": (2.0, {}),
    "guidance_rescale": (0.9, {}),
    "resolution": (128, {}),
}


@pytest.mark.parametrize("name", Conventions.model_fields)
def test_every_value_has_an_effect(generators: Callable[..., Generator], photos: list[Reference], name: str) -> None:
    """Each is changed alone, in pictures with a face prompt and a box."""
    generator = generators()
    adapter, kept = generator._pipeline.adapter, generator._pipeline.adapter.conventions
    processor = generator._pipeline.pipe.crop_processor
    # Points beside the photo: then it counts what becomes of them. Templates and an encoder with pixels of its own.
    adapter.templates = torch.rand(len(EXPRESSIONS), len(POSES), 68, 2, generator=torch.Generator().manual_seed(1))
    processor.image_mean = [0.5, 0.5, 0.5]
    value, needed = OTHERS[name]

    def picture(values: dict[str, Any]) -> torch.Tensor:
        from pipelines.evaluation.sampling import use_sampler

        adapter.conventions = kept.with_values(values)
        use_sampler(generator._pipeline.pipe, adapter.conventions.sampler)
        generator.__dict__.pop("_inputs", None)
        return drawn(generator, photos[:1], face_prompts=("sad",), boxes=((0.1, 0.0, 0.5, 0.5),))

    try:
        before, again, after = picture(needed), picture(needed), picture({**needed, name: value})
    finally:
        adapter.templates, processor.image_mean = None, list(CLIP_MEAN)
        adapter.conventions = kept
        generator.__dict__.pop("_inputs", None)
    assert torch.equal(before, again)
    # Random weights pass little on, on some processors less than 1e-5; without an effect, the difference is 0.
    assert before.shape != after.shape or float((before - after).abs().max()) > 2e-6


def test_a_pack_without_106_landmarks_is_named(
    home: Path, generators: Callable[..., Generator], photos: list[Reference]
) -> None:
    """A face prompt needs them."""
    changes = ["preprocess.insightface_name=tiny_faces", f"preprocess.insightface_root={SHIPPED}"]
    params = load_params(home / "params.yaml", changes)
    generator = Generator(generators()._pipeline, generators()._analyser, params)
    assert torch.equal(drawn(generator, photos[:1]), drawn(generators(), photos[:1]))
    with pytest.raises(UserError, match=r"tiny_faces: no network for 106 landmarks.*landmark_points"):
        drawn(generator, photos[:1], face_prompts=("sad",))


def test_what_was_converted_once_keeps_its_conventions(home: Path, tmp_path: Path) -> None:
    """Out as published files with the rest file, and in again: the same bytes, whatever the parameters say now."""
    adapter = converted(home, tmp_path / "first", "conventions.guidance=4.0")
    ways = ("--params", home / "params.yaml", "--set", "conventions.like=ours")
    result = dynamicid("convert", "to-published", adapter, "--out", tmp_path / "out", *ways)
    assert result.exit_code == 0, result.output
    assert "other inputs" not in result.stderr
    files = [tmp_path / "out" / name for name in ("SAA.bin", "IMR.bin", "key_point_encoder.bin", "rest.safetensors")]
    names = ("--saa", "--imr", "--landmark-encoder", "--rest")
    given = [word for pair in zip(names, files, strict=True) for word in pair]
    result = dynamicid("convert", "from-published", *given, "--out", tmp_path / "again", *ways)
    assert result.exit_code == 0, result.output
    for file in ("config.json", "adapter.safetensors"):
        assert (adapter / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("conventions.crops=photo", "unknown key conventions.crops; did you mean conventions.crop?"),
        ("conventions.crop=square", "conventions.crop = 'square'"),
        ("conventions.target_landmarks=template", "target_landmarks=template: templates are 68 points"),
    ],
)
def test_a_wrong_value_is_refused_and_nothing_is_written(home: Path, tmp_path: Path, change: str, message: str) -> None:
    given = ["--saa", home / "files" / "SAA.bin", "--out", tmp_path / "adapter", "--set", change]
    result = dynamicid("convert", "from-published", *given, "--params", home / "params.yaml")
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)
    assert not (tmp_path / "adapter").exists()


def test_the_table_of_the_docs_has_both_sets(project: Path) -> None:
    page = (project / "docs" / "reference" / "published.md").read_text("utf-8")
    found = re.findall(r"^\| `([a-z_0-9]+)` \| (.*?) \| (.*?) \|", page, re.MULTILINE)
    rows = {name: values for name, *values in found}
    assert list(rows) == list(Conventions.model_fields)
    for name, shown in rows.items():
        for text, one in zip(shown, (PUBLISHED, OURS), strict=True):
            if text.endswith("…"):
                assert getattr(one, name).startswith(text.removesuffix("…"))
            else:
                assert yaml.safe_load(text) == getattr(one, name), name
