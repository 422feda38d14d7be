"""CLIP's losses on pictures of several people: every person's words must be near that person.

Without them, CLIP learns which expressions a picture has, but not whose they are. Linear classifiers, discarded
afterwards, read each person's expression, pose and colour of clothes: in the text from the state at the end of the
words on this person, in the picture from the states of the patches under the face.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.face.face_prompts import EXPRESSIONS, POSES
from model.face.people_prompts import people_of, with_face_prompts, without_people
from model.foundation.clip import WIDTH, colour_of, contrastive, normalise
from model.foundation.edition import Edition
from model.foundation.people import Array, Groups, People
from model.network.crop_transform import squared

WEIGHT = 0.5


class PersonLosses(nn.Module):
    """The losses of a batch of pictures of several people, with the classifiers that they need."""

    def __init__(self, people: People, tokenizer: Any, edition: Edition) -> None:
        super().__init__()
        spec = edition.clip
        self.batch, self.size, self.patches = spec.groups, spec.size, spec.size // spec.patch
        self.tokenizer = tokenizer
        self.sets = [(groups, rows) for groups in people.groups if len(rows := people.train_rows(groups))]
        if not self.sets:
            raise ValueError("no pictures of several people to train on; draw them with `dynamicid foundation draw`")
        prompts = [prompt for groups, _ in self.sets for prompt in groups.prompts]
        self.colours = sorted({colour_of(person) for prompt in prompts for person in _persons(prompt)})
        self.settings = sorted({_setting(prompt) for prompt in prompts})
        classes = {"expression": len(EXPRESSIONS), "pose": len(POSES), "colour": len(self.colours)}
        self.text = nn.ModuleDict({name: nn.Linear(WIDTH, count) for name, count in classes.items()})
        self.photo = nn.ModuleDict({name: nn.Linear(WIDTH, count) for name, count in classes.items()})
        self.setting = nn.ModuleDict({name: nn.Linear(WIDTH, len(self.settings)) for name in ("text", "photo")})

    def forward(self, clip: Any, rng: np.random.Generator, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of a random batch, and how often a person's expression is read from the text."""
        groups, rows = self.sets[int(rng.integers(len(self.sets)))]
        rows = np.sort(rng.choice(rows, self.batch))
        device = scale.device
        texts = [with_face_prompts(groups.prompts[row], groups.face_prompts[row]) for row in rows]
        square = [squared(groups.photos[row]) for row in rows]
        small = np.stack([cv2.resize(one, (self.size, self.size), interpolation=cv2.INTER_AREA) for one in square])
        seen = clip.vision_model(normalise(small).to(device))
        tokens = self.tokenizer(texts, padding=True, return_tensors="pt").to(device)
        read = clip.text_model(**tokens)
        loss = contrastive(
            clip.visual_projection(seen.pooler_output), clip.text_projection(read.pooler_output), texts, scale
        )
        setting = torch.tensor([self.settings.index(_setting(groups.prompts[row])) for row in rows], device=device)
        for name, states in (("text", read.pooler_output), ("photo", seen.pooler_output)):
            loss = loss + WEIGHT * F.cross_entropy(self.setting[name](states), setting)
        picture, person = np.nonzero(np.asarray(groups.identity[rows]) >= 0)
        ends = clause_ends(tokens.input_ids.cpu().numpy(), self.tokenizer)
        at = torch.tensor([ends[one][two] for one, two in zip(picture, person, strict=True)], device=device)
        under = patch_shares(groups, rows, self.patches)[picture, person]
        states = {
            "text": read.last_hidden_state[torch.from_numpy(picture).to(device), at],
            "photo": (under.to(device)[:, None] @ seen.last_hidden_state[:, 1:][picture].float())[:, 0],
        }
        labels = self._labels(groups, rows, picture, person)
        right = torch.zeros(())
        for kind, heads in (("text", self.text), ("photo", self.photo)):
            for name, head in heads.items():
                answer, true = head(states[kind]), torch.from_numpy(labels[name]).to(device)
                loss = loss + WEIGHT * F.cross_entropy(answer, true)
                if (kind, name) == ("text", "expression"):
                    right = (answer.argmax(1) == true).float().mean()
        return loss, right

    def _labels(self, groups: Groups, rows: Array, picture: Array, person: Array) -> dict[str, Array]:
        people = [_persons(groups.prompts[row]) for row in rows]
        colours = [self.colours.index(colour_of(people[a][b])) for a, b in zip(picture, person, strict=True)]
        return {
            "expression": np.asarray(groups.expression[rows][picture, person], np.int64),
            "pose": np.asarray(groups.pose[rows][picture, person], np.int64),
            "colour": np.array(colours, np.int64),
        }


def _persons(prompt: str) -> tuple[str, ...]:
    """Return what a prompt states of each person; of one person, all of it."""
    return people_of(prompt) or (prompt,)


def _setting(prompt: str) -> str:
    return without_people(prompt).split(", ", 1)[1]


def clause_ends(tokens: Array, tokenizer: Any) -> list[list[int]]:
    """Return, for each text of `tokens` (B, T), the places of the last token on each person: before ";" and the end."""
    separator = tokenizer(";").input_ids[1]
    ends = []
    for row in tokens:
        last = int(np.argmax(row == tokenizer.eos_token_id))
        ends.append([*(int(place) - 1 for place in np.flatnonzero(row == separator)), last - 1])
    return ends


def patch_shares(groups: Groups, rows: Array, patches: int) -> Tensor:
    """Return which share of each face box is on each patch of the squared picture: (B, P, patches²) float32."""
    height, width = groups.photos.shape[1:3]
    side = max(height, width)
    shift = np.array([side - width, side - height] * 2, np.float32) / 2
    boxes = (np.asarray(groups.boxes[rows]) + shift) / side * patches
    edges = np.arange(patches, dtype=np.float32)
    along = [
        np.clip(np.minimum(boxes[..., axis + 2, None], edges + 1) - np.maximum(boxes[..., axis, None], edges), 0, 1)
        for axis in (0, 1)
    ]
    shares = (along[1][..., :, None] * along[0][..., None, :]).reshape(*boxes.shape[:2], -1)
    return torch.from_numpy(shares / np.maximum(shares.sum(-1, keepdims=True), 1e-6))
