"""From reference faces and face prompts to the identity tokens of a picture (paper sections 3.1 and 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.face.face import Blend, Face
from model.face.face_geometry import landmark_picture
from model.face.face_prompts import compose
from model.inference.identity_request import FacePrompts, Faces, faces_of, people_and_prompts, wished
from model.network.adapter import Adapter
from model.network.templates import retarget


@dataclass(frozen=True)
class TokenMaker:
    """What makes tokens: the adapter, and two views of the frozen models.

    `clip_states`: a face crop (S, S, 3) uint8 → (1, T, W); `pooled_text`: B texts → (B, D).
    """

    adapter: Adapter
    clip_states: Callable[[np.ndarray], Tensor]
    pooled_text: Callable[[Sequence[str]], Tensor]

    @torch.no_grad()
    def __call__(self, faces: Faces, face_prompts: FacePrompts | None = None) -> Tensor:
        """Return identity tokens (B, 4·P, D) of B pictures with P people each; see DynamicIDPipeline.tokens_of."""
        pictures, prompts = people_and_prompts(faces, face_prompts)
        everyone = [person for people in pictures for person in people]
        wishes = [text for texts in prompts for text in texts]
        # A mix is two faces with the same wish, until their tokens are made.
        asked = [(face, text) for person, text in zip(everyone, wishes, strict=True) for face in faces_of(person)]
        made = iter(self._of_faces(asked))
        tokens = torch.stack([self._mixed(person, made) for person in everyone])
        return tokens.unflatten(0, (len(pictures), -1)).flatten(1, 2)

    @staticmethod
    def _mixed(person: Face | Blend, made: Iterator[Tensor]) -> Tensor:
        first = next(made)
        return torch.lerp(first, next(made), person.share) if isinstance(person, Blend) else first

    def _of_faces(self, asked: list[tuple[Face, str | None]]) -> Tensor:
        """Return the tokens of each face in the motion asked of it, (N, 4, D)."""
        # A face looked at once serves every picture it is in.
        unique = {id(face): face for face, _ in asked}
        row = {key: index for index, key in enumerate(unique)}
        device = self.adapter.null_tokens.device
        states = torch.cat([self.clip_states(face.crop).to(device) for face in unique.values()])
        embeddings = torch.from_numpy(np.stack([face.embedding for face in unique.values()])).to(device)
        tokens = self.adapter.identity_tokens(embeddings, states)[[row[id(face)] for face, _ in asked]]
        wanted = [index for index, (_, text) in enumerate(asked) if text is not None]
        if wanted:
            tokens[wanted] = self._reconfigured(tokens[wanted], [asked[index] for index in wanted])
        return tokens

    def _reconfigured(self, tokens: Tensor, asked: list[tuple[Face, str | None]]) -> Tensor:
        """Give every row of tokens the motion that its text asks for."""
        if self.adapter.templates is None:
            raise ValueError("a face prompt needs an adapter with an IMR and landmark templates (stage train_imr)")
        bank = self.adapter.templates.float().cpu().numpy()
        sources, targets, source_texts, target_texts = [], [], [], []
        for face, text in asked:
            expression, pose = wished(str(text), face)
            shape = retarget(bank, face.landmarks, face.expression, face.pose, expression, pose)
            sources.append(landmark_picture(face.landmarks))
            targets.append(landmark_picture(shape))
            source_texts.append(compose(face.expression, face.pose))
            target_texts.append(compose(expression, pose))
        pooled = self.pooled_text(source_texts + target_texts)
        source_text, target_text = pooled.to(tokens.device).chunk(2)
        pictures = [torch.from_numpy(np.stack(x)).to(tokens.device) for x in (sources, targets)]
        return self.adapter.reconfigure(tokens, pictures[0], source_text, pictures[1], target_text)
