"""Get prompts and expressions of photos: the caption sources are asked in order, and the first answer is taken.

A photo without a prompt from any source gets "a photo of a person", unless a source failed on it. Its expression is
unknown (null) unless its own face prompt names one or CLIP is a source: no other source recognises expressions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from model.face.face_prompts import POSE_PHRASES, compose, parse, pose_of_yaw
from pipelines.core.errors import UserError
from pipelines.core.paths import resolve
from pipelines.core.sections.data import Captions
from pipelines.data.faces.protocols import Caption, CaptionRequest, CaptionSource

DEFAULT_PROMPT = "a photo of a person"


def face_prompt_of(expression: str | None, yaw: float) -> str:
    """Return the face prompt for an expression (None: unknown) and yaw (degrees, as in model.face.face_prompts)."""
    pose = pose_of_yaw(yaw)
    return compose(expression, pose) if expression else POSE_PHRASES[pose]


class Sidecar:
    """Use the texts given with a photo."""

    def describe(self, requests: Sequence[CaptionRequest]) -> list[Caption]:
        """Return the photo's own prompt and the expression that its face prompt names."""
        return [
            Caption(request.prompt or None, parse(request.face_prompt).expression if request.face_prompt else None)
            for request in requests
        ]


class CaptionChain:
    """Caption sources in order, each asked only about photos that still lack something it provides."""

    def __init__(self, sources: Sequence[CaptionSource]) -> None:
        self._sources = tuple(sources)

    def describe(self, requests: Sequence[CaptionRequest]) -> list[Caption]:
        """Return prompt and expression of every request, None where no source provides it."""
        captions = [Caption() for _ in requests]
        for source in self._sources:
            names_expression = getattr(source, "names_expression", True)
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
                captions[index] = Caption(
                    prompt, known.expression or answer.expression, prompt is None and (known.failed or answer.failed)
                )
        return [
            caption if caption.prompt or caption.failed else replace(caption, prompt=DEFAULT_PROMPT)
            for caption in captions
        ]


def load_captions(params: Captions) -> CaptionChain:
    """Load the caption sources; raise UserError where the folder of one is not set or missing.

    A network is opened when a photo first needs it: a dataset that has all texts needs none.
    """
    sources: list[CaptionSource] = []
    for name in params.sources:
        if name == "sidecar":
            sources.append(Sidecar())
        elif name == "clip":
            from pipelines.data.faces.clip_captions import ClipCaptions

            sources.append(ClipCaptions(_folder("clip", params.clip_path)))
        else:
            from pipelines.data.faces.internvl_captions import InternVLCaptions

            sources.append(InternVLCaptions(_folder("internvl", params.internvl_path)))
    return CaptionChain(sources)


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
