"""Define the expectations on processed rows, checked before training."""

from __future__ import annotations

from typing import Any

from model.face.face_prompts import EXPRESSIONS, POSES
from pipelines.core.row_schemas import OK, REASONS, REJECTED, SPLITS
from pipelines.core.sections.data import ValidateProcessed
from pipelines.data.validation.check import WARN, Check, aggregate, between, one_of, present, rows_between

_NORM_TOLERANCE = 1e-3


def processed_checks(
    params: ValidateProcessed, dataset_rows: int | None = None, doubtful: float | None = None
) -> list[Check]:
    """Return the expectations on a frame of `processed_frame` with the column `other_names`.

    `other_names`: 1 where the person seems to be in another split under another name. `dataset_rows`: rows expected
    (None: at least 1). `doubtful`: a face with a lower score of the detector is one (None: not known).
    """

    def at_least(name: str, expectation: str, column: str, parameter: str) -> Check:
        bound = getattr(params, parameter)
        return aggregate(name, expectation, column, bound, parameter=f"validate_processed.{parameter}")

    count, angle = "ExpectColumnUniqueValueCountToBeBetween", params.max_angle
    of_angle: dict[str, Any] = {"allowed": 0.01, "parameter": "validate_processed.max_angle"}
    of_text: dict[str, Any] = {
        "allowed": params.max_without_prompt_share,
        "parameter": "validate_processed.max_without_prompt_share",
        "severity": WARN,
    }
    of_motion: dict[str, Any] = {
        "allowed": params.max_open_share,
        "parameter": "validate_processed.max_open_share",
        "severity": WARN,
    }
    return [
        rows_between("rows", minimum=dataset_rows or 1, maximum=dataset_rows),
        present("without_image_id", "image_id"),
        between("repeated_rows", "repeats", 1, 1),
        present("without_status", "status"),
        one_of("unknown_status", "status", (OK, REJECTED)),
        one_of("unknown_reason", "reason", tuple(REASONS)),
        between("reason_that_does_not_fit", "reason_fits", 1, 1),
        at_least("accepted_share", "ExpectColumnMeanToBeBetween", "accepted", "min_ok_share"),
        one_of("unknown_split", "split", SPLITS),
        between("people_in_several_splits", "splits_of_identity", 1, 1),
        between("one_person_under_two_names", "other_names", 0, 0, parameter="validate_processed.similarity"),
        at_least("identities", count, "accepted_identity", "min_identities"),
        at_least("test_identities", count, "test_identity", "min_test_identities"),
        between("embedding_not_unit", "embedding_norm", 1 - _NORM_TOLERANCE, 1 + _NORM_TOLERANCE),
        between("points_not_finite", "points_finite", 1, 1),
        between("box_outside_picture", "bbox_inside", 1, 1),
        one_of("unknown_expression", "expression", EXPRESSIONS),
        one_of("unknown_pose", "pose", POSES),
        # The templates of train_imr are means of photos whose motion is known.
        aggregate("photos_of_known_motion", "ExpectColumnMaxToBeBetween", "names_both", 1),
        *(between(f"open_{word}_share", f"names_{word}", 1, 1, **of_motion) for word in ("expression", "pose")),
        *(between(f"{name}_out_of_range", name, -angle, angle, **of_angle) for name in ("yaw", "pitch", "roll")),
        *([] if doubtful is None else [between("doubtful_faces", "det_score", doubtful, None, severity=WARN)]),
        *(between(f"without_{text}_share", text, 1, 1, **of_text) for text in ("prompt", "face_prompt")),
    ]
