"""Prompts and expressions come from sidecars, CLIP or InternVL, in the configured order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from model.face.face_prompts import EXPRESSIONS
from pipelines.core.errors import UserError
from pipelines.core.sections.data import Captions
from pipelines.data.faces.captions import CaptionChain, Sidecar, load_captions
from pipelines.data.faces.internvl_captions import InternVLCaptions, one_sentence
from pipelines.data.faces.protocols import Caption, CaptionRequest
from tests.random_networks import save_random_clip

_BOX = np.array([16, 16, 48, 48.0], np.float32)


def _request(prompt: str | None = None, face_prompt: str | None = None, seed: int = 0) -> CaptionRequest:
    image = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), np.uint8)
    return CaptionRequest(image, _BOX, prompt, face_prompt)


class _Fixed:
    """A source with one answer that counts its requests."""

    def __init__(self, answer: Caption, *, names_expression: bool = True) -> None:
        self.answer, self.names_expression, self.asked = answer, names_expression, 0

    def describe(self, requests: Sequence[CaptionRequest]) -> list[Caption]:
        self.asked += len(requests)
        return [self.answer] * len(requests)


def test_the_texts_of_a_photo_win_and_without_a_source_there_are_none() -> None:
    known, unknown = CaptionChain([Sidecar()]).describe(
        [_request("a man in red", "sad, turned to the left"), _request()]
    )
    assert known == Caption("a man in red", "sad")
    assert unknown == Caption(None, None)
    assert (known.source, unknown.source) == ("sidecar", None)


def test_with_networks_for_expressions_other_sources_name_none() -> None:
    later = _Fixed(Caption("from later", "happy"))
    chain = CaptionChain([Sidecar(), later], prompts_only=True)
    assert chain.describe([_request("given", "angry"), _request("given"), _request()]) == [
        Caption("given", "angry"),
        Caption("given"),
        Caption("from later"),
    ]
    assert later.asked == 1


def test_a_source_is_asked_only_for_what_is_missing() -> None:
    later = _Fixed(Caption("from later", "happy"))
    texts_only = _Fixed(Caption("a text"), names_expression=False)
    chain = CaptionChain([Sidecar(), texts_only, later])
    requests = [_request("given", "angry"), _request("given", "facing the camera"), _request(None, "angry"), _request()]
    captions = chain.describe(requests)
    assert captions == [
        Caption("given", "angry"),
        Caption("given", "happy"),
        Caption("a text", "angry"),
        Caption("a text", "happy"),
    ]
    assert (texts_only.asked, later.asked) == (2, 2)


def test_a_failed_caption_is_failed_unless_another_source_knows() -> None:
    failing = _Fixed(Caption(failed=True), names_expression=False)
    assert CaptionChain([failing]).describe([_request()])[0].failed
    answered = CaptionChain([failing, _Fixed(Caption("a text", "sad"))]).describe([_request()])[0]
    assert answered == Caption("a text", "sad")


@pytest.mark.parametrize("source", ["clip", "internvl"])
def test_a_source_without_its_folder_is_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{source}_path is not set"):
        load_captions(Captions(sources=(source,)))
    with pytest.raises(UserError, match=f"{source}_path = .*nowhere: no such model folder"):
        load_captions(Captions(sources=(source,), **{f"{source}_path": str(tmp_path / "nowhere")}))


def test_clip_names_clothes_background_and_expression(tmp_path: Path) -> None:
    folder = save_random_clip(tmp_path / "clip")
    chain = load_captions(Captions(sources=("sidecar", "clip"), clip_path=str(folder)))
    requests = [_request(seed=seed) for seed in range(3)] + [_request("kept", "happy, facing the camera")]
    captions = chain.describe(requests)
    for caption in captions[:3]:
        assert caption.prompt.startswith("a photo of a person wearing a")
        assert caption.expression in EXPRESSIONS
    assert captions[3] == Caption("kept", "happy")
    assert chain.describe(requests[1:2])[0] == captions[1]


def test_clip_picks_the_text_that_fits(tmp_path: Path) -> None:
    """Where picture features are those of a text, that text is the answer."""
    from pipelines.data.faces.clip_captions import CLOTHES, SETTINGS, ClipCaptions

    clip = ClipCaptions(save_random_clip(tmp_path / "clip"))
    clip.describe([_request()])
    wanted = {"clothes": 7, "settings": 3, "expressions": 5}
    features = {name: clip._texts[name][index] for name, index in wanted.items()}
    picture = features["clothes"] + features["settings"]
    clip._features = lambda images: np.stack([features["expressions"] if images[0].shape[0] < 64 else picture])
    (caption,) = clip.describe([_request()])
    assert caption.expression == EXPRESSIONS[5]
    best = {name: int((clip._texts[name] @ picture).argmax()) for name in ("clothes", "settings")}
    assert caption.prompt == f"a photo of a person wearing {CLOTHES[best['clothes']]}, {SETTINGS[best['settings']]}"


def test_clip_states_only_what_it_is_sure_of(tmp_path: Path) -> None:
    """A picture that fits a text about nothing has no clothes; below the bound, not even the best words are stated."""
    from pipelines.data.faces.clip_captions import CLOTHES, EXPRESSIONS, SETTINGS, ClipCaptions

    clip = ClipCaptions(save_random_clip(tmp_path / "clip"), 0.5)
    clip.describe([_request()])
    size = len(CLOTHES) + len(SETTINGS) + len(EXPRESSIONS) + 3
    axes = np.split(np.eye(size), np.cumsum([len(CLOTHES), len(SETTINGS), len(EXPRESSIONS)]))
    clip._texts = dict(zip(("clothes", "settings", "expressions", "nothing"), axes, strict=True))
    clip._sharpness = 100.0
    clothes, settings, expressions, nothing = axes

    def caption(picture: np.ndarray, face: np.ndarray) -> Caption:
        clip._features = lambda images: np.stack([face if images[0].shape[0] < 64 else picture])
        return clip.describe([_request()])[0]

    sure = caption(clothes[7] + settings[3], expressions[5])
    assert sure == Caption(f"a photo of a person wearing {CLOTHES[7]}, {SETTINGS[3]}", EXPRESSIONS[5])
    assert sure.confidence == pytest.approx(1)
    assert caption(0.8 * nothing[0] + settings[3], expressions[5]).prompt == f"a photo of a person, {SETTINGS[3]}"
    close_up = caption(nothing[0], expressions[1:4].sum(0))
    assert close_up == Caption(None, None)
    assert (close_up.confidence, close_up.source) == (pytest.approx(1 / 3), "clip")


def test_internvl_answers_in_one_sentence_and_in_batches(tmp_path: Path) -> None:
    source = InternVLCaptions(_save_internvl(tmp_path / "internvl"))
    requests = [_request(seed=seed) for seed in range(10)]
    captions = source.describe(requests)
    assert len(captions) == 10
    assert all((caption.prompt is None) == caption.failed for caption in captions)
    assert all(caption.expression is None for caption in captions)
    prompts = [caption.prompt for caption in captions if caption.prompt]
    assert len(set(prompts)) > 1, "the answer depends on the picture"
    assert not any("\n" in sentence or "IMG_CONTEXT" in sentence for sentence in prompts)
    assert source.describe(requests[3:4]) == captions[3:4]


@pytest.mark.parametrize("filled", [False, True], ids=["processor", "gpu"])
def test_internvl_gives_the_same_captions_in_batches_of_any_size(tmp_path: Path, filled: bool) -> None:
    folder = _save_internvl(tmp_path / "internvl")
    requests = [_request(seed=seed) for seed in range(5)]
    alone = InternVLCaptions(folder, 1).describe(requests)
    assert len({caption.prompt for caption in alone}) > 1
    for batch in (2, 4):
        source, sizes = InternVLCaptions(folder, batch), []
        source._open()
        source._filled = filled
        generate = source._model.generate
        source._model.generate = lambda generate=generate, sizes=sizes, **given: (
            sizes.append(len(given["pixel_values"])),
            generate(**given),
        )[1]
        assert source.describe(requests) == alone
        assert max(sizes) == batch
        assert set(sizes) == {batch} if filled else set(sizes) >= {batch, 1}


def test_internvl_takes_smaller_batches_where_memory_is_short(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    source = InternVLCaptions(_save_internvl(tmp_path / "internvl"))
    asked: list[int] = []

    def fits_three(images: list[np.ndarray], *, least: int) -> list[str]:
        asked.append(len(images))
        if len(images) > 3:
            raise torch.OutOfMemoryError
        return ["A person."] * len(images)

    source._generate = fits_three
    for _ in range(2):
        assert source.describe([_request(seed=seed) for seed in range(9)]) == [Caption("A person")] * 9
    assert asked == [8, 4, *[2, 2, 2, 2, 1] * 2], "the smaller size is kept"
    assert "2 photos at once" in capsys.readouterr().err


def test_internvl_is_asked_again_and_then_recorded_as_failed(tmp_path: Path) -> None:
    source = InternVLCaptions(_save_internvl(tmp_path / "internvl"))
    asked: list[int] = []

    def fails_in_a_batch(images: list[np.ndarray], *, least: int) -> list[str]:
        asked.append(len(images))
        if len(images) > 1:
            raise RuntimeError("out of memory")
        return ["  " if len(asked) == 2 else "A person in a park. And more."]

    source._generate = fails_in_a_batch
    assert source.describe([_request(seed=seed) for seed in range(3)]) == [
        Caption(failed=True),
        Caption("A person in a park"),
        Caption("A person in a park"),
    ]
    assert asked == [3, 1, 1, 1]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [(" A man. He smiles.", "A man"), ('"A man"\n', "A man"), ("a\nb c", "a b c"), (" .. ", None), ("", None)],
)
def test_one_sentence_is_cut_out(text: str, sentence: str | None) -> None:
    assert one_sentence(text) == sentence


def _save_internvl(folder: Path) -> Path:
    import torch
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import InternVLConfig, InternVLForConditionalGeneration, Qwen2TokenizerFast
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    letters = {letter: index for index, letter in enumerate(sorted(ByteLevel.alphabet()))}
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"]
    tokenizer = Qwen2TokenizerFast(vocab={**letters, "<|endoftext|>": len(letters)}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": special[1:]})
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    tower["initializer_range"] = 0.5
    config = InternVLConfig(
        text_config={**tower, "model_type": "qwen2", "vocab_size": len(tokenizer), "num_key_value_heads": 2},
        vision_config={**tower, "image_size": [32, 32], "patch_size": [8, 8]},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        InternVLForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    GotOcr2ImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder
