"""Detect and recognise faces and, where the pack can, measure pose by insightface's FaceAnalysis."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from glob import has_magic
from pathlib import Path

import numpy as np

from model.processors import session_options
from pipelines.core.environment import plain_folder
from pipelines.core.errors import UserError
from pipelines.data.faces.networks import Batches, providers
from pipelines.data.faces.pose import angles
from pipelines.data.faces.protocols import Detection, Pose

_MODULES = ("detection", "recognition", "landmark_3d_68")
_106 = "landmark_2d_106"
_EMBEDDING = 512
# Side of the detector's input where only the best score of a small picture is needed.
_QUICK_SIDE = 128


def pack_folder(name: str, root: Path) -> Path:
    """Return the folder of a face pack; raise UserError where it is missing (nothing is ever downloaded)."""
    folder = root.expanduser() / "models" / name
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; expected the ONNX files of the insightface pack "
            f"{name!r} (preprocess.insightface_root / models / preprocess.insightface_name)"
        )
    return folder


class InsightFaceAnalyser:
    """A face pack: FaceDetector, Recogniser and, with `landmark_3d_68`, PoseEstimator of faces.protocols."""

    def __init__(
        self,
        folder: Path,
        *,
        det_sizes: Sequence[int] = (),
        det_threshold: float = 0.5,
        landmarks_106: bool = False,
    ) -> None:
        """Load the detection and recognition networks of a pack, and its 3-D landmarks where it has them.

        `det_sizes`: sides of the square inputs of the detector; empty means insightface's default. `landmarks_106`:
        also load the network for 106 landmarks. Raises UserError where one is missing.
        """
        from insightface.app import FaceAnalysis

        if not any(folder.glob("*.onnx")):
            raise UserError(f"{folder}: no ONNX file in it; expected a detection and a recognition network")
        place = folder.resolve()
        if has_magic(str(place)):
            # insightface takes the path for a pattern. It reads the pack again for every new size of pictures.
            links = ExitStack()
            name = links.enter_context(plain_folder())
            weakref.finalize(self, links.close)
            for file in place.iterdir():
                (name / file.name).symlink_to(file)
            place = name
        try:
            # Given a path, it loads the pack from there and downloads nothing.
            pack = FaceAnalysis(
                name=str(place),
                allowed_modules=[*_MODULES, *([_106] if landmarks_106 else [])],
                providers=providers(),
                sess_options=session_options(),
            )
        except AssertionError:
            raise UserError(f"{folder}: no detection network in it; expected SCRFD with key points") from None
        if "recognition" not in pack.models:
            raise UserError(f"{folder}: no recognition network in it; expected ArcFace with {_EMBEDDING} outputs")
        if landmarks_106 and _106 not in pack.models:
            raise UserError(
                f"{folder}: no network for 106 landmarks in it ({_106}), which the adapter's conventions ask for "
                "(landmark_points); name a pack that has one, such as buffalo_l, or convert with "
                "conventions.landmark_points=68"
            )
        sizes = [(side, side) for side in det_sizes] or None
        device = 0 if "CUDAExecutionProvider" in providers() else -1
        pack.prepare(ctx_id=device, det_thresh=det_threshold, det_size=sizes)
        self._detector = pack.det_model
        self._recogniser = pack.models["recognition"]
        width = self._recogniser.output_shape[-1]
        if isinstance(width, int) and width != _EMBEDDING:
            raise UserError(f"{folder}: the recognition network has {width} outputs per face, expected {_EMBEDDING}")
        self._landmarks_3d = pack.models.get("landmark_3d_68")
        self._landmarks_106 = pack.models.get(_106)
        self._batches = Batches(self._recogniser.session)

    @property
    def measures_pose(self) -> bool:
        """Whether the pack has the 3-D landmarks from which it measures pose."""
        return self._landmarks_3d is not None

    def detect(self, image: np.ndarray) -> list[Detection]:
        """Return the faces of a picture (H, W, 3) uint8 RGB, best score first; empty where there is none."""
        boxes, points = self._detector.detect(np.ascontiguousarray(image[..., ::-1]))
        if points is None:
            raise UserError("the detection network gives no key points; use one of the *_kps family")
        return [
            Detection(box[:4].astype(np.float32), keypoints.astype(np.float32), float(box[4]))
            for box, keypoints in zip(boxes, points, strict=True)
        ]

    def quick_score(self, image: np.ndarray) -> float:
        """Return the best score in a picture of about 128 pixels a side; 0 where there is no face."""
        bgr = np.ascontiguousarray(image[..., ::-1])
        boxes, _ = self._detector.detect(bgr, input_size=(_QUICK_SIDE, _QUICK_SIDE))
        return max((float(box[4]) for box in boxes), default=0.0)

    def embed(self, images: Sequence[np.ndarray], keypoints: Sequence[np.ndarray]) -> np.ndarray:
        """Return unit-norm embeddings (N, 512) float32 of N pictures with the key points (5, 2) of their faces."""
        if not images:
            return np.zeros((0, _EMBEDDING), np.float32)
        from insightface.utils.face_align import norm_crop

        side = self._recogniser.input_size[0]
        mean, scale = self._recogniser.input_mean, self._recogniser.input_std
        crops = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # insightface calls a deprecated function
            for image, points in zip(images, keypoints, strict=True):
                crop = norm_crop(image, np.asarray(points, np.float32), side)
                crops.append(((crop.astype(np.float32) - mean) / scale).transpose(2, 0, 1))
        features = self._batches.run(crops).astype(np.float32)
        norms = np.maximum(np.linalg.norm(features, axis=1, keepdims=True), np.float32(1e-12))
        return (features / norms).astype(np.float32)

    def landmarks_106(self, image: np.ndarray, bbox: np.ndarray) -> np.ndarray:
        """Return the 106 landmarks (106, 2) of the face in a box (4,), in pixels of `image` (H, W, 3) uint8 RGB."""
        from insightface.app.common import Face

        points = self._landmarks_106.get(np.ascontiguousarray(image[..., ::-1]), Face(bbox=bbox))
        return np.asarray(points, np.float32)

    pose_source = "face pack"

    def poses(
        self, images: Sequence[np.ndarray], faces: Sequence[Detection], landmarks: Sequence[np.ndarray]
    ) -> list[Pose]:
        """Return the poses by the pack's own 3-D landmarks; `landmarks` is not used."""
        return [self._pose(image, face) for image, face in zip(images, faces, strict=True)]

    def _pose(self, image: np.ndarray, detection: Detection) -> Pose:
        if self._landmarks_3d is None:
            raise UserError("the face pack has no landmark_3d_68 network: pose comes from the 68 landmarks instead")
        from insightface.app.common import Face

        face = Face(bbox=detection.bbox, kps=detection.keypoints, det_score=detection.score)
        self._landmarks_3d.get(np.ascontiguousarray(image[..., ::-1]), face)
        return pose_of_insightface(*(float(angle) for angle in face["pose"]))


def pose_of_insightface(pitch: float, yaw: float, roll: float) -> Pose:
    """Return the pose for insightface's angles (degrees, in insightface's order).

    insightface rotates its mean shape (y down, z towards the viewer) onto the points: the signs are those of Pose, but
    the order of the rotations differs (pitch first, then yaw, then roll).
    """
    import cv2

    about_x, about_y, about_z = (
        cv2.Rodrigues(np.radians(angle) * np.eye(3)[axis])[0] for axis, angle in enumerate((pitch, yaw, roll))
    )
    towards_viewer = np.diag([1.0, 1.0, -1.0])
    return angles(towards_viewer @ about_z @ about_y @ about_x @ towards_viewer)
