"""Compute identity tokens from reference faces and face prompts (paper section 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.face.face import Blend, Face, ReferenceSet
from model.face.face_geometry import landmark_picture
from model.face.face_parts import part_pictures
from model.face.face_prompts import compose, describe_as_published
from model.face.target_motion import TargetMotion
from model.inference.identity_request import (
    FacePrompts,
    Faces,
    Motions,
    Person,
    faces_of,
    motions_of,
    people_and_prompts,
    reference_counts,
    requested_motion,
)
from model.inference.motion_control import MotionControl, refusal, rolled
from model.network.adapter import Adapter
from model.network.templates import retarget


class _Request(NamedTuple):
    """Tokens of `face` with the motion of the face prompt `text`; what that does not name is the motion of `like`.

    `motion`: what else is asked of the motion, None for nothing.
    """

    face: Face
    text: str | None
    like: Face
    motion: TargetMotion | None = None


@dataclass(frozen=True)
class TokenMaker:
    """Compute identity tokens with the adapter and two functions of the frozen models.

    `clip_states` maps a face crop (S, S, 3) uint8 RGB to (1, T, W), and `pooled_text` maps B texts to (B, D).
    """

    adapter: Adapter
    clip_states: Callable[[np.ndarray], Tensor]
    pooled_text: Callable[[Sequence[str]], Tensor]

    @torch.no_grad()
    def __call__(self, faces: Faces, face_prompts: FacePrompts | None = None, motions: Motions | None = None) -> Tensor:
        """Return identity tokens (B, K·R, D) of B pictures with R references each; see IdentityPipeline.tokens_of."""
        pictures, prompts = people_and_prompts(faces, face_prompts)
        asked = motions_of(motions, prompts)
        everyone = [person for people in pictures for person in people]
        texts = [text for row in prompts for text in row]
        wanted = [motion for row in asked for motion in row]
        reference_counts(pictures)
        requests = [one for given in zip(everyone, texts, wanted, strict=True) for one in _requests(*given)]
        of_faces = iter(self._of_faces(requests))
        tokens = torch.cat([_combined(person, of_faces) for person in everyone])
        return tokens.unflatten(0, (len(pictures), -1))

    def _of_faces(self, requests: list[_Request]) -> Tensor:
        """Return the tokens (N, K, D) of each face with its requested motion."""
        # A face that occurs several times is encoded once.
        unique = {id(one.face): one.face for one in requests}
        row = {key: index for index, key in enumerate(unique)}
        device = self.adapter.null_tokens.device
        states = torch.cat([self.clip_states(face.crop).to(device) for face in unique.values()])
        embeddings = torch.from_numpy(np.stack([face.embedding for face in unique.values()])).to(device)
        tokens = self.adapter.identity_tokens(embeddings, states)
        if self.adapter.method.facial_parts:
            tokens = torch.cat([tokens, torch.cat([self._parts(face) for face in unique.values()])], dim=1)
        tokens = tokens[[row[id(one.face)] for one in requests]]
        can = self.adapter.takes_face_prompts
        reconfigured = [
            index
            for index, one in enumerate(requests)
            if one.text is not None or one.motion is not None or (can and one.face is not one.like)
        ]
        if reconfigured:
            tokens[reconfigured] = self._reconfigured(tokens[reconfigured], [requests[index] for index in reconfigured])
        return tokens

    def _parts(self, face: Face) -> Tensor:
        """Return the vectors (1, R, D) of the facial parts of a face."""
        ways = self.adapter.conventions
        if (ways.crop, ways.landmark_frame, ways.landmark_points) not in (
            ("aligned",) * 2 + (68,),
            ("photo",) * 2 + (68,),
        ):
            raise ValueError(
                f"conventions crop={ways.crop}, landmark_frame={ways.landmark_frame}, landmark_points="
                f"{ways.landmark_points}: facial parts are found by 68 landmarks in the frame of the crop"
            )
        states = torch.cat([self.clip_states(picture) for picture in part_pictures(face.crop, face.landmarks)])
        return self.adapter.part_vectors(states[None].to(self.adapter.null_tokens.device))

    def _reconfigured(self, tokens: Tensor, requests: list[_Request]) -> Tensor:
        """Return the tokens with the motions of their face prompts."""
        ways = self.adapter.conventions
        if not self.adapter.takes_face_prompts:
            raise ValueError(
                "a face prompt, or any other motion, needs an adapter with an IMR and landmark templates (train_imr)"
            )
        drop = ways.landmark_outside == "dropped"
        sources, targets, source_texts = [], [], []
        # The texts of each target, and their weights.
        target_texts: list[list[tuple[float, str]]] = []
        for face, text, like, motion in requests:
            if len(face.landmarks) != ways.landmark_points:
                raise ValueError(
                    f"a face with {len(face.landmarks)} landmarks: the adapter's conventions ask for "
                    f"{ways.landmark_points} (landmark_points)"
                )
            sources.append(landmark_picture(face.landmarks, drop_outside=drop))
            source_texts.append(self._described(face))
            target, words = self._conditions(like, text, motion)
            targets.append(landmark_picture(target, drop_outside=drop))
            target_texts.append(words)
        pooled = self.pooled_text(source_texts + [text for words in target_texts for _, text in words])
        source_text, *parts = pooled.to(tokens.device).split([len(requests), *map(len, target_texts)])
        target_text = torch.cat([_sum(part, words) for part, words in zip(parts, target_texts, strict=True)])
        pictures = [torch.from_numpy(np.stack(x)).to(tokens.device) for x in (sources, targets)]
        return self.adapter.reconfigure(tokens, pictures[0], source_text, pictures[1], target_text)

    def _conditions(
        self, like: Face, text: str | None, motion: TargetMotion | None
    ) -> tuple[np.ndarray, list[tuple[float, str]]]:
        """Return the landmarks (N, 2) of a target, and the texts about it with their weights."""
        ways = self.adapter.conventions
        roll = 0.0 if motion is None or motion.roll is None else motion.roll
        if motion is not None and (reason := refusal(self.adapter, motion)):
            raise ValueError(reason)
        if motion is not None and motion.needs_templates:
            target, words = self._control.conditions(like, text, motion)
        elif text is None:
            target, words = like.landmarks, [(1.0, self._described(like))]
        else:
            named = requested_motion(text, like)
            target = self._target_landmarks(like, *named)
            words = [(1.0, text if ways.target_prompt == "verbatim" else compose(*named))]
        return rolled(target, roll) if roll else target, words

    @cached_property
    def _control(self) -> MotionControl:
        assert self.adapter.templates is not None
        return MotionControl.of(self.adapter.templates.float().cpu().numpy())

    def _described(self, face: Face) -> str:
        """Return the face prompt of a face as it is."""
        if self.adapter.conventions.source_prompt == "published":
            return describe_as_published(face.expression, face.pose, face.yaw, face.pitch)
        return compose(face.expression, face.pose)

    def _target_landmarks(self, face: Face, expression: str | None, pose: str | None) -> np.ndarray:
        """Return the landmarks (N, 2) of a face with the requested motion, in the frame of its own."""
        if self.adapter.conventions.target_landmarks == "source":
            return face.landmarks
        assert self.adapter.templates is not None
        bank = self.adapter.templates.float().cpu().numpy()
        return retarget(bank, face.landmarks, face.expression, face.pose, expression, pose)


def _requests(person: Person, text: str | None, motion: TargetMotion | None) -> list[_Request]:
    """Return the requests whose tokens make a person's: one of each face.

    A mix is two faces with the same face prompt; of a set, all get the motion of its best face.
    """
    faces = faces_of(person)
    return [_Request(face, text, faces[0] if isinstance(person, ReferenceSet) else face, motion) for face in faces]


def _sum(pooled: Tensor, words: list[tuple[float, str]]) -> Tensor:
    """Return the weighted sum (1, D) of the pooled texts (T, D) of a target; one text alone as it is."""
    if len(words) == 1 and words[0][0] == 1:
        return pooled
    return (pooled * pooled.new_tensor([weight for weight, _ in words])[:, None]).sum(0, keepdim=True)


def _combined(person: Person, of_faces: Iterator[Tensor]) -> Tensor:
    """Return the tokens of a person, (K, D), or (K·R, D) of a set of R to concatenate, from those of its faces."""
    tokens = torch.stack([next(of_faces) for _ in faces_of(person)])
    if isinstance(person, Blend):
        return torch.lerp(tokens[0], tokens[1], person.share)
    average = isinstance(person, ReferenceSet) and person.combine == "average"
    return tokens.mean(0) if average else tokens.flatten(0, 1)
