"""The gates of the foundation: bounds on figures measured on held-out people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Figures = Mapping[str, Mapping[str, float | None]]
"""Figures by part and name; None: could not be measured."""


@dataclass(frozen=True)
class Gate:
    """Each of `figures` of `part` must be at least `bound` or, with `at_most`, at most `bound`."""

    part: str
    what: str
    figures: tuple[str, ...]
    bound: float
    at_most: bool = False


GATES: tuple[Gate, ...] = (
    Gate("people", "expression read by the judge", ("expression",), 0.90),
    Gate("people", "pose read by the judge", ("pose",), 0.98),
    Gate("autoencoder", "expression rate kept by reconstructions", ("expression_kept",), 0.90),
    Gate("autoencoder", "identity cosine, original and reconstruction", ("identity_cosine",), 0.90),
    Gate("autoencoder", "expression on heads of a third of the height", ("small_expression",), 0.90),
    Gate("clip", "zero-shot expression", ("zero_shot_expression",), 0.80),
    Gate("clip", "zero-shot pose", ("zero_shot_pose",), 0.80),
    Gate("clip", "pooled text cosine of happy and sad", ("happy_sad_text_cosine",), 0.90, at_most=True),
    Gate("recogniser", "AUC, 128 and 64 px", ("auc_128", "auc_64"), 0.998),
    Gate("judge", "AUC, 128 and 64 px", ("auc_128", "auc_64"), 0.998),
    Gate("landmarks", "mean error / √(box area), 128 and 64 px", ("nme_box_128", "nme_box_64"), 0.03, at_most=True),
    Gate(
        "detector",
        "found by FaceAnalysis, 64 and 128 px, two detection sizes",
        ("found_128_64", "found_128_128", "found_default_64", "found_default_128"),
        0.99,
    ),
    *(
        Gate(part, what, (figure,), bound)
        for part in ("unet", "transformer")
        for what, figure, bound in (
            ("a face is found", "face_found", 0.97),
            ("asked expression", "expression", 0.70),
            ("asked pose", "pose", 0.85),
            ("asked colour of clothes", "shirt", 0.80),
            ("asked colour of background", "background", 0.80),
        )
    ),
    Gate("several_people", "exactly the asked number of faces, 1 to 4", tuple(f"count_{n}" for n in range(1, 5)), 0.95),
    Gate("several_people", "asked expression of each of two", ("expression_2",), 0.80),
    Gate("several_people", "asked expression of each of three and four", ("expression_3", "expression_4"), 0.70),
    Gate("several_people", "asked pose of each of two", ("pose_2",), 0.80),
    Gate("several_people", "asked pose of each of three and four", ("pose_3", "pose_4"), 0.70),
    Gate("identity_tokens", "linear probe reads expression", ("probe_expression",), 0.80),
    Gate("identity_tokens", "linear probe reads pose", ("probe_pose",), 0.90),
    Gate("identity_tokens", "expression by true tokens / by text", ("expression_kept",), 0.80),
    Gate(
        "imr",
        "error / copying the source, error / the person's mean",
        ("of_copying_source", "of_person_mean"),
        1.0,
        at_most=True,
    ),
)


@dataclass(frozen=True)
class GateResult:
    """The result of a gate: `value` is its worst figure, None if one of them could not be measured."""

    part: str
    what: str
    value: float | None
    bound: float
    passed: bool
    at_most: bool


def check_gates(figures: Figures) -> list[GateResult]:
    """Return the result of every gate whose figures are all in `figures`; a figure of None fails its gate."""
    results = []
    for gate in GATES:
        values = [figures[gate.part][name] for name in gate.figures if name in figures.get(gate.part, {})]
        if len(values) < len(gate.figures):
            continue
        known = [value for value in values if value is not None]
        worst = None if len(known) < len(values) else max(known) if gate.at_most else min(known)
        passed = worst is not None and (worst <= gate.bound if gate.at_most else worst >= gate.bound)
        results.append(GateResult(gate.part, gate.what, worst, gate.bound, passed, gate.at_most))
    return results
