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

    return [
        rows_between("photos", minimum=params.min_photos, parameter="validate.min_photos"),
        present("without_image_id", "image_id"),
        values("malformed_image_id", "ExpectColumnValuesToMatchRegex", "image_id", regex=r"^[0-9a-f]{64}$"),
        present("without_file_name", "file_name"),
        aggregate(
            "distinct_share",
            "ExpectColumnProportionOfUniqueValuesToBeBetween",
            "image_id",
            round(1.0 - params.max_duplicate_share, 9),
            parameter="validate.max_duplicate_share",
        ),
        between("empty_share", "n_bytes", 1, None, **at_most("max_unreadable_share")),
        present("unreadable_share", "format", **at_most("max_unreadable_share")),
        one_of("unknown_format", "format", KNOWN_FORMATS),
        between("too_small_share", "shorter_side", params.min_side, None, **at_most("max_small_share")),
        between("too_large_share", "pixels", 1, params.max_pixels, **at_most("max_large_share")),
        present("without_identity_share", "identity", severity=WARN, **at_most("max_without_identity_share")),
        # The reconfigurator is trained on two photos of one person, and evaluation compares two.
        between("single_photo_share", "photos_of_identity", 2, None, allowed=0.5, severity=WARN),
        values(
            "permitted_without_consent",
            "ExpectColumnValuesToMatchRegexList",
            "consent_of_permitted",
            parameter="rights.consent",
            description=PERMITTED,
            regex_list=[translate(compared(pattern)) for pattern in consents_allowed(rights)],
            match_on="any",
        ),
        present("without_prompt_share", "prompt", severity=WARN, **at_most("max_without_prompt_share")),
    ]
