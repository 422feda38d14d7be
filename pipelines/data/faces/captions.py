"""Get prompts and expressions of photos: the caption sources are asked in order, and the first answer is taken.

A photo without a prompt from any source has none: training then drops its text. Its expression is open (null) unless
its own face prompt names one, a network of `preprocess.expression` does, or without those, CLIP.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model.face.face_prompts import parse
from pipelines.core.errors import UserError
from pipelines.core.paths import resolve
from pipelines.core.sections.data import Captions
from pipelines.data.faces.protocols import Caption, CaptionRequest, CaptionSource

SIDECAR = "sidecar"


class Sidecar:
    """Use the texts given with a photo."""

    def describe(self, requests: Sequence[CaptionRequest]) -> list[Caption]:
        """Return the photo's own prompt and the expression that its face prompt names."""
        named = [parse(request.face_prompt or "").expression for request in requests]
        return [
            Caption(request.prompt or None, word, source=SIDECAR if word else None)
            for request, word in zip(requests, named, strict=True)
        ]


class CaptionChain:
    """Caption sources in order, each asked only about photos that still lack something it provides.

    With `prompts_only`, only the texts given with a photo name its expression.
    """

    def __init__(self, sources: Sequence[CaptionSource], *, prompts_only: bool = False) -> None:
        self._sources, self._prompts_only = tuple(sources), prompts_only

    def describe(self, requests: Sequence[CaptionRequest]) -> list[Caption]:
        """Return prompt and expression of every request, None where no source provides it."""
        captions = [Caption() for _ in requests]
        for source in self._sources:
            names_expression = getattr(source, "names_expression", True)
            if self._prompts_only and not isinstance(source, Sidecar):
                names_expression = False
            lacking = [
                index
                for index, caption in enumerate(captions)
                if caption.prompt is None or (names_expression and caption.expression is None)
            ]
            if not lacking:
                continue
            for index, answer in zip(lacking, source.describe([requests[index] for index in lacking]), strict=True):
                known = captions[index]
                prompt = known.prompt or answer.prompt
                named = (
                    answer
                    if names_expression and known.expression is None and (answer.expression or answer.source)
                    else known
                )
                captions[index] = Caption(
                    prompt,
                    named.expression,
                    prompt is None and (known.failed or answer.failed),
                    confidence=named.confidence,
                    source=named.source,
                )
        return captions


def load_captions(params: Captions, *, prompts_only: bool = False) -> CaptionChain:
    """Load the caption sources as in CaptionChain; raise UserError where the folder of one is not set or missing.

    A network is opened when a photo first needs it: a dataset that has all texts needs none.
    """
    sources: list[CaptionSource] = []
    for name in params.sources:
        if name == "sidecar":
            sources.append(Sidecar())
        elif name == "clip":
            from pipelines.data.faces.clip_captions import ClipCaptions

            sources.append(ClipCaptions(_folder("clip", params.clip_path), params.clip_min_confidence))
        else:
            from pipelines.data.faces.internvl_captions import InternVLCaptions

            sources.append(InternVLCaptions(_folder("internvl", params.internvl_path), params.internvl_batch))
    return CaptionChain(sources, prompts_only=prompts_only)


def caption_folders(params: Captions) -> list[Path]:
    """Return the folders of the sources' networks."""
    paths = {"clip": params.clip_path, "internvl": params.internvl_path}
    return [_folder(name, paths[name]) for name in params.sources if name in paths]


def _folder(source: str, path: str | None) -> Path:
    key = f"preprocess.captions.{source}_path"
    if path is None:
        raise UserError(f"{key} is not set, but preprocess.captions.sources names {source}: set it or drop the source")
    folder = resolve(path)
    if not (folder / "config.json").is_file():
        raise UserError(f"{key} = {path}: no such model folder (config.json is missing)")
    return folder
