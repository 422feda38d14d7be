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
    WITHOUT_GATE: "without attention gate",
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
# What the pictures of each variant are. All start from the same noise.
VARIANT_MEANINGS: dict[str, str] = {
    MODEL: "drawn by the adapter that is evaluated",
    SHIPPED: "drawn by the adapter that `evaluate.shipped_adapter` names, on a part of the questions",
    TEXT_ONLY: "drawn by the base model alone, from the text",
    WITHOUT_GATE: "drawn without the attention gate, which limits the identity to the face",
    WITHOUT_IMR: "drawn without the IMR: each face keeps the expression and the head pose of its reference",
    TRUE_TOKENS: "drawn with tokens of a real photo with the asked expression and pose, as a perfect IMR gives them",
    CEILING: "no drawings, but other photos of the same person, with the asked expression and pose",
    FLOOR: "no drawings, but photos of other people, with the asked expression and pose",
}
# In every summary; the shipped adapter is evaluated only where the parameters name it.
SUMMARISED: tuple[str, ...] = tuple(variant for variant in TITLES if variant != SHIPPED)

# In the order of the report.
SINGLE_MEANINGS: dict[str, str] = {
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
    "gate_in_face": "share of the attention gate inside the face's box; higher is better",
}
# Of two people; those of three and four have an ending.
MULTI_MEANINGS: dict[str, str] = {
    "multi_id_similarity": "mean similarity of each face to its own person's photos; higher is better",
    "multi_id_min": "the lowest of the people's similarities; higher is better",
    "multi_expression_accuracy": "share of people with the expression that they were asked for; chance is 0.14",
    "multi_pose_accuracy": "share of people with the pose that they were asked for; chance is 0.20",
    "binding": "asked expressions and poses: share on the right person minus share on another; chance is 0",
    "count_accuracy": "share of pictures with exactly as many faces as people; higher is better",
    "leakage": "similarity of each face to the other people, 1 for a missing face; lower is better",
}
_COUNTS: dict[int, str] = {2: "two", 3: "three", 4: "four"}


def multi_metric(name: str, people: int) -> str:
    """Return the name of a metric of MULTI_MEANINGS for pictures of so many people."""
    return name if people == 2 else f"{name}_{people}"


# The number of people in the pictures to which a metric belongs; metrics of one person are not in it.
PEOPLE_OF: dict[str, int] = {multi_metric(name, people): people for people in _COUNTS for name in MULTI_MEANINGS}
# Metrics of several people come last.
MEANINGS: dict[str, str] = SINGLE_MEANINGS | {
    multi_metric(name, people): f"{word} people: {meaning}"
    for people, word in _COUNTS.items()
    for name, meaning in MULTI_MEANINGS.items()
}
METRICS: tuple[str, ...] = tuple(MEANINGS)

# The judges, by what they read.
DETECTOR, RECOGNISER, EXPRESSION, POSE, TEXT = "detector", "recogniser", "expression", "pose", "text"
# The judges on which each metric depends: faces are found first.
JUDGED_BY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(METRICS, (DETECTOR, RECOGNISER)),
    **dict.fromkeys(("face_rate", "gate_in_face"), (DETECTOR,)),
    "expression_accuracy": (DETECTOR, EXPRESSION),
    **dict.fromkeys(("pose_accuracy", "yaw_mae"), (DETECTOR, POSE)),
    **dict.fromkeys(("clip_t", "prompt_accuracy", "kid", "diversity"), (TEXT,)),
}
# Faces of several people are assigned by identity.
_MULTI_JUDGED_BY: dict[str, tuple[str, ...]] = {
    "multi_expression_accuracy": (DETECTOR, RECOGNISER, EXPRESSION),
    "multi_pose_accuracy": (DETECTOR, RECOGNISER, POSE),
    "binding": (DETECTOR, RECOGNISER, EXPRESSION, POSE),
    "count_accuracy": (DETECTOR,),
}
JUDGED_BY |= {multi_metric(name, people): judges for people in _COUNTS for name, judges in _MULTI_JUDGED_BY.items()}

# The metrics of the paper, under its names: Hu et al., ICCV 2025 (arXiv 2503.06505), the tables of section 4.
PAPER_MEANINGS: dict[str, str] = {
    "CLIP-T": "cosine of picture and text prompt, without the face prompt; higher is better",
    "FaceSim": "cosine of the drawn face to that of the reference; higher is better",
    "Expr": "share of all pictures with the asked one of seven expressions; higher is better",
    "Pose": "share of all pictures with the asked one of five poses; higher is better",
}
PAPER_METRICS: tuple[str, ...] = tuple(PAPER_MEANINGS)
PAPER_VARIANTS: tuple[str, ...] = (MODEL, WITHOUT_GATE, WITHOUT_IMR)
JUDGED_BY |= {
    "CLIP-T": (TEXT,),
    "FaceSim": (DETECTOR, RECOGNISER),
    "Expr": (DETECTOR, EXPRESSION),
    "Pose": (DETECTOR, POSE),
}
