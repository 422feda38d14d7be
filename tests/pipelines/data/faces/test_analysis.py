"""Analysis with real networks: framing, coordinates, reasons, and results that do not depend on the batch."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.face.face_geometry import transform
from model.face.face_prompts import POSE_PHRASES
from pipelines.core.errors import UserError
from pipelines.core.sections.data import Preprocess
from pipelines.core.sections.face_networks import Expression, FaceClassifier
from pipelines.data.faces.analysis import Analyser, load_analyser, to_face
from pipelines.data.faces.face_inputs import FaceInputs
from pipelines.data.faces.record import FaceRecord
from pipelines.data.faces.version import analyser_version
from tests.pipelines.awkward import AWKWARD, make_awkward_photos
from tests.pipelines.face_networks import save_face_network
from tests.pipelines.photos import encoded, slim_landmarker

pytestmark = pytest.mark.realdata


def _params(shared: Path, **changes: object) -> Preprocess:
    values = {
        "resolution": 96,
        "insightface_name": "buffalo_real_mini",
        "insightface_root": str(shared / "weights" / "insightface"),
        "det_sizes": (128,),
        "landmarker": slim_landmarker(shared),
        "captions": {"sources": ("sidecar",)},
    }
    return Preprocess.model_validate(values | changes)


@pytest.fixture(scope="module")
def analyser(shared: Path) -> Analyser:
    return load_analyser(_params(shared))


@pytest.fixture(scope="module")
def photo(shared: Path) -> bytes:
    return (shared / "photos" / "lfw10_krasserm" / "Colin_Powell" / "Colin_Powell_0001.jpg").read_bytes()


def _array(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_everything_is_measured_in_pixels_of_the_stored_picture(analyser: Analyser, photo: bytes) -> None:
    record = analyser.analyse([photo], ["a man in a suit"], ["happy, facing the camera"])[0]
    assert (record.status, record.reason) == ("ok", None)
    assert Image.open(io.BytesIO(record.image)).size == (96, 96)
    x0, y0, x1, y1 = record.bbox
    assert 0 <= x0 < x1 <= 96
    assert 0 <= y0 < y1 <= 96
    for points in (record.keypoints, record.landmarks[17:]):
        assert (points > [x0 - 5, y0 - 5]).all()
        assert (points < [x1 + 5, y1 + 5]).all()
    # The eye landmarks surround the detector's eyes.
    assert np.abs(record.landmarks[36:42].mean(0) - record.keypoints[0]).max() < 3
    assert np.abs(record.landmarks[42:48].mean(0) - record.keypoints[1]).max() < 3
    assert np.linalg.norm(record.embedding) == pytest.approx(1, abs=1e-5)
    assert (record.prompt, record.face_prompt, record.expression) == (
        "a man in a suit",
        "happy, facing the camera",
        "happy",
    )
    # Analysing the stored picture finds the face at the same place.
    again = analyser.analyse_images([_array(record.image)])[0][0]
    assert np.abs(again.keypoints - record.keypoints).max() < 2.5


def test_a_photo_without_texts_has_its_measured_pose_and_nothing_else(analyser: Analyser, photo: bytes) -> None:
    record = analyser.analyse([photo])[0]
    assert (record.prompt, record.expression, record.expression_source) == (None, None, None)
    assert record.face_prompt == POSE_PHRASES[record.pose]
    assert record.pose_source == "landmarks"


def test_a_turned_file_gives_the_same_face(analyser: Analyser, photo: bytes) -> None:
    orientation = Image.Exif()
    orientation[0x0112] = 6
    upright = Image.open(io.BytesIO(photo))
    file = encoded(upright.rotate(90, expand=True), quality=97, exif=orientation)
    record, turned = analyser.analyse([photo, file])
    assert turned.embedding @ record.embedding > 0.9
    assert np.abs(turned.landmarks - record.landmarks).mean() < 1.5


def test_records_do_not_depend_on_what_is_analysed_together(analyser: Analyser, shared: Path) -> None:
    files = sorted((shared / "photos" / "lfw10_krasserm").glob("*/*_0002.jpg"))[:5]
    photos = [file.read_bytes() for file in files]
    together = analyser.analyse([*photos, b"", photos[0]])
    assert together[5].reason == "empty"
    alone = [analyser.analyse([data])[0] for data in reversed(photos)]
    for one, other in zip(together[:5], reversed(alone), strict=True):
        assert one.image == other.image
        for name in ("bbox", "keypoints", "landmarks", "embedding"):
            assert (getattr(one, name) == getattr(other, name)).all(), name
        assert (one.yaw, one.sharpness, one.det_score) == (other.yaw, other.sharpness, other.det_score)


def test_reasons(shared: Path, analyser: Analyser, photo: bytes) -> None:
    one = _array(photo)
    two = np.concatenate([one, one[:, ::-1]], axis=1)
    empty = np.full((200, 200, 3), 90, np.uint8)
    tiny = np.array(Image.fromarray(one).resize((24, 24)))
    largest, none, small = analyser.analyse([encoded(two, "PNG"), encoded(empty, "PNG"), encoded(tiny, "PNG")])
    assert (largest.status, largest.n_faces) == ("ok", 2)
    assert (none.status, none.reason, none.n_faces) == ("rejected", "no_face", 0)
    assert none.image is None
    assert none.embedding is None
    assert small.reason in {"too_small", "no_face"}
    strict = load_analyser(_params(shared, several_faces="reject", min_face_side=200, min_sharpness=1e9))
    assert [record.reason for record in strict.analyse([encoded(two, "PNG")])] == ["several_faces"]
    assert strict.analyse([photo])[0].reason == "too_small"
    blurred = load_analyser(_params(shared, min_sharpness=1e9)).analyse([photo])[0]
    assert blurred.reason == "blurred"
    assert blurred.sharpness > 0


def test_the_square_is_tightened_around_a_small_face(shared: Path, photo: bytes) -> None:
    wide = np.pad(_array(photo), ((300, 300), (300, 300), (0, 0)), constant_values=80)
    record = load_analyser(_params(shared, face_share=0.5, det_sizes=())).analyse([encoded(wide, "PNG")])[0]
    assert record.status == "ok"
    assert (record.bbox[3] - record.bbox[1]) / 96 == pytest.approx(0.5, abs=0.01)


def test_an_analyser_that_fails_on_one_photo_rejects_only_that_photo(shared: Path, photo: bytes) -> None:
    analyser = load_analyser(_params(shared))
    other = (shared / "photos" / "lfw10_krasserm" / "Tony_Blair" / "Tony_Blair_0001.jpg").read_bytes()
    embed = analyser._recogniser.embed

    def embed_or_fail(images: list[np.ndarray], keypoints: list[np.ndarray]) -> np.ndarray:
        if any((image == _array(other)).all() for image in images):
            raise ArithmeticError("overflow in the third layer")
        return embed(images, keypoints)

    analyser._recogniser.embed = embed_or_fail
    good, bad, also_good = analyser.analyse([photo, other, photo])
    assert (good.status, also_good.status) == ("ok", "ok")
    assert (bad.status, bad.reason) == ("rejected", "analyser_failed")
    assert "overflow in the third layer" in bad.detail


def test_small_generated_pictures_are_enlarged(analyser: Analyser, photo: bytes) -> None:
    small = np.asarray(Image.fromarray(_array(photo)).resize((64, 64), Image.Resampling.LANCZOS))
    blank = np.zeros((64, 64, 3), np.uint8)
    faces, none = analyser.analyse_images([small, blank], embed=True)
    assert none == []
    assert (faces[0].landmarks.max(0) < 64).all()
    assert faces[0].embedding @ analyser.analyse([photo])[0].embedding > 0.5
    both = analyser.analyse_images([np.concatenate([small, small[:, ::-1]], axis=1)])[0]
    assert len(both) == 2


@pytest.mark.parametrize("side", [64, 400])
def test_mirroring_twice_gives_the_embedding_of_the_picture(analyser: Analyser, photo: bytes, side: int) -> None:
    image = np.asarray(Image.fromarray(_array(photo)).resize((side, side), Image.Resampling.LANCZOS))
    blank = np.zeros((side, side, 3), np.uint8)
    (found,), _ = analyser.analyse_images([image, blank], embed=True)
    turned = found.keypoints[[1, 0, 2, 4, 3]] * [-1, 1] + [side - 1, 0]
    other = replace(found, keypoints=turned.astype(np.float32))
    mirrored = analyser.embed_mirrored([blank, image[:, ::-1]], [[], [other]])
    assert mirrored.shape == (1, 512)
    # Enlarging shifts pixel centres slightly.
    assert mirrored[0] @ found.embedding > (0.98 if side < 128 else 0.9999)
    assert 0.5 < analyser.embed_mirrored([image], [[found]])[0] @ found.embedding < 0.999


def test_a_record_becomes_a_face_of_the_model(analyser: Analyser, photo: bytes) -> None:
    record = analyser.analyse([photo], None, ["sad, slightly turned to the left"])[0]
    face = to_face(record, FaceInputs(48))
    assert face.crop.shape == (48, 48, 3)
    assert (face.expression, face.pose) == ("sad", "half_left")
    assert face.landmarks.shape == (68, 2)
    assert ((face.landmarks > -0.1) & (face.landmarks < 1.1)).all()
    assert transform(face.landmarks, np.eye(2, 3)).dtype == np.float32
    with pytest.raises(UserError, match="no usable face: empty"):
        to_face(analyser.analyse([b""])[0], FaceInputs(48))


def test_the_version_follows_content_and_not_places(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = _params(shared)
    version = analyser_version(params)
    copy = tmp_path / "moved.onnx"
    copy.write_bytes(Path(params.landmarker.path).read_bytes())

    def with_landmarker(**changes: object) -> Preprocess:
        return params.model_copy(update={"landmarker": params.landmarker.model_copy(update=changes)})

    assert analyser_version(params.model_copy(update={"buckets": 3, "test_share": 0.3, "slice_photos": 7})) == version
    assert analyser_version(params.model_copy(update={"resolution": 64})) != version
    assert analyser_version(with_landmarker(box_scale=1.3)) != version
    same = analyser_version(with_landmarker(path=str(copy)))
    copy.write_bytes(copy.read_bytes() + b"\x00")
    assert analyser_version(with_landmarker(path=str(copy))) != same
    votes = [
        params.model_copy(update={"expression": Expression(networks=(network,))})
        for network in (FaceClassifier(path=str(copy)), FaceClassifier(path=str(copy), mirror=True))
    ]
    versions = {version, *map(analyser_version, votes)}
    copy.write_bytes(copy.read_bytes() + b"\x00")
    assert len({*versions, *map(analyser_version, votes)}) == 5


def test_labels_of_networks_are_stated_with_their_source(shared: Path, tmp_path: Path, photo: bytes) -> None:
    """A text given with the photo goes first; what the networks are not sure of is in no face prompt."""
    sad = save_face_network(
        tmp_path / "sad.onnx", np.zeros((3, 2)), bias=np.log([0.7, 0.3]), classes="sad,happy", softmax=True
    )
    left = save_face_network(tmp_path / "left.onnx", np.zeros((3, 1)), bias=np.array([-58.0]))
    right = save_face_network(tmp_path / "right.onnx", np.zeros((3, 1)), bias=np.array([61.0]))

    def analysed(bound: float, *poses: Path, text: str | None = None) -> FaceRecord:
        networks = [{"path": str(file), "size": 32, "angles": ("yaw",)} for file in poses]
        params = _params(
            shared,
            expression={"networks": [{"path": str(sad), "size": 32}], "min_confidence": bound},
            pose={"networks": networks},
        )
        return load_analyser(params).analyse([photo], None, [text])[0]

    named = analysed(0.6, left)
    assert (named.expression, named.pose, named.face_prompt) == ("sad", "left", "sad, turned to the left")
    assert named.expression_confidence == pytest.approx(0.7, abs=1e-5)
    assert (named.yaw, named.pose_spread) == (pytest.approx(-58), None)
    assert named.expression_source.startswith("sad.onnx ")
    assert named.pose_source.startswith("left.onnx ")
    opened = analysed(0.8, left, right)
    assert (opened.expression, opened.pose, opened.face_prompt) == (None, None, None)
    assert (opened.yaw, opened.pose_spread) == (pytest.approx(1.5), pytest.approx(119))
    assert opened.expression_confidence == named.expression_confidence
    given = analysed(0.6, left, text="happy, facing the camera")
    assert (given.expression, given.pose, given.face_prompt) == ("happy", "front", "happy, facing the camera")
    assert (given.expression_source, given.pose_source) == ("sidecar", "sidecar")
    face = to_face(opened, FaceInputs(48))
    assert (face.expression, face.pose) == (None, None)


def test_awkward_photos_of_a_face_are_used(shared: Path, tmp_path: Path, analyser: Analyser) -> None:
    source = shared / "photos" / "lfw10_krasserm" / "Tony_Blair" / "Tony_Blair_0001.jpg"
    for file in make_awkward_photos(tmp_path / "awkward", Image.open(source).crop((45, 20, 205, 234))).iterdir():
        name = next((key for key in AWKWARD if key.split("%")[0] == file.name[:3]), file.name)
        expected = AWKWARD[name]
        record = analyser.analyse([file.read_bytes()])[0]
        if expected.reason in (None, "duplicate"):
            assert record.status == "ok", name
        else:
            assert (record.status, record.reason) == ("rejected", expected.reason), name
