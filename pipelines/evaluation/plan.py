"""Which pictures each variant draws, from the same noise.

The model draws every cell. The others, and the shipped adapter where there is one, draw some looks of every person,
chosen so that over the people every look occurs about equally often; differences are taken over the cells that both
sides have. Pictures that would be the same are drawn once: without the IMR a person's looks differ in nothing but what
they are judged against.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from model.face.face_prompts import EXPRESSIONS, POSES
from pipelines.evaluation.evaluation_set import LOOKS, SIDE_BY_SIDE, EvaluationSet
from pipelines.evaluation.variants import MODEL, SHIPPED, TEXT_ONLY, TRUE_TOKENS, WITHOUT_GATE, WITHOUT_IMR

DRAWN: tuple[str, ...] = (MODEL, TEXT_ONLY, WITHOUT_GATE, WITHOUT_IMR, TRUE_TOKENS)
DRAWN_PAIRS: tuple[str, ...] = (MODEL, WITHOUT_GATE)


@dataclass(frozen=True)
class Order:
    """One picture to draw.

    `tokens` (4·P, D) float32 or None for the base model alone; `boxes` one (y0, x0, y1, x1) per person or None;
    `scale` is λ, `threshold` τ (None: the adapter's), `guidance` None is the parameters'.
    """

    prompt: str
    noise: int
    tokens: np.ndarray | None = None
    boxes: tuple[tuple[float, float, float, float], ...] | None = None
    gate: bool = True
    scale: float = 1.0
    threshold: float | None = None
    guidance: float | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for orders that give the same picture."""
        tokens = None if self.tokens is None else self.tokens.tobytes()
        return (self.prompt, self.noise, tokens, *self.settings)

    @property
    def settings(self) -> tuple[object, ...]:
        """Equal for orders that can be drawn in one batch."""
        width = 0 if self.tokens is None else len(self.tokens)
        return (width, self.boxes, self.gate, self.scale, self.threshold, self.guidance)


@dataclass(frozen=True)
class TokenTable:
    """Identity tokens (4, D) float32: `own` of each person's reference, `asked` of the reference as the IMR
    reconfigures it to (person, expression, pose), `true` of the real photo that shows what a cell asks.
    """

    own: Mapping[int, np.ndarray]
    asked: Mapping[tuple[int, str, str], np.ndarray]
    true: Mapping[int, np.ndarray]


@dataclass(frozen=True)
class Plan:
    """What to draw: distinct `orders`, and for each variant which order answers which cell, or which pair."""

    orders: tuple[Order, ...]
    cells: Mapping[str, Mapping[int, int]]
    pairs: Mapping[str, Mapping[int, int]]


def shared_cells(questions: EvaluationSet, looks: int) -> list[int]:
    """Return the numbers of the graded cells that every variant draws: about `looks` of eleven per person."""
    if looks >= len(LOOKS):
        return [number for number, cell in enumerate(questions.cells) if cell.graded]
    expressions = max(1, round(looks * 7 / 12))
    poses = max(1, looks - expressions)
    chosen = []
    for number, cell in enumerate(questions.cells):
        first = cell.person * expressions, cell.person * poses
        turn = (EXPRESSIONS.index(cell.expression) - first[0]) % 7, (POSES.index(cell.pose) - first[1]) % 5
        wanted = (cell.asks_expression and turn[0] < expressions) or (cell.asks_pose and turn[1] < poses)
        if cell.graded and wanted:
            chosen.append(number)
    return chosen


def cells_of(questions: EvaluationSet, variant: str, looks: int) -> list[int]:
    """Return the numbers of the cells that `variant` draws."""
    if variant == MODEL:
        return list(range(len(questions.cells)))
    if variant == WITHOUT_IMR:
        # Whatever is asked, the picture is the same: all looks cost no more than one.
        return [number for number, cell in enumerate(questions.cells) if cell.graded]
    chosen = shared_cells(questions, looks)
    if variant == TRUE_TOKENS:
        return [number for number in chosen if questions.cells[number].true_photo]
    return chosen


def order_of(questions: EvaluationSet, tokens: TokenTable, variant: str, number: int) -> Order:
    """Return the order of `variant` for cell `number`."""
    cell = questions.cells[number]
    order = Order(questions.prompt_of(cell).text, cell.noise)
    if variant == TEXT_ONLY:
        return replace(order, prompt=f"{order.prompt}, {cell.face_prompt}")
    if variant == WITHOUT_IMR:
        return replace(order, tokens=tokens.own[cell.person])
    if variant == TRUE_TOKENS:
        return replace(order, tokens=tokens.true[number])
    asked = tokens.asked[cell.person, cell.expression, cell.pose]
    return replace(order, tokens=asked, gate=variant != WITHOUT_GATE)


def pair_order_of(questions: EvaluationSet, tokens: TokenTable, variant: str, number: int) -> Order:
    """Return the order of `variant` for pair `number`."""
    pair = questions.pairs[number]
    both = [
        tokens.asked[person, expression, "front"]
        for person, expression in zip(pair.people, pair.expressions, strict=True)
    ]
    return Order(
        prompt=questions.pair_prompt_of(pair).text,
        noise=pair.noise,
        tokens=np.concatenate(both),
        boxes=SIDE_BY_SIDE,
        gate=variant != WITHOUT_GATE,
    )


def plan_drawing(questions: EvaluationSet, tokens: TokenTable, looks: int) -> Plan:
    """Lay out everything that is drawn; `looks` per person and seed for the variants beside the model."""
    return _plan(questions, tokens, {variant: cells_of(questions, variant, looks) for variant in DRAWN}, DRAWN_PAIRS)


def plan_shipped(questions: EvaluationSet, tokens: TokenTable, looks: int) -> Plan:
    """Lay out what the shipped adapter draws, with `tokens` of its own: the cells of the variants, and every pair."""
    return _plan(questions, tokens, {SHIPPED: shared_cells(questions, looks)}, (SHIPPED,))


def _plan(
    questions: EvaluationSet, tokens: TokenTable, cells: Mapping[str, Sequence[int]], paired: Sequence[str]
) -> Plan:
    """Lay out the `cells` of every variant, and every pair of those in `paired`; each distinct order once."""
    orders: dict[tuple[object, ...], Order] = {}
    places: dict[tuple[object, ...], int] = {}

    def number(order: Order) -> int:
        orders.setdefault(order.key, order)
        return places.setdefault(order.key, len(places))

    answers = {
        variant: {cell: number(order_of(questions, tokens, variant, cell)) for cell in asked}
        for variant, asked in cells.items()
    }
    pairs = {
        variant: {pair: number(pair_order_of(questions, tokens, variant, pair)) for pair in range(len(questions.pairs))}
        for variant in paired
    }
    return Plan(tuple(orders.values()), answers, pairs)


def join_plans(first: Plan, second: Plan) -> Plan:
    """Return both plans as one: the pictures of `second` are numbered after those of `first`."""
    shift = len(first.orders)

    def shifted(table: Mapping[str, Mapping[int, int]]) -> dict[str, Mapping[int, int]]:
        return {variant: {cell: shift + order for cell, order in found.items()} for variant, found in table.items()}

    return Plan(
        (*first.orders, *second.orders),
        {**first.cells, **shifted(second.cells)},
        {**first.pairs, **shifted(second.pairs)},
    )
