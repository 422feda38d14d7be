"""Define the facial movements of the seven expressions, and scale them by intensity."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Motion:
    """Movements of a face; the default values are the neutral face.

    Lengths in half head heights, positive downwards; `upper_lid` and `lower_lid` scale the opening of the eye.
    `mouth_round` is the shape of the opening: 0 pointed at the corners, 1 an ellipse, 2 nearly a rectangle.
    `teeth_upper` and `teeth_lower` are the shares of the opening that the teeth cover.
    """

    brow_inner: float = 0.0
    brow_outer: float = 0.0
    brow_together: float = 0.0
    upper_lid: float = 1.0
    lower_lid: float = 1.0
    gaze_down: float = 0.0
    cheek_raise: float = 0.0
    nose_wrinkle: float = 0.0
    corner_out: float = 0.0
    corner_down: float = 0.0
    mouth_open: float = 0.0
    mouth_round: float = 0.0
    upper_share: float = 0.4
    sneer: float = 0.0
    pout: float = 0.0
    jaw_drop: float = 0.0
    teeth_upper: float = 0.0
    teeth_lower: float = 0.0
    tongue: float = 0.0
    tear: float = 0.0
    frown: float = 0.0
    forehead_lines: float = 0.0


_LIDS = ("upper_lid", "lower_lid")
_SHAPES = ("mouth_round", "upper_share", "teeth_upper", "teeth_lower")

_FULL: dict[str, Motion] = {
    "neutral": Motion(),
    "happy": Motion(
        brow_inner=-0.03, brow_outer=-0.03, upper_lid=0.72, lower_lid=0.35, cheek_raise=1.0, corner_out=0.10,
        corner_down=-0.17, mouth_open=0.18, mouth_round=0.25, upper_share=0.1, jaw_drop=0.03, teeth_upper=0.62,
    ),
    "sad": Motion(
        brow_inner=-0.15, brow_outer=0.06, brow_together=0.03, upper_lid=0.58, lower_lid=0.95, gaze_down=0.5,
        corner_out=-0.03, corner_down=0.15, pout=0.6, tear=1.0, forehead_lines=0.3,
    ),
    "angry": Motion(
        brow_inner=0.13, brow_outer=-0.08, brow_together=0.06, upper_lid=0.72, lower_lid=0.75, nose_wrinkle=0.35,
        corner_out=0.0, corner_down=0.05, mouth_open=0.17, mouth_round=2.0, upper_share=0.5, teeth_upper=0.52,
        teeth_lower=0.50, frown=1.0, jaw_drop=0.02,
    ),
    "surprised": Motion(
        brow_inner=-0.15, brow_outer=-0.15, upper_lid=1.4, lower_lid=1.2, corner_out=-0.13, mouth_open=0.36,
        mouth_round=1.0, upper_share=0.3, jaw_drop=0.17, forehead_lines=1.0,
    ),
    "fearful": Motion(
        brow_inner=-0.17, brow_outer=0.02, brow_together=0.06, upper_lid=1.35, lower_lid=1.0, corner_out=0.10,
        corner_down=0.09, mouth_open=0.15, mouth_round=1.5, upper_share=0.45, teeth_lower=0.34, jaw_drop=0.07,
        forehead_lines=0.6,
    ),
    "disgusted": Motion(
        brow_inner=0.09, brow_outer=0.03, brow_together=0.03, upper_lid=0.48, lower_lid=0.40, cheek_raise=0.5,
        nose_wrinkle=1.0, corner_out=-0.02, corner_down=0.08, mouth_open=0.12, mouth_round=0.6, upper_share=0.4,
        sneer=0.07, jaw_drop=0.06, tongue=1.0, frown=0.4,
    ),
}  # fmt: skip


def motion(expression: str, intensity: float) -> Motion:
    """Return the movements of `expression` (one of model.face.face_prompts.EXPRESSIONS) at `intensity` (1 = full)."""
    full = _FULL[expression]
    values = {}
    for field in fields(Motion):
        value = getattr(full, field.name)
        if field.name in _LIDS:
            value = 1.0 + (value - 1.0) * intensity
        elif field.name not in _SHAPES:
            value *= intensity
        values[field.name] = value
    return Motion(**values)
