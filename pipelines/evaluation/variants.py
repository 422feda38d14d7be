"""Names and meanings of the variants and metrics of an evaluation."""

from __future__ import annotations

MODEL = "model"
TEXT_ONLY = "text_only"
WITHOUT_GATE = "without_gate"
WITHOUT_IMR = "without_imr"
TRUE_TOKENS = "true_tokens"
SHIPPED = "shipped"
CEILING = "ceiling"
FLOOR = "floor"

# Short, for tables.
HEADINGS: dict[str, str] = {
    MODEL: "model",
    SHIPPED: "shipped adapter",
    TEXT_ONLY: "text only",
    WITHOUT_GATE: "without gate",
    WITHOUT_IMR: "without IMR",
    TRUE_TOKENS: "true tokens",
    CEILING: "ceiling",
    FLOOR: "floor",
}
# In full, for pages.
TITLES: dict[str, str] = {
    **HEADINGS,
    TEXT_ONLY: "base model, text only",
    CEILING: "ceiling: real, same person",
    FLOOR: "floor: real, others",
}
# In every summary; the shipped adapter is evaluated only where the parameters name it.
SUMMARISED: tuple[str, ...] = tuple(variant for variant in TITLES if variant != SHIPPED)

# In the order of the report; metrics of several people come last.
MEANINGS: dict[str, str] = {
    "id_similarity": "cosine to other real photos of the person, by a judge the model does not use; higher is better",
    "id_similarity_ref": "cosine to the reference itself",
    "copy_paste": "0: as near to another photo as to the reference; 1: a copy of the reference; lower is better",
    "own_over_other": "share of pictures whose face is nearest to the right person; higher is better",
    "expression_accuracy": "share of pictures with the asked one of seven expressions; chance is 0.14",
    "pose_accuracy": "share of pictures with the asked one of five poses; chance is 0.20",
    "yaw_mae": "mean absolute error of yaw in degrees; lower is better",
    "clip_t": "cosine of picture and text prompt; higher is better",
    "prompt_accuracy": "share of shirt and background colours that are as asked, of eleven choices; higher is better",
    "face_rate": "share of pictures in which a face is found; higher is better",
    "kid": "kernel distance to real photos; lower is better",
    "diversity": "mean distance between pictures that differ only in the noise",
    "gate_in_face": "share of the gate inside the face's box; higher is better",
    "multi_id_similarity": "two people: mean similarity to each person's photos; higher is better",
    "multi_id_min": "two people: the lower of the two similarities; higher is better",
    "count_accuracy": "two people: share of pictures with exactly two faces; higher is better",
    "leakage": "two people: similarity of each face to the other person; lower is better",
}
METRICS: tuple[str, ...] = tuple(MEANINGS)
PAIR_METRICS: tuple[str, ...] = METRICS[-4:]

# The judges, by what they read.
DETECTOR, RECOGNISER, EXPRESSION, POSE, TEXT = "detector", "recogniser", "expression", "pose", "text"
# The judges on which each metric depends: faces are found first.
JUDGED_BY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(METRICS, (DETECTOR, RECOGNISER)),
    **dict.fromkeys(("face_rate", "gate_in_face", "count_accuracy"), (DETECTOR,)),
    "expression_accuracy": (DETECTOR, EXPRESSION),
    **dict.fromkeys(("pose_accuracy", "yaw_mae"), (DETECTOR, POSE)),
    **dict.fromkeys(("clip_t", "prompt_accuracy", "kid", "diversity"), (TEXT,)),
}
