"""The questions of the paper, beside this project's: its metrics by its definitions (`evaluate.protocol: paper`).

Source: Hu et al., DynamicID, ICCV 2025 (arXiv 2503.06505), section 4: CLIP-T, FaceSim, Expr and Pose of the method for
one person, and of the method without SAA or without IMR. What it leaves open, and what is done here instead, is in
docs/explanation/evaluation.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from model.face.face_prompts import EXPRESSIONS, POSES, request_as_published
from pipelines.evaluation.batches import BatchRunner
from pipelines.evaluation.evaluation_set import Cell, EvaluationSet, noise_of
from pipelines.evaluation.intervals import bootstrap, mean_over_people, resample
from pipelines.evaluation.metrics.editability import correct
from pipelines.evaluation.metrics.identity import similarity
from pipelines.evaluation.metrics.text import clip_t
from pipelines.evaluation.photos import HeldOut
from pipelines.evaluation.plan import plan_paper
from pipelines.evaluation.prompts import load_prompts
from pipelines.evaluation.results import Shown, person_means, plain, withhold
from pipelines.evaluation.sampling import CellRenderer
from pipelines.evaluation.scoring import Scores, TextFeatures, asked_expression, asked_pose
from pipelines.evaluation.variants import MODEL, PAPER_METRICS, WITHOUT_GATE, WITHOUT_IMR

# The figures of the paper for one person; not comparable with those of other photos, prompts and judges.
PUBLISHED: dict[str, dict[str, float]] = {
    variant: dict(zip(PAPER_METRICS, values, strict=True))
    for variant, values in {
        MODEL: (0.239, 0.671, 0.456, 0.878),
        WITHOUT_GATE: (0.224, 0.682, 0.422, 0.862),
        WITHOUT_IMR: (0.228, 0.712, 0.161, 0.253),
    }.items()
}


@dataclass(frozen=True)
class PaperCell(Cell):
    """A picture that the paper asks for: its face prompt has the words of the published training."""

    @property
    def face_prompt(self) -> str:
        """The face prompt for expression and pose."""
        return request_as_published(self.expression, self.pose)


@dataclass(frozen=True)
class PaperResult:
    """The section `paper` of metrics.json: `metrics` by variant and metric, and what was asked."""

    questions: EvaluationSet
    pictures: int
    metrics: Shown

    def document(self) -> dict[str, Any]:
        """Return the section as JSON values."""
        prompts = [prompt.text for prompt in self.questions.prompts.single]
        asked = {"evaluation_set": self.questions.hash, "prompts": prompts, "pictures": self.pictures}
        return {**plain(self.metrics), **asked}


def paper_questions(ours: EvaluationSet, seed: int) -> EvaluationSet:
    """Return what the paper asks of the people of `ours`: for each, seven expressions times five poses.

    VariFace-10k, the paper's dataset, has a photo of each person for every one of these 35. The prompts take turns.
    Pictures with one prompt start from the same noise.
    """
    prompts = load_prompts("paper")
    cells: list[Cell] = []
    for index, person in enumerate(ours.people):
        motions = [(expression, pose) for expression in EXPRESSIONS for pose in POSES]
        for number, (expression, pose) in enumerate(motions):
            prompt = (index + number) % len(prompts.single)
            noise = noise_of(seed, person.identity, "paper", prompt)
            cells.append(PaperCell(index, expression, pose, prompt, 0, noise, graded=True, true_photo=None))
    return replace(ours, prompts=prompts, cells=tuple(cells), multi_cells=())


def run_paper(
    ours: EvaluationSet, held_out: HeldOut, renderer: CellRenderer, runner: BatchRunner, unfit: Mapping[str, str]
) -> PaperResult:
    """Draw and judge the paper's questions; metrics of the judges in `unfit` (judge → reason) have no value.

    A picture without a face counts 0 for FaceSim, and as wrong.
    """
    params, judges = renderer.params, runner.judges
    questions = paper_questions(ours, params.seed)
    plan = plan_paper(questions, renderer.tokens(questions, held_out.photos))
    judged = runner.run(renderer, plan.specs)
    texts = TextFeatures(questions, judges.text)
    known = judges.faces.known([held_out.photos[person.reference] for person in questions.people])
    weights = resample(len(questions.people), params.bootstrap, params.seed)
    cells = questions.cells
    every = np.ones(len(cells), bool)
    references = [known.embeddings[[cell.person]] for cell in cells]
    metrics: Shown = {}
    for variant, drawn in plan.cells.items():
        rows = [drawn[number] for number in range(len(cells))]
        read = judged.readings.rows(rows)
        columns = {
            "CLIP-T": clip_t(judged.features[rows], np.stack([texts.own[cell.prompt] for cell in cells])),
            "FaceSim": similarity(read.embeddings, read.found, references),
            "Expr": correct(asked_expression(cells), read.expression, read.found, every),
            "Pose": correct(asked_pose(cells), read.pose, read.found, every),
        }
        scores = Scores.of(questions, range(len(cells)), columns)
        means = {name: person_means(scores, name, len(questions.people)) for name in PAPER_METRICS}
        metrics[variant] = withhold(
            {name: bootstrap(mean_over_people(values), weights) for name, values in means.items()}, unfit
        )
    return PaperResult(questions, len(plan.specs), metrics)
