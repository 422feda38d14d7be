"""Write prompts by InternVL, a vision-language model: one sentence per photo, in batches."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data.faces.protocols import Caption, CaptionRequest

QUESTION = (
    "Describe this photo in one short sentence: the person, the clothes and the background. "
    "Do not mention the facial expression or where the head is turned."
)
_MAX_NEW_TOKENS = 48
_SENTENCE = re.compile(r"^(.+?)(?:[.!?](?:\s|$)|$)", re.DOTALL)


class InternVLCaptions:
    """CaptionSource of pipelines.data.faces.protocols on an InternVLForConditionalGeneration folder.

    It provides prompts, but no expressions. Where a photo has no answer after two attempts, its caption is failed. At
    most `batch` photos are described at once, and fewer where memory does not suffice. On a GPU all batches have the
    same size, so that a caption does not depend on how many other photos are asked for.
    """

    names_expression = False

    def __init__(self, folder: Path, batch: int = 8) -> None:
        self._folder, self._batch = folder, batch
        self._filled = False
        self._model: Any = None

    def describe(self, requests: Sequence[CaptionRequest]) -> list[Caption]:
        """Return a one-sentence prompt for every request, or a failed caption."""
        self._open()
        images = [request.image for request in requests]
        sentences: list[str | None] = []
        while len(sentences) < len(images):
            sentences += self._sentences(images[len(sentences) :][: self._batch])
        return [Caption(prompt=sentence, failed=sentence is None) for sentence in sentences]

    def _sentences(self, images: list[np.ndarray]) -> list[str | None]:
        """Return a sentence for each image, or none where memory was short and the next batch is smaller."""
        import torch

        sentences: list[str | None] = [None] * len(images)
        try:
            sentences = [one_sentence(text) for text in self._generate(images, least=1)]
        except torch.OutOfMemoryError:
            if self._batch > 1:
                self._batch //= 2
                torch.cuda.empty_cache()
                print(f"captions: too little memory, {self._batch} photos at once from now on", file=sys.stderr)
                return []
        except RuntimeError:
            pass  # each photo of a failed batch is tried alone
        return [sentence or self._retry(image) for image, sentence in zip(images, sentences, strict=True)]

    def _retry(self, image: np.ndarray) -> str | None:
        try:
            return one_sentence(self._generate([image], least=4)[0])
        except RuntimeError:
            return None

    def _open(self) -> None:
        if self._model is not None:
            return
        import torch
        from transformers import AutoTokenizer, InternVLForConditionalGeneration
        from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

        cuda = torch.cuda.is_available()
        half = torch.bfloat16 if cuda and torch.cuda.is_bf16_supported() else torch.float16
        self._model = InternVLForConditionalGeneration.from_pretrained(
            self._folder, local_files_only=True, dtype=half if cuda else torch.float32
        )
        self._model.eval().to("cuda" if cuda else "cpu")
        self._filled = cuda
        self._tokenizer: Any = AutoTokenizer.from_pretrained(self._folder, local_files_only=True, padding_side="left")
        # The model's default processor needs torchvision; this one does the same with Pillow.
        self._processor: Any = GotOcr2ImageProcessorPil.from_pretrained(self._folder, local_files_only=True)
        self._text = self._prompt()

    def _prompt(self) -> str:
        """Return the chat turn, with one context token for each feature of the picture."""
        config = self._model.config
        context = self._tokenizer.convert_ids_to_tokens(config.image_token_id)
        begin = getattr(self._tokenizer, "start_image_token", "<img>")
        end = getattr(self._tokenizer, "end_image_token", "</img>")
        picture = f"{begin}{context * config.image_seq_length}{end}"
        if self._tokenizer.chat_template is None:
            return f"<|im_start|>user\n{picture}\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
        content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
        turn = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        return str(turn).replace(context, picture, 1)

    def _generate(self, images: list[np.ndarray], *, least: int) -> list[str]:
        import torch
        from PIL import Image

        missing = self._batch - len(images) if self._filled else 0
        pictures = [Image.fromarray(image) for image in images + missing * images[-1:]]
        pixels = self._processor(images=pictures, crop_to_patches=False, return_tensors="pt")["pixel_values"]
        tokens = self._tokenizer([self._text] * len(pictures), return_tensors="pt")
        device, dtype = self._model.device, self._model.dtype
        with torch.inference_mode():
            answer = self._model.generate(
                input_ids=tokens["input_ids"].to(device),
                attention_mask=tokens["attention_mask"].to(device),
                pixel_values=pixels.to(device, dtype),
                do_sample=False,
                min_new_tokens=least,
                max_new_tokens=_MAX_NEW_TOKENS,
            )
        new = answer[: len(images), tokens["input_ids"].shape[1] :]
        texts: list[str] = self._tokenizer.batch_decode(new, skip_special_tokens=True)
        return texts


def one_sentence(text: str) -> str | None:
    """Return the first sentence of an answer without its full stop, or None where there is no word in it."""
    flat = " ".join(text.split())
    match = _SENTENCE.match(flat)
    sentence = match.group(1).strip(" \"'") if match else ""
    return sentence if re.search(r"\w", sentence) else None
