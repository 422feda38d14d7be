"""Compute identity tokens from reference faces and face prompts (paper section 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.face.face import Blend, Face
from model.face.face_geometry import landmark_picture
from model.face.face_parts import part_pictures
from model.face.face_prompts import compose, describe_as_published
from model.inference.identity_request import FacePrompts, Faces, faces_of, people_and_prompts, requested_motion
from model.network.adapter import Adapter
from model.network.templates import retarget


@dataclass(frozen=True)
class TokenMaker:
    """Compute identity tokens with the adapter and two functions of the frozen models.

    `clip_states` maps a face crop (S, S, 3) uint8 RGB to (1, T, W), and `pooled_text` maps B texts to (B, D).
    """

    adapter: Adapter
    clip_states: Callable[[np.ndarray], Tensor]
    pooled_text: Callable[[Sequence[str]], Tensor]

    @torch.no_grad()
    def __call__(self, faces: Faces, face_prompts: FacePrompts | None = None) -> Tensor:
        """Return identity tokens (B, K·P, D) of B pictures with P people each; see IdentityPipeline.tokens_of."""
        pictures, prompts = people_and_prompts(faces, face_prompts)
        everyone = [person for people in pictures for person in people]
        texts = [text for row in prompts for text in row]
        # A mix is two faces with the same face prompt; their tokens are mixed afterwards.
        requests = [(face, text) for person, text in zip(everyone, texts, strict=True) for face in faces_of(person)]
        of_faces = iter(self._of_faces(requests))
        tokens = torch.stack([self._mixed(person, of_faces) for person in everyone])
        return tokens.unflatten(0, (len(pictures), -1)).flatten(1, 2)

    @staticmethod
    def _mixed(person: Face | Blend, of_faces: Iterator[Tensor]) -> Tensor:
        first = next(of_faces)
        return torch.lerp(first, next(of_faces), person.share) if isinstance(person, Blend) else first

    def _of_faces(self, requests: list[tuple[Face, str | None]]) -> Tensor:
        """Return the tokens (N, K, D) of each face with its requested motion."""
        # A face that occurs several times is encoded once.
        unique = {id(face): face for face, _ in requests}
        row = {key: index for index, key in enumerate(unique)}
        device = self.adapter.null_tokens.device
        states = torch.cat([self.clip_states(face.crop).to(device) for face in unique.values()])
        embeddings = torch.from_numpy(np.stack([face.embedding for face in unique.values()])).to(device)
        tokens = self.adapter.identity_tokens(embeddings, states)
        if self.adapter.method.facial_parts:
            tokens = torch.cat([tokens, torch.cat([self._parts(face) for face in unique.values()])], dim=1)
        tokens = tokens[[row[id(face)] for face, _ in requests]]
        reconfigured = [index for index, (_, text) in enumerate(requests) if text is not None]
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

    def _reconfigured(self, tokens: Tensor, requests: list[tuple[Face, str | None]]) -> Tensor:
        """Return the tokens with the motions of their face prompts."""
        ways = self.adapter.conventions
        if not self.adapter.takes_face_prompts:
            raise ValueError("a face prompt needs an adapter with an IMR and landmark templates (stage train_imr)")
        drop = ways.landmark_outside == "dropped"
        sources, targets, source_texts, target_texts = [], [], [], []
        for face, text in requests:
            expression, pose = requested_motion(str(text), face)
            if len(face.landmarks) != ways.landmark_points:
                raise ValueError(
                    f"a face with {len(face.landmarks)} landmarks: the adapter's conventions ask for "
                    f"{ways.landmark_points} (landmark_points)"
                )
            sources.append(landmark_picture(face.landmarks, drop_outside=drop))
            targets.append(landmark_picture(self._target_landmarks(face, expression, pose), drop_outside=drop))
            published = ways.source_prompt == "published"
            own = face.expression, face.pose
            source_texts.append(describe_as_published(*own, face.yaw, face.pitch) if published else compose(*own))
            target_texts.append(str(text) if ways.target_prompt == "verbatim" else compose(expression, pose))
        pooled = self.pooled_text(source_texts + target_texts)
        source_text, target_text = pooled.to(tokens.device).chunk(2)
        pictures = [torch.from_numpy(np.stack(x)).to(tokens.device) for x in (sources, targets)]
        return self.adapter.reconfigure(tokens, pictures[0], source_text, pictures[1], target_text)

    def _target_landmarks(self, face: Face, expression: str | None, pose: str | None) -> np.ndarray:
        """Return the landmarks (N, 2) of a face with the requested motion, in the frame of its own."""
        if self.adapter.conventions.target_landmarks == "source":
            return face.landmarks
        assert self.adapter.templates is not None
        bank = self.adapter.templates.float().cpu().numpy()
        return retarget(bank, face.landmarks, face.expression, face.pose, expression, pose)
