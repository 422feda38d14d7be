"""Define the expectations on the metadata of a dataset version, checked before its photos are analysed."""

from __future__ import annotations

from fnmatch import translate
from typing import Any

from pipelines.core.sections.data import Rights, Validate
from pipelines.data.ingest.header import KNOWN_FORMATS
from pipelines.data.rights import compared, consents_allowed
from pipelines.data.validation.check import WARN, Check, aggregate, between, one_of, present, rows_between, values

PERMITTED = (
    "Every photo that `rights` permits for training and export, and every other row of the same photo, has a consent "
    "that is a clear yes: a word of rights.consent.allow, or a plain yes. Rows without any consent are among them only "
    "where rights.consent.unknown is allow."
)


def dataset_checks(params: Validate, rights: Rights) -> list[Check]:
    """Return the expectations on a frame of `dataset_frame`."""

    def at_most(name: str) -> dict[str, Any]:
        return {"allowed": getattr(params, name), "parameter": f"validate.{name}"}

    named = "A row is found again by the hash of its photo: by caches, by `forget`, and by the next ingest."
    return [
        rows_between(
            "photos",
            "There are enough photos to train on.",
            minimum=params.min_photos,
            parameter="validate.min_photos",
        ),
        present("without_image_id", "image_id", named),
        values("malformed_image_id", "ExpectColumnValuesToMatchRegex", "image_id", named, regex=r"^[0-9a-f]{64}$"),
        present("without_file_name", "file_name", "A problem with a photo can be traced to its file."),
        aggregate(
            "distinct_share",
            "ExpectColumnProportionOfUniqueValuesToBeBetween",
            "image_id",
            round(1.0 - params.max_duplicate_share, 9),
            "The same photos many times say that a source was ingested under two names; repeats are not trained on.",
            parameter="validate.max_duplicate_share",
        ),
        between(
            "empty_share",
            "n_bytes",
            1,
            None,
            "Many empty files say that a download or a copy was cut off.",
            **at_most("max_unreadable_share"),
        ),
        present(
            "unreadable_share",
            "format",
            "Many files that are no pictures say that the folder is the wrong one, or was damaged.",
            **at_most("max_unreadable_share"),
        ),
        one_of("unknown_format", "format", KNOWN_FORMATS, "Every format is one that preprocessing reads."),
        between(
            "too_small_share",
            "shorter_side",
            params.min_side,
            None,
            "Most photos are large enough to show a face at the resolution of training.",
            **at_most("max_small_share"),
        ),
        between(
            "too_large_share",
            "pixels",
            1,
            params.max_pixels,
            "No photo takes gigabytes of memory when it is opened.",
            **at_most("max_large_share"),
        ),
        present(
            "without_identity_share",
            "identity",
            "Identity is learnt and judged by several photos of one named person.",
            severity=WARN,
            **at_most("max_without_identity_share"),
        ),
        between(
            "single_photo_share",
            "photos_of_identity",
            2,
            None,
            "The reconfigurator is trained on two photos of one person, and evaluation compares two.",
            allowed=0.5,
            severity=WARN,
        ),
        values(
            "permitted_without_consent",
            "ExpectColumnValuesToMatchRegexList",
            "consent_of_permitted",
            PERMITTED,
            parameter="rights.consent",
            # From its beginning: Great Expectations searches for the pattern anywhere in the text.
            regex_list=[rf"\A{translate(compared(pattern))}" for pattern in consents_allowed(rights)],
            match_on="any",
        ),
        present(
            "without_prompt_share",
            "prompt",
            "Prompts that came with the photos are better than captions that a network makes.",
            severity=WARN,
            **at_most("max_without_prompt_share"),
        ),
    ]
