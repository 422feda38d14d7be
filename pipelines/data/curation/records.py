"""What curation keeps of every face: the rows of its state and of `faces.parquet`, statuses and reasons."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.core.files import atomic_file

SELECTED = "selected"
LEFT_OUT = "left_out"

# One row a face, in the order of file names; a photo without a usable face is one row without a face index.
FACES_SCHEMA = pa.schema(
    [
        ("file_name", pa.string()),  # relative to the source
        ("face_index", pa.int32()),  # 0 is the largest face of its photo; null where none was found
        ("image_id", pa.string()),  # sha256 of the photo's bytes; null where it could not be read
        ("label", pa.string()),  # the person that the photo's folder names, where labels are checked
        ("identity", pa.string()),  # the person that the face was found to show; null where it was not compared
        ("status", pa.string()),
        ("reason", pa.string()),  # one of REASONS where left out
        ("detail", pa.string()),
        ("selected_file", pa.string()),  # relative to the output folder
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

# One row a face or a photo without one: what looking at a photo yields, kept between runs.
SEEN_SCHEMA = pa.schema(
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
        ("bbox", pa.list_(pa.float32())),
        ("landmarks", pa.list_(pa.float32())),  # 136, unit crop frame
        ("det_score", pa.float32()),
        ("side", pa.float32()),
        ("sharpness", pa.float32()),
        ("yaw", pa.float32()),
        ("pitch", pa.float32()),
        ("roll", pa.float32()),
        ("expression", pa.string()),
        ("embedding", pa.list_(pa.float32())),  # 512, unit norm: between that of the face and of its mirror image
        ("texture", pa.binary()),  # 256 grey values between brows and chin
        ("thumbnail", pa.binary()),  # JPEG
    ]
)

REASONS: dict[str, str] = {
    "not_read": "the file could not be read from the source",
    "unreadable": "the bytes are no picture that can be decoded",
    "empty": "the file has no bytes",
    "truncated": "the picture ends before its data does",
    "too_small": "the picture is smaller than a face must be",
    "too_large": "the picture has more pixels than allowed, so it was not decoded",
    "analyser_failed": "an analyser raised an error on this picture",
    "duplicate": "the same bytes occur in another file",
    "no_face": "no face was found",
    "small_face": "the face is smaller than curate.min_face_side",
    "uncertain_face": "the detector is less sure than curate.min_score",
    "blurred": "the face is less sharp than curate.min_sharpness",
    "turned_away": "the head is turned further than curate.max_yaw or curate.max_pitch",
    "cut_off": "the face reaches over the border of the photo",
    "label_disputed": "the photo does not look like the rest of the person that its folder names",
    "unlike_identity": "the face is less like its identity's others than curate.similarity",
    "twice_in_photo": "another face of the photo is more like this identity",
    "crowded": "no square around the face is free of other faces",
    "near_duplicate": "nearly the same picture of the face was kept",
    "too_few": "fewer than curate.min_photos usable photos of this identity",
    "no_caption": "no caption could be made",
    "enough": "curate.max_photos others show more of this identity's expressions and poses",
}


def write_rows(rows: pa.Table, file: Path) -> None:
    """Write a Parquet file that is whole or not there; the same rows give the same bytes."""
    with atomic_file(file, shared=True) as part:
        pq.write_table(rows, part, compression="ZSTD", row_group_size=4096)
