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

    def at_least(name: str, expectation: str, column: str, parameter: str, protects: str) -> Check:
        bound = getattr(params, parameter)
        return aggregate(name, expectation, column, bound, protects, parameter=f"validate_processed.{parameter}")

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
    accounted = "Every photo is accounted for by one row: none is lost, and none counts twice."
    known = "Readers of the rows know every value; another one says that they are from another release."
    looked_up = "Open labels teach no motion: too many of them leave the reconfigurator too few photos."
    angles = "Angles beyond what a head can turn say that landmarks or pose were measured wrongly."
    texts = "Training and evaluation condition on a text; without one a photo is trained on the empty text."
    return [
        rows_between("rows", accounted, minimum=dataset_rows or 1, maximum=dataset_rows),
        present("without_image_id", "image_id", "A row is found again by the hash of its photo, also by `forget`."),
        between("repeated_rows", "repeats", 1, 1, accounted),
        present("without_status", "status", known),
        one_of("unknown_status", "status", (OK, REJECTED), known),
        one_of("unknown_reason", "reason", tuple(REASONS), known),
        between(
            "reason_that_does_not_fit",
            "reason_fits",
            1,
            1,
            "Every rejected photo says why, and no accepted one has a reason to be rejected.",
        ),
        at_least(
            "accepted_share",
            "ExpectColumnMeanToBeBetween",
            "accepted",
            "min_ok_share",
            "Many rejected photos say that the networks or the bounds of `preprocess` do not fit the data.",
        ),
        one_of("unknown_split", "split", SPLITS, "Every accepted photo is for training or is held out."),
        between(
            "people_in_several_splits",
            "splits_of_identity",
            1,
            1,
            "No held-out person was seen in training, or the evaluation would measure memory.",
        ),
        between(
            "one_person_under_two_names",
            "other_names",
            0,
            0,
            "No held-out person was seen in training under another name.",
            parameter="validate_processed.similarity",
        ),
        at_least(
            "identities", count, "accepted_identity", "min_identities", "There are enough people to learn what differs."
        ),
        at_least(
            "test_identities",
            count,
            "test_identity",
            "min_test_identities",
            "There are enough held-out people for the figures of the evaluation.",
        ),
        between(
            "embedding_not_unit",
            "embedding_norm",
            1 - _NORM_TOLERANCE,
            1 + _NORM_TOLERANCE,
            "Similarities of people are cosines, and the adapter was built for vectors of length 1.",
        ),
        between("points_not_finite", "points_finite", 1, 1, "Crops and landmark pictures can be made of every photo."),
        between("box_outside_picture", "bbox_inside", 1, 1, "The region of the face is part of the stored picture."),
        one_of("unknown_expression", "expression", EXPRESSIONS, known),
        one_of("unknown_pose", "pose", POSES, known),
        aggregate(
            "photos_of_known_motion",
            "ExpectColumnMaxToBeBetween",
            "names_both",
            1,
            "The templates of train_imr are means of photos whose motion is known.",
        ),
        *(
            between(f"open_{word}_share", f"names_{word}", 1, 1, looked_up, **of_motion)
            for word in ("expression", "pose")
        ),
        *(
            between(f"{name}_out_of_range", name, -angle, angle, angles, **of_angle)
            for name in ("yaw", "pitch", "roll")
        ),
        *(
            []
            if doubtful is None
            else [
                between(
                    "doubtful_faces",
                    "det_score",
                    doubtful,
                    None,
                    "A statue, a mask or a picture on a wall is no person to train on.",
                    severity=WARN,
                )
            ]
        ),
        *(between(f"without_{text}_share", text, 1, 1, texts, **of_text) for text in ("prompt", "face_prompt")),
    ]
