"""The pictures that each variant draws, from the same noise.

The model draws every cell; a method without an IMR reads the face prompt as a part of the text. Without the IMR, one
picture serves all cells of a person, prompt and seed. Other variants and the shipped adapter draw some motions (pairs
of expression and pose) of every person, each motion about equally often. All of them draw every picture of several
people, `true_tokens` those for which everybody has a true photo. Differences are taken over the cells that both
variants have. Equal pictures are drawn once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from model.face.face_prompts import EXPRESSIONS, POSES
from model.face.people_prompts import one_by_one, people_of, with_face_prompts
from model.network.methods import DYNAMICID, Method
from pipelines.evaluation.evaluation_set import MOTIONS, EvaluationSet
from pipelines.evaluation.variants import (
    MODEL,
    PAPER_VARIANTS,
    SHIPPED,
    TEXT_ONLY,
    TRUE_TOKENS,
    WITHOUT_GATE,
    WITHOUT_IMR,
)

DRAWN: tuple[str, ...] = (MODEL, TEXT_ONLY, WITHOUT_GATE, WITHOUT_IMR, TRUE_TOKENS)


def variants_of(method: Method, wanted: Collection[str] = DRAWN) -> tuple[str, ...]:
    """Return those of the `wanted` variants that an adapter of `method` can draw: a part that it lacks has none."""
    lacking = {WITHOUT_GATE: not method.gate, WITHOUT_IMR: not method.motion, TRUE_TOKENS: not method.motion}
    return tuple(variant for variant in DRAWN if variant in wanted and not lacking.get(variant))


@dataclass(frozen=True)
class PictureSpec:
    """One picture to draw.

    `tokens` (4·P, D) float32 of P `people`, None for the base model alone; `boxes` one (y0, x0, y1, x1) per person or
    None; `windows` a prompt for each person's window, None for regions of one picture; `scale` is λ; `threshold` is τ,
    None for the adapter's; `guidance` None for the parameters' value.
    """

    prompt: str
    noise: int
    tokens: np.ndarray | None = None
    boxes: tuple[tuple[float, float, float, float], ...] | None = None
    gate: bool = True
    scale: float = 1.0
    threshold: float | None = None
    guidance: float | None = None
    people: int = 1
    windows: tuple[str, ...] | None = None

    @property
    def key(self) -> str:
        """A sha256 (hex) that is equal for equal pictures."""
        digest = hashlib.sha256(repr((self.prompt, self.noise, self.windows, self.settings)).encode())
        digest.update(b"" if self.tokens is None else self.tokens.tobytes())
        return digest.hexdigest()

    @property
    def settings(self) -> tuple[object, ...]:
        """A value that is equal for pictures that can be drawn in one batch."""
        width = 0 if self.tokens is None else len(self.tokens)
        windows = self.windows is not None
        return (width, self.boxes, self.gate, self.scale, self.threshold, self.guidance, self.people, windows)


@dataclass(frozen=True)
class TokenTable:
    """Identity tokens (4, D) float32 by an adapter of `method`.

    `own`: of each person's reference; `asked`: of the reference reconfigured by the IMR, by (person, expression,
    pose); `true`: of each cell's true photo; `multi`: of the true photos of several people, by image id. `layout`: how
    pictures of several people are drawn (evaluate.layout).
    """

    own: Mapping[int, np.ndarray]
    asked: Mapping[tuple[int, str, str], np.ndarray]
    true: Mapping[int, np.ndarray]
    multi: Mapping[str, np.ndarray]
    method: Method = DYNAMICID
    layout: str = "regions"


@dataclass(frozen=True)
class Plan:
    """Distinct `specs`, and for each variant the index of the spec of every cell and picture of several people."""

    specs: tuple[PictureSpec, ...]
    cells: Mapping[str, Mapping[int, int]]
    multi: Mapping[str, Mapping[int, int]]


def shared_cells(questions: EvaluationSet, motions: int) -> list[int]:
    """Return the numbers of the graded cells that variants share: about `motions` of eleven per person and seed."""
    if motions >= len(MOTIONS):
        return [number for number, cell in enumerate(questions.cells) if cell.graded]
    expressions = max(1, round(motions * 7 / 12))
    poses = max(1, motions - expressions)
    chosen = []
    for number, cell in enumerate(questions.cells):
        first = cell.person * expressions, cell.person * poses
        turn = (EXPRESSIONS.index(cell.expression) - first[0]) % 7, (POSES.index(cell.pose) - first[1]) % 5
        wanted = (cell.asks_expression and turn[0] < expressions) or (cell.asks_pose and turn[1] < poses)
        if cell.graded and wanted:
            chosen.append(number)
    return chosen


def cells_of(questions: EvaluationSet, variant: str, motions: int) -> list[int]:
    """Return the numbers of the cells that `variant` draws."""
    if variant == MODEL:
        return list(range(len(questions.cells)))
    if variant == WITHOUT_IMR:
        # One picture serves all cells of a person, prompt and seed.
        return [number for number, cell in enumerate(questions.cells) if cell.graded]
    chosen = shared_cells(questions, motions)
    if variant == TRUE_TOKENS:
        # Where no shared cell has a photo, those that have one: the evaluation set has at least two.
        with_photo = [number for number, cell in enumerate(questions.cells) if cell.graded and cell.true_photo]
        return sorted(set(chosen) & set(with_photo)) or with_photo
    return chosen


def spec_of(questions: EvaluationSet, tokens: TokenTable, variant: str, number: int) -> PictureSpec:
    """Return what `variant` draws for cell `number`."""
    cell = questions.cells[number]
    spec = PictureSpec(questions.prompt_of(cell).text, cell.noise)
    if variant == TEXT_ONLY or not tokens.method.motion:
        spec = replace(spec, prompt=f"{spec.prompt}, {cell.face_prompt}")
    if variant == TEXT_ONLY:
        return spec
    if variant == WITHOUT_IMR:
        return replace(spec, tokens=tokens.own[cell.person])
    if variant == TRUE_TOKENS:
        return replace(spec, tokens=tokens.true[number])
    asked = tokens.asked[cell.person, cell.expression, cell.pose]
    return replace(spec, tokens=asked, gate=tokens.method.gate and variant != WITHOUT_GATE)


def multi_cells_of(questions: EvaluationSet, variant: str) -> list[int]:
    """Return the numbers of the pictures of several people that `variant` draws."""
    return [
        number for number, cell in enumerate(questions.multi_cells) if variant != TRUE_TOKENS or cell.photos is not None
    ]


def multi_spec_of(questions: EvaluationSet, tokens: TokenTable, variant: str, number: int) -> PictureSpec:
    """Return what `variant` draws for picture `number` of several people."""
    cell = questions.multi_cells[number]
    spec = PictureSpec(questions.multi_prompt_of(cell).text, cell.noise, people=len(cell.people))
    in_windows = tokens.layout == "windows"
    if in_windows:
        spec = replace(spec, windows=one_by_one(spec.prompt, spec.people))
    if variant == TEXT_ONLY or not tokens.method.motion:
        # A prompt that does not name people by place states what somebody does, not who.
        named = with_face_prompts(spec.prompt, cell.face_prompts) if people_of(spec.prompt) else None
        spec = replace(spec, prompt=named or ", ".join((spec.prompt, *cell.face_prompts)))
        if spec.windows is not None:
            spec = replace(spec, windows=tuple(map(", ".join, zip(spec.windows, cell.face_prompts, strict=True))))
    if variant == TEXT_ONLY:
        return spec
    if variant == WITHOUT_IMR:
        mine = [tokens.own[person] for person in cell.people]
    elif variant == TRUE_TOKENS:
        mine = [tokens.multi[photo] for photo in cell.photos or ()]
    else:
        mine = [tokens.asked[key] for key in zip(cell.people, cell.expressions, cell.poses, strict=True)]
    gate = tokens.method.gate and variant != WITHOUT_GATE
    return replace(spec, tokens=np.concatenate(mine), boxes=None if in_windows else cell.boxes, gate=gate)


def plan_drawing(questions: EvaluationSet, tokens: TokenTable, motions: int, variants: Collection[str] = DRAWN) -> Plan:
    """Plan the pictures of the model and of those of DRAWN that are in `variants`; `motions` as in `shared_cells`."""
    chosen = [variant for variant in DRAWN if variant == MODEL or variant in variants]
    return _plan(questions, tokens, {variant: cells_of(questions, variant, motions) for variant in chosen})


def plan_shipped(questions: EvaluationSet, tokens: TokenTable, motions: int) -> Plan:
    """Plan the pictures of the shipped adapter from its own `tokens`: those of the variants."""
    return _plan(questions, tokens, {SHIPPED: shared_cells(questions, motions)})


def plan_paper(questions: EvaluationSet, tokens: TokenTable) -> Plan:
    """Plan the pictures of PAPER_VARIANTS, which all draw every cell."""
    return _plan(questions, tokens, {variant: range(len(questions.cells)) for variant in PAPER_VARIANTS})


def _plan(questions: EvaluationSet, tokens: TokenTable, cells: Mapping[str, Sequence[int]]) -> Plan:
    """Plan the `cells` and the pictures of several people of every variant; plan equal pictures once."""
    specs: dict[str, PictureSpec] = {}
    places: dict[str, int] = {}

    def number(spec: PictureSpec) -> int:
        key = spec.key
        specs.setdefault(key, spec)
        return places.setdefault(key, len(places))

    answers = {
        variant: {cell: number(spec_of(questions, tokens, variant, cell)) for cell in asked}
        for variant, asked in cells.items()
    }
    multi = {
        variant: {
            cell: number(multi_spec_of(questions, tokens, variant, cell)) for cell in multi_cells_of(questions, variant)
        }
        for variant in cells
    }
    return Plan(tuple(specs.values()), answers, multi)


def join_plans(first: Plan, second: Plan) -> Plan:
    """Return both plans as one, with the specs of `second` after those of `first`."""
    shift = len(first.specs)

    def shifted(table: Mapping[str, Mapping[int, int]]) -> dict[str, Mapping[int, int]]:
        return {variant: {cell: shift + place for cell, place in row.items()} for variant, row in table.items()}

    return Plan(
        (*first.specs, *second.specs),
        {**first.cells, **shifted(second.cells)},
        {**first.multi, **shifted(second.multi)},
    )
