"""Define the schemas of the curation state and of `faces.parquet`, and the values of `status` and `reason`."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.core.files import atomic_file

SELECTED = "selected"
LEFT_OUT = "left_out"

# One row per face, in the order of file names; a photo without a face has one row without a face index.
FACES_SCHEMA = pa.schema(
    [
        ("file_name", pa.string()),  # relative to the source
        ("face_index", pa.int32()),  # 0 is the largest face of its photo; null if none was found
        ("image_id", pa.string()),  # sha256 of the photo's bytes; null if it could not be read
        ("label", pa.string()),  # the person named by the photo's folder, if labels are checked
        ("identity", pa.string()),  # the person that the face shows; null if it was not compared
        ("status", pa.string()),
        ("reason", pa.string()),  # one of REASONS where left out
        ("detail", pa.string()),
        ("selected_file", pa.string()),  # relative to the output folder
        ("turned", pa.int32()),  # degrees clockwise by which the photo was turned upright, after any EXIF rotation
        ("bbox", pa.list_(pa.float32())),  # 4: x0 y0 x1 y1, pixels of the upright photo
        ("det_score", pa.float32()),
        ("side", pa.float32()),  # the shorter side of the box, pixels of the photo
        ("sharpness", pa.float32()),
        ("yaw", pa.float32()),  # degrees, as in data/processed
        ("pitch", pa.float32()),
        ("roll", pa.float32()),
        ("expression", pa.string()),
        ("similarity", pa.float32()),  # cosine to the mean of the identity's other faces
        ("prompt", pa.string()),
        ("face_prompt", pa.string()),
    ]
)

# One row per face or photo without a face: results of the analysis, kept between runs.
STATE_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("file_name", pa.string()),
        ("image_id", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("n_faces", pa.int32()),
        ("face_index", pa.int32()),
        ("turned", pa.int32()),
        ("bbox", pa.list_(pa.float32())),
        ("landmarks", pa.list_(pa.float32())),  # 136, unit crop frame
        ("det_score", pa.float32()),
        ("side", pa.float32()),
        ("sharpness", pa.float32()),
        ("yaw", pa.float32()),
        ("pitch", pa.float32()),
        ("roll", pa.float32()),
        ("expression", pa.string()),
        ("embedding", pa.list_(pa.float32())),  # 512, unit norm: of the face, perhaps averaged with its mirror image
        ("texture", pa.binary()),  # 256 grey values between brows and chin
        ("thumbnail", pa.binary()),  # JPEG
    ]
)

REASONS: dict[str, str] = {
    "not_read": "the file could not be read from the source",
    "unreadable": "the bytes cannot be decoded as a picture",
    "empty": "the file has no bytes",
    "truncated": "the end of the picture is missing",
    "too_small": "the picture is smaller than the smallest face allowed",
    "too_large": "the picture has more pixels than allowed, so it was not decoded",
    "analyser_failed": "an analyser raised an error on this picture",
    "duplicate": "the same bytes occur in another file",
    "no_face": "no face was found",
    "turned": "the photo is not upright, or seems not to be, and which of two turns is right cannot be decided",
    "small_face": "the face is smaller than curate.min_face_side",
    "uncertain_face": "the detector is less sure than curate.min_score",
    "blurred": "the face is less sharp than curate.min_sharpness",
    "turned_away": "the head is turned further than curate.max_yaw or curate.max_pitch",
    "cut_off": "the face extends beyond the border of the photo",
    "label_disputed": "the face does not resemble the other photos of the person named by its folder",
    "unlike_identity": "the face is not similar enough to the mean of the identity's other faces to be sure",
    "twice_in_photo": "another face of the photo is more similar to this identity",
    "crowded": "every square around the face contains part of another face",
    "near_duplicate": "a better, nearly identical picture of the face is kept",
    "too_few": "fewer than curate.min_photos usable photos of this identity",
    "no_caption": "no caption could be made",
    "enough": "curate.max_photos other photos show more of this identity's expressions and poses",
}


def write_rows(rows: pa.Table, file: Path) -> None:
    """Write a Parquet file atomically; the same rows give the same bytes."""
    with atomic_file(file, shared=True) as part:
        pq.write_table(rows, part, compression="ZSTD", row_group_size=4096)
